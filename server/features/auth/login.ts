import { findUserWithPassword, type LoginAccount } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { assertPasswordBounded, checkPassword } from "../passwords/service.ts";
import { hashSecret } from "../tokens/service.ts";
import { parseIdentifier } from "../users/service.ts";
import { completeLogin } from "./complete-login.ts";
import type { TokenAnswer } from "./issue-tokens.ts";
import { type Refusal, refuse, wrongPassword } from "./refuse.ts";

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

/** Why a login whose password was right came to nothing at the last moment. */
const WITHHELD: Record<"account_changed" | "session_limit", Refusal> = {
  account_changed: { code: "AUTH_INVALID_CREDENTIALS", reason: "account_changed" },
  session_limit: { code: "SESSION_LIMIT_REACHED", reason: "session_limit" },
};
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
 * @throws AppError AUTH_INVALID_CREDENTIALS; AUTH_ACCOUNT_DISABLED, AUTH_EMAIL_NOT_VERIFIED or SESSION_LIMIT_REACHED after
 * the right password; SERVICE_UNAVAILABLE where the hash pool is full
 */
export async function login(deps: Deps, input: LoginInput, caller: Caller): Promise<LoggedIn> {
  const arrived = deps.clock.elapsed();
  assertPasswordBounded(input.password);
  const account = await findUserWithPassword(deps.db.orm, parseIdentifier(input.username));
  const { correct, rehashed } = await checkPassword(deps, input.password, account?.password ?? undefined);
  let refusal = refusalOf(account, correct);
  if (account && !refusal) {
    const fingerprint = input.cookies && deps.settings.tokens.fingerprint ? deps.random.token() : null;
    const fingerprintHash = fingerprint === null ? null : hashSecret(fingerprint);
    const proven = { account, amr: ["pwd"], deviceName: input.device_name ?? null, rehashed, fingerprintHash };
    const outcome = await completeLogin(deps, proven, caller);
    if (typeof outcome !== "string") return { tokens: outcome, fingerprint };
    refusal = WITHHELD[outcome];
  }
  const attempt = {
    action: "login",
    actor: { kind: "anonymous" },
    userId: account?.user.id ?? null,
    sessionId: null,
    arrived,
  } as const;
  return refuse(deps, attempt, refusal ?? UNKNOWN_ACCOUNT, caller);
}

function refusalOf(account: LoginAccount | undefined, correct: boolean): Refusal | undefined {
  if (!account) return UNKNOWN_ACCOUNT;
  return correct ? REFUSED[account.user.status] : wrongPassword(account);
}
