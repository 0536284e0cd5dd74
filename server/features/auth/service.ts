export { type Authenticated, authenticate, authenticateLegacy, bearerToken, type Shown } from "./authenticate.ts";
export type { TokenAnswer } from "./issue-tokens.ts";
export { type LoggedIn, login } from "./login.ts";
export { logout } from "./logout.ts";
export { refresh } from "./refresh.ts";
export { assertSteppedUp, stepUp } from "./step-up.ts";
