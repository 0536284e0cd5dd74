import { lockSession, updateSession } from "../../../db/queries/sessions.ts";
import { findUserWithPassword, type LoginAccount, lockAccount, replaceHash } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { audit } from "../audit/service.ts";
import { assertPasswordBounded, type StoredPassword } from "../passwords/service.ts";
import { type Guess, passGuess, releaseGuess, reserveGuess } from "../protection/service.ts";
import { type Authenticated, assertAlive, type TokenClaims } from "./authenticate.ts";
import { checkGuess } from "./check-guess.ts";
import { type AccessTokenAnswer, issueAccessToken } from "./issue-tokens.ts";
import { type Attempt, LOCKED, type Refusal, recordRefusal, refuse, wrongPassword } from "./refuse.ts";

const CHANGED_MEANWHILE: Refusal = { code: "AUTH_INVALID_CREDENTIALS", reason: "account_changed" };

/** Somebody who has just typed the right password of the account that they are logged in to. */
export interface Proven {
  readonly account: LoginAccount;
  readonly rehashed: StoredPassword | undefined;
  readonly guess: Guess;
  readonly attempt: Attempt;
  /** When the request came, by `clock.elapsed()`. */
  readonly arrived: number;
}

/**
 * Checks the password of whoever is logged in, with the limits, the work and the time of a login.
 *
 * @throws AppError AUTH_INVALID_CREDENTIALS, RATE_LIMIT_EXCEEDED, SERVICE_UNAVAILABLE where the hash pool is full
 */
export async function provePassword(
  deps: Deps,
  { id: userId, sessionId }: Authenticated["principal"],
  password: string,
  action: Attempt["action"],
  caller: Caller,
): Promise<Proven> {
  const arrived = deps.clock.elapsed();
  assertPasswordBounded(password);
  const account = await findUserWithPassword(deps.db.orm, { kind: "id", key: userId });
  if (!account) throw new AppError("AUTH_TOKEN_REVOKED", { internal: "The user is gone" });
  const guess = await reserveGuess(deps, { userId, lane: `session:${sessionId}` });
  const attempt = { action, actor: { kind: "user", id: userId }, userId, sessionId, guess } as const;
  const { correct, rehashed } = await checkGuess(deps, guess, password, account.password ?? undefined);
  const refusal = guess.isLocked ? LOCKED : correct ? undefined : wrongPassword(account);
  if (refusal) return refuse(deps, arrived, await recordRefusal(deps, attempt, refusal, caller));
  return { account, rehashed, guess, attempt, arrived };
}

/**
 * Does what a password was proven for. Where that fails, the attempt was no guess all the same: the password was right.
 *
 * @throws whatever `work` throws
 */
export async function withProof<T>(deps: Deps, { guess }: Proven, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await releaseGuess(deps, guess);
    throw error;
  }
}

/** The end of an attempt whose account was changed after its password had been checked. */
export const refuseChanged = async (deps: Deps, { attempt, arrived }: Proven, caller: Caller): Promise<never> =>
  refuse(deps, arrived, await recordRefusal(deps, attempt, CHANGED_MEANWHILE, caller));

/**
 * Proves once more who is there: a new access token with a fresh `auth_time`. The session keeps its refresh token, and
 * what that is traded for from now on has the same `auth_time`. Access tokens from before stay as old as they are.
 *
 * @throws AppError AUTH_INVALID_CREDENTIALS after the same work and time as at login; AUTH_TOKEN_REVOKED where the session
 * ended meanwhile; SERVICE_UNAVAILABLE where the hash pool is full
 */
export async function stepUp(
  deps: Deps,
  { principal }: Authenticated,
  input: { readonly password: string },
  caller: Caller,
): Promise<AccessTokenAnswer> {
  const { sessionId } = principal;
  if (sessionId === null) throw new AppError("AUTH_TOKEN_INVALID", { internal: "There is no session to prove it for" });
  const proven = await provePassword(deps, principal, input.password, "session.stepped_up", caller);
  const renewed = await withProof(deps, proven, () => renew(deps, proven, sessionId, caller));
  if (!renewed) return refuseChanged(deps, proven, caller);
  const answer = await issueAccessToken(deps, renewed);
  deps.metrics.count("primer_tokens_issued_total", { grant: "step_up" });
  return answer;
}

/** @returns the session as it is now; undefined where the password is not the account's any more */
async function renew(deps: Deps, { account, guess, rehashed }: Proven, sessionId: string, caller: Caller) {
  return deps.db.change(async (tx) => {
    if (!(await lockAccount(tx, account))) return undefined;
    const found = await lockSession(tx, sessionId);
    if (!found) throw new AppError("AUTH_TOKEN_REVOKED", { internal: "The session is gone" });
    assertAlive(deps, found);
    const authTime = deps.clock.now();
    await passGuess(tx, guess);
    await updateSession(tx, sessionId, { authTime, lastSeenAt: authTime });
    if (account.password && rehashed) await replaceHash(tx, account.password.id, account.password.secret, rehashed);
    await audit(tx, deps, {
      action: "session.stepped_up",
      outcome: "success",
      actor: { kind: "user", id: account.user.id },
      subject: { kind: "session", id: sessionId },
      caller,
    });
    return { ...found, session: { ...found.session, authTime } };
  });
}

/**
 * For what asks for a fresh proof. The token's own `auth_time` decides and not the session's: a token that was stolen
 * earlier gains nothing when its owner steps up.
 *
 * @throws AppError AUTH_STEP_UP_REQUIRED with `details.max_age` in seconds
 */
export function assertSteppedUp({ settings, clock }: Pick<Deps, "settings" | "clock">, claims: TokenClaims): void {
  const maxAge = settings.sessions.step_up_age;
  const provenAt = typeof claims.auth_time === "number" ? claims.auth_time * 1000 : Number.NEGATIVE_INFINITY;
  if (clock.now().getTime() - provenAt <= maxAge) return;
  throw new AppError("AUTH_STEP_UP_REQUIRED", { details: { max_age: maxAge / 1000 } });
}
