export { authenticateClient, type ClientCredentials } from "./authenticate-client.ts";
export { introspect } from "./introspect.ts";
export { revoke } from "./revoke.ts";
