import { createHmac } from "node:crypto";
import type { Keyring, SecretKey } from "../../../config/secrets.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { computeHash, isOutdated, readHash } from "./formats.ts";
import { MAX_PASSWORD_BYTES, normalise } from "./normalise.ts";

export { BREACH_FILTER_FILE, type BreachCheck, createBreachCheck } from "./breach-check.ts";
export { computeHash, type ReadableHash, readHash } from "./formats.ts";
export { HashRefused } from "./hashes/format.ts";
export { type FirebaseParameters, firebaseHash } from "./hashes/scrypt.ts";
export { MAX_PASSWORD_BYTES } from "./normalise.ts";
export {
  type Approval,
  approvalRecord,
  assertPasswordAllowed,
  recordApproval,
  unchangedPassword,
  weaknessesOf,
} from "./policy.ts";

/** A hash as the database keeps it, and the pepper under it (null for hashes that came from elsewhere). */
export interface StoredPassword {
  readonly secret: string;
  readonly pepperId: string | null;
}

export interface PasswordCheck {
  readonly correct: boolean;
  /** The same password under today's settings and pepper, where the stored hash is not; else undefined. */
  readonly rehashed: StoredPassword | undefined;
}

type PasswordDeps = Pick<Deps, "hashPool" | "secrets" | "settings">;

/** The pepper also makes every password 43 characters long, so that no algorithm cuts it off or stumbles over NUL. */
const withPepper = (password: string, pepper: SecretKey) =>
  createHmac("sha256", pepper.bytes).update(normalise(password)).digest("base64url");

/** Before anything is computed. @throws AppError VALIDATION_FAILED past {@link MAX_PASSWORD_BYTES} */
export function assertPasswordBounded(password: string): void {
  if (Buffer.byteLength(password) <= MAX_PASSWORD_BYTES) return;
  const fields = [{ path: "password", message: `At most ${MAX_PASSWORD_BYTES} bytes` }];
  throw new AppError("VALIDATION_FAILED", { details: { fields } });
}

/** Hashes a password for keeping. @throws AppError SERVICE_UNAVAILABLE when the hash pool is full */
export async function hashPassword(deps: PasswordDeps, password: string): Promise<StoredPassword> {
  const pepper = deps.secrets.pepper[0];
  const { settings } = deps;
  const secret = await deps.hashPool.run(() => computeHash(withPepper(password, pepper), settings.password));
  return { secret, pepperId: pepper.id };
}

/**
 * Checks a password. Where there is nothing to check it against (no account, no password, a damaged hash) as much work
 * is done for a hash of nobody's, so that neither answer nor time tells the difference.
 *
 * @throws AppError SERVICE_UNAVAILABLE when the hash pool is full
 */
export async function checkPassword(
  deps: PasswordDeps,
  password: string,
  stored: StoredPassword | undefined,
): Promise<PasswordCheck> {
  const hash = stored && readHash(stored.secret);
  const spellings = stored && spellingsFor(deps.secrets.pepper, password, stored);
  if (!stored || !hash || "refused" in hash || spellings === undefined) {
    await deps.hashPool.run(() => computeHash(withPepper(password, deps.secrets.pepper[0]), deps.settings.password));
    return { correct: false, rehashed: undefined };
  }
  // All of it as one piece of work: how long that takes is what other refusals are made to take.
  const correct = await deps.hashPool.run(async () => {
    for (const spelling of spellings) if (await hash.verify(Buffer.from(spelling)).catch(() => false)) return true;
    return false;
  });
  const outdated = stored.pepperId !== deps.secrets.pepper[0].id || isOutdated(stored.secret, deps.settings.password);
  if (!correct || !outdated) return { correct, rehashed: undefined };
  // A full pool must not turn a right password into a failure: the hash is renewed next time.
  return { correct, rehashed: await hashPassword(deps, password).catch(() => undefined) };
}

/**
 * What was hashed: with the pepper that the row names, or bare. Other products hash what was typed as it was, so where
 * that is not in the canonical form it is tried first. Undefined where that pepper is gone.
 */
function spellingsFor(peppers: Keyring, password: string, stored: StoredPassword): readonly string[] | undefined {
  if (stored.pepperId === null) return [...new Set([password, normalise(password)])];
  const pepper = peppers.find((candidate) => candidate.id === stored.pepperId);
  return pepper && [withPepper(password, pepper)];
}
