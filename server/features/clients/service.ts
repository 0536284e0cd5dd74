export { type ClientStates, createClientStates } from "./client-states.ts";
export {
  type ClientDeps,
  type ClientView,
  type ClientWithSecret,
  createClient,
  DEFAULT_OVERLAP_MS,
  deleteClient,
  findClientByAny,
  listClientPage,
  MAX_OVERLAP_MS,
  rotateClientSecret,
} from "./manage-clients.ts";
export { verifyClient } from "./verify-client.ts";
