export {
  type Attempts,
  BASELINE_SIGNALS,
  type BaselineKind,
  type BaselineSignal,
  HOUR_WEIGHTS,
  hourOf,
  judge,
  learn,
  newBaseline,
} from "./baseline.ts";
export {
  clearFailures,
  type Guess,
  isLane,
  passGuess,
  releaseGuess,
  reserveGuess,
  reserveLoginGuess,
} from "./guesses.ts";
export { rememberDevice } from "./known-devices.ts";
export { assertRoom, type ServiceLimit, takeRoom } from "./limits.ts";
export { assessSignIn, type Signal, type SignInRisk, SUSPICIOUS } from "./sign-in-risk.ts";
