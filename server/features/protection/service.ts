export {
  clearFailures,
  type Guess,
  type Guessed,
  passGuess,
  releaseGuess,
  reserveGuess,
} from "./guesses.ts";
export { type DeviceShown, findKnownDevice, rememberDevice } from "./known-devices.ts";
export { assessSignIn, type Signal, type SignInRisk } from "./sign-in-risk.ts";
