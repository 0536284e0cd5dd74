import { lockSession, updateSession } from "../../../db/queries/sessions.ts";
import { findUserWithPassword, type LoginAccount, lockAccount, replaceHash } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { audit } from "../audit/service.ts";
import { assertPasswordBounded, type StoredPassword } from "../passwords/service.ts";
import { type Guess, passGuess, reserveGuess } from "../protection/service.ts";
import { type Authenticated, assertAlive, type TokenClaims } from "./authenticate.ts";
import { checkGuess } from "./check-guess.ts";
import { type AccessTokenAnswer, issueAccessToken } from "./issue-tokens.ts";
import { LOCKED, type Refusal, recordRefusal, refuse, wrongPassword } from "./refuse.ts";

const CHANGED_MEANWHILE: Refusal = { code: "AUTH_INVALID_CREDENTIALS", reason: "account_changed" };

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
  const arrived = deps.clock.elapsed();
  assertPasswordBounded(input.password);
  const { id: userId, sessionId } = principal;
  if (sessionId === null) throw new AppError("AUTH_TOKEN_INVALID", { internal: "There is no session to prove it for" });
  const account = await findUserWithPassword(deps.db.orm, { kind: "id", key: userId });
  if (!account) throw new AppError("AUTH_TOKEN_REVOKED", { internal: "The user is gone" });
  const guess = await reserveGuess(deps, { userId, lane: `session:${sessionId}` });
  const { correct, rehashed } = await checkGuess(deps, guess, input.password, account.password ?? undefined);
  const renewed = correct ? await renew(deps, account, sessionId, guess, rehashed, caller) : undefined;
  if (renewed) return issueAccessToken(deps, renewed);
  const attempt = {
    action: "session.stepped_up",
    actor: { kind: "user", id: userId },
    userId,
    sessionId,
    guess,
  } as const;
  const refusal = guess.isLocked ? LOCKED : correct ? CHANGED_MEANWHILE : wrongPassword(account);
  return refuse(deps, arrived, await recordRefusal(deps, attempt, refusal, caller));
}

/** @returns the session as it is now; undefined where the password is not the account's any more */
async function renew(
  deps: Deps,
  account: LoginAccount,
  sessionId: string,
  guess: Guess,
  rehashed: StoredPassword | undefined,
  caller: Caller,
) {
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
