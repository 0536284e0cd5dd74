import { insertLoginRecord } from "../../../db/queries/logins.ts";
import { findUserWithPassword, type LoginAccount } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError, type ErrorCode } from "../../errors.ts";
import { audit } from "../audit/service.ts";
import { assertPasswordBounded, checkPassword } from "../passwords/service.ts";
import { hashSecret } from "../tokens/service.ts";
import { parseIdentifier } from "../users/service.ts";
import { completeLogin } from "./complete-login.ts";
import type { TokenAnswer } from "./issue-tokens.ts";

export interface LoginInput {
  readonly username: string;
  readonly password: string;
  readonly device_name?: string;
  /** For a browser: the refresh token is kept in a cookie. */
  readonly cookies?: boolean;
}

export interface LoggedIn {
  readonly tokens: TokenAnswer;
  /** The random value that the tokens are bound to; null where they are not. */
  readonly fingerprint: string | null;
}

/** Why an attempt did not lead to a session; told to the log and the owner, never to the caller. */
type FailureReason =
  | "unknown_account"
  | "no_password"
  | "wrong_password"
  | "disabled"
  | "deactivated"
  | "email_not_verified"
  | "account_changed";

interface Refusal {
  readonly code: ErrorCode;
  readonly reason: FailureReason;
}

const CHANGED_MEANWHILE: Refusal = { code: "AUTH_INVALID_CREDENTIALS", reason: "account_changed" };
const UNKNOWN_ACCOUNT: Refusal = { code: "AUTH_INVALID_CREDENTIALS", reason: "unknown_account" };

/** What an account that may not log in is told once the password was right: before, it is like any other failure. */
const REFUSED: Partial<Record<LoginAccount["user"]["status"], Refusal>> = {
  disabled: { code: "AUTH_ACCOUNT_DISABLED", reason: "disabled" },
  deactivated: { code: "AUTH_ACCOUNT_DISABLED", reason: "deactivated" },
  pending: { code: "AUTH_EMAIL_NOT_VERIFIED", reason: "email_not_verified" },
};

/**
 * Logs in with user name or e-mail address and password. Unknown, wrong, disabled and passwordless are one answer after
 * the same work and the same time.
 *
 * @throws AppError AUTH_INVALID_CREDENTIALS; AUTH_ACCOUNT_DISABLED or AUTH_EMAIL_NOT_VERIFIED after the right password;
 * SERVICE_UNAVAILABLE where the hash pool is full
 */
export async function login(deps: Deps, input: LoginInput, caller: Caller): Promise<LoggedIn> {
  const arrived = deps.clock.elapsed();
  assertPasswordBounded(input.password);
  const account = await findUserWithPassword(deps.db.orm, parseIdentifier(input.username));
  const { correct, rehashed } = await checkPassword(deps, input.password, account?.password ?? undefined);
  const refusal = refusalOf(account, correct);
  if (account && !refusal) {
    const fingerprint = input.cookies && deps.settings.tokens.fingerprint ? deps.random.token() : null;
    const fingerprintHash = fingerprint === null ? null : hashSecret(fingerprint);
    const proven = { account, amr: ["pwd"], deviceName: input.device_name ?? null, rehashed, fingerprintHash };
    const tokens = await completeLogin(deps, proven, caller);
    if (tokens) return { tokens, fingerprint };
  }
  const { code, reason } = refusal ?? CHANGED_MEANWHILE;
  await recordFailure(deps, account, reason, caller);
  await deps.clock.sleep(failureFloor(deps) - (deps.clock.elapsed() - arrived));
  throw new AppError(code, { internal: reason });
}

/** When a refusal is answered (milliseconds after it arrived): no sooner than the slowest kind of hash in use takes. */
function failureFloor({ settings, hashPool }: Deps): number {
  return Math.max(settings.password.failure_floor, Math.min(hashPool.slowestMs(), settings.password.hash_timeout));
}

function refusalOf(account: LoginAccount | undefined, correct: boolean): Refusal | undefined {
  if (!account) return UNKNOWN_ACCOUNT;
  if (correct) return REFUSED[account.user.status];
  return { code: "AUTH_INVALID_CREDENTIALS", reason: account.password ? "wrong_password" : "no_password" };
}

/** The same statements for every kind of failure; committed although the request fails. */
async function recordFailure(deps: Deps, account: LoginAccount | undefined, reason: FailureReason, caller: Caller) {
  const now = deps.clock.now();
  const userId = account?.user.id ?? null;
  await deps.db.transaction(async (tx) => {
    await insertLoginRecord(tx, {
      id: deps.random.id(now),
      userId,
      outcome: "failure",
      reason,
      createdAt: now,
      ...caller,
    });
    await audit(tx, deps, {
      action: "login",
      outcome: "failure",
      actor: { kind: "anonymous" },
      ...(userId === null ? {} : { subject: { kind: "user", id: userId } }),
      caller,
      details: { reason },
    });
  });
  deps.log.info("A login was refused", {
    event: "login.refused",
    reason,
    user_id: userId,
    request_id: caller.requestId,
    ip: caller.ip,
  });
}
