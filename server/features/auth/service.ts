export {
  type Authenticated,
  authenticate,
  authenticateAtOnce,
  authenticateLegacy,
  bearerToken,
  findLiveSession,
  isAlive,
  type Shown,
} from "./authenticate.ts";
export { checkGuess } from "./check-guess.ts";
export type { TokenAnswer } from "./issue-tokens.ts";
export { createLegacyUsers, type LegacyUsers } from "./legacy-users.ts";
export { type LoggedIn, login } from "./login.ts";
export { logout, sessionOfAccessToken, sessionOfRefreshToken } from "./logout.ts";
export { decide as decideRefresh, refresh } from "./refresh.ts";
export { waitForFloor } from "./refuse.ts";
export { assertSteppedUp, type Proven, provePassword, refuseChanged, stepUp, withProof } from "./step-up.ts";
