import { type LoginAccount, lockAccount } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { assertPasswordBounded } from "../passwords/service.ts";
import { releaseGuess, reserveLoginGuess } from "../protection/service.ts";
import { assertNotListed } from "../threats/service.ts";
import { hashSecret, issueSingleUseToken } from "../tokens/service.ts";
import { parseIdentifier } from "../users/service.ts";
import { checkGuess } from "./check-guess.ts";
import { completeLogin, type Replaced } from "./complete-login.ts";
import type { TokenAnswer } from "./issue-tokens.ts";
import { sessionOfRefreshToken } from "./logout.ts";
import { LOCKED, type Refusal, recordRefusal, refuse, wrongPassword } from "./refuse.ts";

export interface LoginInput {
  readonly username: string;
  readonly password: string;
  readonly device_name?: string;
  /** For a browser: the refresh token is kept in a cookie, and so is what the device is known by. */
  readonly cookies?: boolean;
  /** What this device was given at an earlier login to be known by. */
  readonly device_token?: string;
  /** Give the device such a token. */
  readonly remember_device?: boolean;
  /** The refresh token that the browser has kept until now; its session ends with this login (OWASP ASVS 7.2.4). */
  readonly replaces?: string;
}

export interface LoggedIn {
  readonly tokens: TokenAnswer;
  /** The random value that the tokens are bound to; null where they are not. */
  readonly fingerprint: string | null;
  /** What the device is known by from now on; null where it did not ask for it. */
  readonly deviceToken: string | null;
}

/** Why a login whose password was right came to nothing at the last moment. */
const WITHHELD: Record<"account_changed" | "session_limit", Refusal> = {
  account_changed: { code: "AUTH_INVALID_CREDENTIALS", reason: "account_changed" },
  session_limit: { code: "SESSION_LIMIT_REACHED", reason: "session_limit" },
};
const UNKNOWN_ACCOUNT: Refusal = { code: "AUTH_INVALID_CREDENTIALS", reason: "unknown_account" };

/** How long somebody who has to set a new password may take for it (milliseconds). */
const CHANGE_TOKEN_MS = 10 * 60_000;

/** What an account that may not log in is told once the password was right: before, it is like any other failure. */
const REFUSED: Partial<Record<LoginAccount["user"]["status"], Refusal>> = {
  disabled: { code: "AUTH_ACCOUNT_DISABLED", reason: "disabled" },
  deactivated: { code: "AUTH_ACCOUNT_DISABLED", reason: "deactivated" },
  pending: { code: "AUTH_EMAIL_NOT_VERIFIED", reason: "email_not_verified" },
};

/**
 * Logs in with user name or e-mail address and password. Unknown, wrong, disabled and passwordless are one answer after
 * the same work and the same time, and slow down alike.
 *
 * @throws AppError FORBIDDEN from a bad network; AUTH_INVALID_CREDENTIALS; RATE_LIMIT_EXCEEDED after too many failures; AUTH_ACCOUNT_DISABLED,
 * AUTH_EMAIL_NOT_VERIFIED, AUTH_PASSWORD_CHANGE_REQUIRED (with `details.change_token`) or SESSION_LIMIT_REACHED after the
 * right password; SERVICE_UNAVAILABLE where the hash pool is full: then the attempt counts as none
 */
export async function login(deps: Deps, input: LoginInput, caller: Caller): Promise<LoggedIn> {
  const arrived = deps.clock.elapsed();
  assertPasswordBounded(input.password);
  await assertNotListed(deps, "login", caller);
  const outcome = await deps.hashPool.admit(() => tryLogin(deps, input, caller));
  if (outcome instanceof AppError) return refuse(deps, arrived, outcome);
  return outcome;
}

/** @returns what to refuse the request with, where it comes to nothing and that is recorded */
async function tryLogin(deps: Deps, input: LoginInput, caller: Caller): Promise<LoggedIn | AppError> {
  const identifier = parseIdentifier(input.username);
  const claim = { identifier, deviceToken: input.device_token };
  const { account, isKnownDevice, guess } = await reserveLoginGuess(deps, claim);
  const attempt = {
    action: "login",
    actor: { kind: "anonymous" },
    userId: account?.user.id ?? null,
    sessionId: null,
    guess,
  } as const;
  const { correct, rehashed } = await checkGuess(deps, guess, input.password, account?.password ?? undefined);
  const afterRight = async (error: unknown): Promise<never> => {
    if (correct) await releaseGuess(deps, guess); // it was no guess, whatever came after it
    throw error;
  };
  const refusal = guess.isLocked ? LOCKED : await refusalOf(deps, account, correct).catch(afterRight);
  if (!account || refusal) {
    if (correct) await releaseGuess(deps, guess);
    return recordRefusal(deps, attempt, refusal ?? UNKNOWN_ACCOUNT, caller);
  }
  const fingerprint = input.cookies && deps.settings.tokens.fingerprint ? deps.random.token() : null;
  const remembers = input.cookies || input.remember_device;
  const deviceToken = isKnownDevice ? (input.device_token ?? null) : remembers ? deps.random.token() : null;
  const proven = {
    account,
    amr: ["pwd"],
    deviceName: input.device_name ?? null,
    rehashed,
    fingerprintHash: fingerprint === null ? null : hashSecret(fingerprint),
    guess,
    device: { token: deviceToken, isKnown: isKnownDevice },
  };
  const outcome = await findReplaced(deps, input)
    .then((replaced) => completeLogin(deps, { ...proven, replaced }, caller))
    .catch(afterRight);
  if (typeof outcome !== "string") return { tokens: outcome, fingerprint, deviceToken };
  if (outcome === "session_limit") await releaseGuess(deps, guess);
  return recordRefusal(deps, attempt, WITHHELD[outcome], caller);
}

/** The session of the cookie that a login replaces; of one that is not ours there is none. */
async function findReplaced(deps: Deps, { replaces }: LoginInput): Promise<Replaced | undefined> {
  if (replaces === undefined) return undefined;
  try {
    const { session } = await sessionOfRefreshToken(deps, replaces);
    return { sessionId: session.id, userId: session.userId };
  } catch (error) {
    if (error instanceof AppError && error.errorCode === "AUTH_TOKEN_INVALID") return undefined;
    throw error;
  }
}

async function refusalOf(
  deps: Deps,
  account: LoginAccount | undefined,
  correct: boolean,
): Promise<Refusal | undefined> {
  if (!account) return UNKNOWN_ACCOUNT;
  if (!correct) return wrongPassword(account);
  const { user } = account;
  if (isComingBack(deps, user)) return undefined;
  return REFUSED[user.status] ?? (user.passwordChangeRequired ? mustChangePassword(deps, account) : undefined);
}

/** Whether somebody takes an account back that they have given up, while it is still there. */
const isComingBack = (
  { clock }: Deps,
  { status, reclaimableUntil, passwordChangeRequired }: LoginAccount["user"],
): boolean =>
  status === "deactivated" && !passwordChangeRequired && reclaimableUntil !== null && clock.now() < reclaimableUntil;

async function mustChangePassword(deps: Deps, account: LoginAccount): Promise<Refusal> {
  const { id: userId } = account.user;
  // Somebody whose password was replaced while this one was looked at gets no way to replace it again.
  const change_token = await deps.db.transaction(async (tx) =>
    (await lockAccount(tx, account))
      ? issueSingleUseToken(tx, deps, { purpose: "change_password", userId, subject: userId, ttlMs: CHANGE_TOKEN_MS })
      : undefined,
  );
  if (change_token === undefined) return WITHHELD.account_changed;
  return {
    code: "AUTH_PASSWORD_CHANGE_REQUIRED",
    reason: "password_change_required",
    details: { change_token, expires_in: CHANGE_TOKEN_MS / 1000 },
  };
}
