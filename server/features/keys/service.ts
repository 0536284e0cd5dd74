export {
  type Beginning,
  createSecretKey,
  generateSigningKey,
  keepSigningKey,
  type NewSigningKey,
} from "./create-keys.ts";
export { keepKeys } from "./keep-keys.ts";
export { type KeyRing, type OpenKey, openKeyRing } from "./key-ring.ts";
export { resealJobs } from "./reseal-jobs.ts";
export {
  activationOf,
  advanceKeys,
  JWKS_MAX_AGE_SECONDS,
  type Pace,
  PICK_UP_MS,
  type RotationDeps,
  type Staged,
  stageKey,
  undoRotation,
} from "./rotate-keys.ts";
export { rotateMasterKey } from "./rotate-master.ts";
export { openSecrets, unlockSecrets } from "./secrets.ts";
