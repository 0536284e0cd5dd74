import type { Tx } from "../../../db/database.ts";
import { insertLoginRecord } from "../../../db/queries/logins.ts";
import type { LoginAccount } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError, type ErrorCode } from "../../errors.ts";
import { type AuditEvent, audit, auditStatement } from "../audit/service.ts";
import { queueMail } from "../mail/service.ts";
import { type Guess, isLane } from "../protection/service.ts";

/** Why an attempt to prove who one is came to nothing; told to the log and the owner, never to the caller. */
type FailureReason =
  | "unknown_account"
  | "no_password"
  | "wrong_password"
  | "disabled"
  | "deactivated"
  | "email_not_verified"
  | "account_changed"
  | "session_limit"
  | "password_change_required"
  | "locked";

/** What a guess comes to that was wrong; the others come after the right password. */
const WRONG: ReadonlySet<FailureReason> = new Set(["unknown_account", "no_password", "wrong_password"]);

export interface Refusal {
  readonly code: ErrorCode;
  readonly reason: FailureReason;
  /** For the caller. */
  readonly details?: Readonly<Record<string, unknown>>;
}

/** What a busy machine takes for all that is not the hash (milliseconds): past the floor, time would tell which it was. */
const AROUND_A_HASH_MS = 100;

/** An attempt to prove who one is: to log in, or once more in a session. */
export interface Attempt {
  readonly action: "login" | "session.stepped_up" | "password.changed" | "email.change_requested";
  readonly actor: AuditEvent["actor"];
  readonly userId: string | null;
  readonly sessionId: string | null;
  readonly guess: Guess;
}

/** By what name the log tells that it came to nothing. */
const REFUSED: Readonly<Record<Attempt["action"], string>> = {
  login: "login.refused",
  "session.stepped_up": "step_up.refused",
  "password.changed": "password_change.refused",
  "email.change_requested": "email_change.refused",
};

/** Too many failures: the password does not count any more, and nobody is told. */
export const LOCKED: Refusal = { code: "AUTH_INVALID_CREDENTIALS", reason: "locked" };

/** An account whose password did not fit, or which has none. */
export const wrongPassword = ({ password }: LoginAccount): Refusal => ({
  code: "AUTH_INVALID_CREDENTIALS",
  reason: password ? "wrong_password" : "no_password",
});

/**
 * Records an attempt that failed, with the same statements for every kind of failure. It is committed although the request
 * fails.
 *
 * @returns what to refuse the request with, by {@link refuse}
 */
export async function recordRefusal(deps: Deps, attempt: Attempt, refusal: Refusal, caller: Caller): Promise<AppError> {
  const { code, reason, details } = refusal;
  const { action, actor, userId, sessionId, guess } = attempt;
  const now = deps.clock.now();
  const record = {
    id: deps.random.id(now),
    userId,
    sessionId,
    outcome: "failure",
    reason,
    createdAt: now,
    ...caller,
  } as const;
  const event = { action, outcome: "failure", actor, ...subjectOf(attempt), caller, details: { reason } } as const;
  await deps.db.transaction(async (tx, withCommit) => {
    withCommit(insertLoginRecord(tx, record), auditStatement(tx, deps, event));
    if (guess.isLast && WRONG.has(reason) && !isLane(guess) && userId !== null)
      await tellOfLock(tx, deps, userId, caller);
  });
  if (action === "login") deps.metrics.count("primer_sign_ins_total", { outcome: "failure", reason });
  deps.log.info(action === "login" ? "A login was refused" : "A password was refused", {
    event: REFUSED[action],
    action,
    reason,
    user_id: userId,
    request_id: caller.requestId,
    ip: caller.ip,
  });
  return new AppError(code, { internal: reason, ...(details ? { details } : {}) });
}

/**
 * The end of an attempt that failed: after the same time for every kind of failure.
 *
 * @param arrived when the request came, by `clock.elapsed()`
 * @throws AppError the one given, always
 */
export async function refuse(deps: Deps, arrived: number, refused: AppError): Promise<never> {
  await waitForFloor(deps, arrived);
  throw refused;
}

/**
 * Waits until as long after the request came as every such answer takes, so that the time tells nothing of what was found:
 * no less than the slowest kind of hash in use takes.
 *
 * @param arrived by `clock.elapsed()`
 */
export async function waitForFloor({ settings, hashPool, clock }: Deps, arrived: number): Promise<void> {
  const { failure_floor, hash_timeout } = settings.password;
  const floor = Math.max(failure_floor, Math.min(hashPool.slowestMs() + AROUND_A_HASH_MS, hash_timeout));
  await clock.sleep(floor - (clock.elapsed() - arrived));
}

/** With this failure the password was switched off; its owner hears of it, and of how to switch it on again. */
async function tellOfLock(tx: Tx, deps: Deps, userId: string, caller: Caller): Promise<void> {
  await audit(tx, deps, {
    action: "account.locked",
    outcome: "success",
    actor: { kind: "system" },
    subject: { kind: "user", id: userId },
    caller,
  });
  const request_id = caller.requestId;
  await queueMail(tx, deps, { template: "account_locked", user_id: userId, request_id });
}

function subjectOf({ userId, sessionId }: Attempt): Pick<AuditEvent, "subject"> {
  if (sessionId !== null) return { subject: { kind: "session", id: sessionId } };
  return userId === null ? {} : { subject: { kind: "user", id: userId } };
}
