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
export { assessSignIn, type Signal, type SignInRisk } from "./sign-in-risk.ts";
