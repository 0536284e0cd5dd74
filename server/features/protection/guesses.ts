import { createHmac } from "node:crypto";
import { deriveKey } from "../../../config/secrets.ts";
import type { Tx } from "../../../db/database.ts";
import {
  deleteFailures,
  deleteFailuresOf,
  type FailurePolicy,
  findFailures,
  type Reserved,
  releaseAttempt,
  reserveAttempt,
  reserveLogin,
} from "../../../db/queries/failures.ts";
import type { UserKey } from "../../../db/queries/users.ts";
import type { Deps } from "../../deps.ts";
import { rateLimited } from "../../errors.ts";
import { hashSecret } from "../tokens/service.ts";
import { takeRoom, waitOf } from "./limits.ts";

/** What a password is tried on. Each of these has its own count of failures. */
export type Guessed =
  /** An account in one of its owner's sessions, or from one of their devices: strangers do not slow these down. */
  | { readonly userId: string; readonly lane: string }
  /** A name that nobody has. */
  | { readonly name: string };

/** An attempt that was counted as failed until it proves right. */
export interface Guess {
  readonly subject: string;
  /** How many it makes in a row. */
  readonly failures: number;
  /** Whether it is the one with which the password is switched off. */
  readonly isLast: boolean;
  /** Whether it is switched off: then this attempt is not counted, and the password does not count, right or wrong. */
  readonly isLocked: boolean;
}

type GuardDeps = Pick<Deps, "db" | "settings" | "clock" | "secrets" | "limiter" | "log" | "metrics">;

function subjectOf({ secrets }: GuardDeps, guessed: Guessed): string {
  if ("name" in guessed) {
    // Nobody reads from the table which names were tried.
    const key = deriveKey(secrets.pepper[0], "names that nobody has");
    return `name:${createHmac("sha256", key).update(guessed.name).digest("base64url")}`;
  }
  return `user:${guessed.userId}:${guessed.lane}`;
}

const policyOf = ({ settings }: GuardDeps): FailurePolicy => ({
  delayAfter: settings.accounts.delay_after,
  lockAfter: settings.accounts.lock_after,
});

/**
 * Counts an attempt before its password is looked at. Of any number at the same moment, on however many nodes, no more
 * are let through than may fail (NIST SP 800-63B, section 3.2.2).
 *
 * @throws AppError RATE_LIMIT_EXCEEDED inside of a delay; that try is not counted, so nobody can prolong the wait
 */
export async function reserveGuess(deps: GuardDeps, guessed: Guessed): Promise<Guess> {
  const subject = subjectOf(deps, guessed);
  const now = deps.clock.now();
  return guessOf(deps, subject, await reserveAttempt(deps.db.orm, subject, policyOf(deps), now), now);
}

/** What somebody says who they are, and what their device shows. */
export interface LoginClaim {
  readonly identifier: UserKey;
  readonly deviceToken: string | undefined;
}

/**
 * The same for a login, in one step with reading the account that is meant and whether the device is one of its owner's.
 *
 * @throws AppError as {@link reserveGuess}
 */
export async function reserveLoginGuess(deps: GuardDeps, { identifier, deviceToken }: LoginClaim) {
  const now = deps.clock.now();
  const meant = {
    by: identifier,
    deviceTokenHash: deviceToken === undefined ? null : hashSecret(deviceToken),
    nobody: subjectOf(deps, { name: identifier.key }),
  };
  const { account, deviceId, subject, reserved } = await reserveLogin(deps.db.orm, meant, policyOf(deps), now);
  return { account, isKnownDevice: deviceId !== null, guess: await guessOf(deps, subject, reserved, now) };
}

async function guessOf(deps: GuardDeps, subject: string, reserved: Reserved | undefined, now: Date): Promise<Guess> {
  const { delayAfter, lockAfter } = policyOf(deps);
  if (reserved) {
    const { failures } = reserved;
    const guess = { subject, failures, isLast: failures === lockAfter, isLocked: false };
    await takeFailure(deps, guess, reserved.firstFailureAt);
    return guess;
  }
  const found = await findFailures(deps.db.orm, subject);
  if (found && lockAfter > 0 && found.failures >= lockAfter) {
    return { subject, failures: found.failures, isLast: false, isLocked: true };
  }
  const delay = (found?.blockedUntil?.getTime() ?? 0) - now.getTime();
  const limit = found ? await waitOf(deps, "login_account", windowOf(subject, found.firstFailureAt)) : 0;
  throw rateLimited(Math.max(delay, limit, 1), delayAfter);
}

/**
 * Whose window of failures it is: it begins anew with the first failure after a login that was right, a new password or an
 * unlock. A device of its owner's and a session have none; they know only the delay.
 */
const windowOf = (subject: string, firstFailureAt: Date) => `${subject}:${firstFailureAt.getTime()}`;

/** Whether a subject is a device or a session of an account, and not the account as strangers see it. */
export const isLane = ({ subject }: Guess): boolean => subject.split(":").length > 2;

/** Counts the attempt in the window of failures too; where that is full, it is not made. */
async function takeFailure(deps: GuardDeps, guess: Guess, firstFailureAt: Date): Promise<void> {
  if (isLane(guess)) return;
  try {
    await takeRoom(deps, "login_account", windowOf(guess.subject, firstFailureAt));
  } catch (error) {
    await releaseGuess(deps, guess);
    throw error;
  }
}

/** The attempt was not looked at, or its password was right although it led to nothing: it was no guess. */
export const releaseGuess = async (deps: GuardDeps, { subject, isLocked }: Guess): Promise<void> => {
  if (!isLocked) await releaseAttempt(deps.db.orm, subject);
};

/** The attempt was right in every respect: what came before it is forgotten. */
export const passGuess = (tx: Tx, { subject }: Guess) => deleteFailures(tx, subject);

/** Forgets every failure on an account: its password was reset, or an administrator unlocks it. */
export const clearFailures = async (tx: Tx, userId: string): Promise<void> => {
  await deleteFailuresOf(tx, `user:${userId}`);
};
