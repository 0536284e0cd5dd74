import type { LabelsOf } from "../../../config/metrics.ts";
import type { Statement, Tx, WithCommit } from "../../../db/database.ts";
import { advanceRefreshFamily, lockRefreshFamily, revokeSessions } from "../../../db/queries/sessions.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError, type ErrorCode } from "../../errors.ts";
import { audit } from "../audit/service.ts";
import { queueMail } from "../mail/service.ts";
import { takeRoom } from "../protection/service.ts";
import { fitsHash, generationSecret, hashSecret, openRefreshToken, type RefreshPointer } from "../tokens/service.ts";
import { assertFingerprint } from "./authenticate.ts";
import { issueTokens, type TokenAnswer } from "./issue-tokens.ts";

type Family = NonNullable<Awaited<ReturnType<typeof lockRefreshFamily>>>;
type Decision = "rotate" | "repeat" | ErrorCode;

/** How the metrics tell that there are no new tokens. */
const REFUSED: Partial<Record<ErrorCode, LabelsOf<"primer_refreshes_total">["outcome"]>> = {
  AUTH_TOKEN_INVALID: "invalid",
  AUTH_TOKEN_EXPIRED: "expired",
  AUTH_TOKEN_REVOKED: "revoked",
  AUTH_REFRESH_REUSED: "reused",
  RATE_LIMIT_EXCEEDED: "limited",
};

export interface RefreshInput {
  readonly refresh_token: string;
  /** The random value that the browser keeps in a cookie. */
  readonly fingerprint: string | null;
}

/**
 * Trades a refresh token for the next one (RFC 9700, section 4.14.2). The row decides: user, rights and limits are read
 * again each time. A token used a second time within the grace gets the session's current tokens; later it ends the
 * session, and that is committed although the request fails.
 *
 * @throws AppError AUTH_TOKEN_INVALID, AUTH_TOKEN_EXPIRED, AUTH_TOKEN_REVOKED, AUTH_REFRESH_REUSED or
 * RATE_LIMIT_EXCEEDED
 */
export async function refresh(deps: Deps, input: RefreshInput, caller: Caller): Promise<TokenAnswer> {
  try {
    const pointer = await openRefreshToken(deps, input.refresh_token);
    const outcome = await deps.db.transaction((tx, withCommit) => spend(tx, withCommit, deps, pointer, input, caller));
    if ("refused" in outcome) {
      if (outcome.refused === "AUTH_REFRESH_REUSED") await deps.changes.settled();
      if (outcome.ended) logReuse(deps, outcome.ended, caller);
      throw new AppError(outcome.refused);
    }
    deps.metrics.count("primer_refreshes_total", { outcome: "accepted" });
    const answer = await issueTokens(deps, outcome);
    deps.metrics.count("primer_tokens_issued_total", { grant: "refresh" });
    return answer;
  } catch (error) {
    const outcome = error instanceof AppError ? REFUSED[error.errorCode] : undefined;
    if (outcome) deps.metrics.count("primer_refreshes_total", { outcome });
    throw error;
  }
}

/** Why there are no new tokens, and what has ended for it: for the log, once that has committed. */
interface Refusal {
  readonly refused: ErrorCode;
  readonly ended?: Family;
}

/**
 * @returns what to issue tokens for, or why not. Nothing is thrown once something was written, so that it commits.
 * @throws AppError RATE_LIMIT_EXCEEDED
 */
async function spend(
  tx: Tx,
  withCommit: WithCommit,
  deps: Deps,
  pointer: RefreshPointer,
  { fingerprint }: RefreshInput,
  caller: Caller,
): Promise<Family | Refusal> {
  const found = await lockRefreshFamily(tx, pointer.familyId);
  if (!found) return { refused: "AUTH_TOKEN_INVALID" };
  const decision = decide(deps, found, pointer);
  if (decision === "AUTH_REFRESH_REUSED") {
    const ends = await revokeReused(tx, deps, found, caller);
    return { refused: decision, ...(ends ? { ended: found } : {}) };
  }
  if (decision === "rotate" || decision === "repeat") assertFingerprint(found.session.fingerprintHash, fingerprint);
  if (decision === "repeat") return found;
  if (decision !== "rotate") return { refused: decision };

  // What the grace repeats was counted already, and what is refused takes nothing.
  await takeRoom(deps, "refresh", pointer.familyId);
  const { rotated, statements } = rotate(tx, deps, found);
  withCommit(...statements);
  return rotated;
}

/** What becomes of a token that opened, in the order of what wins. "rotate" is the current token of a living session. */
export function decide(deps: Deps, { family, session, user }: Family, pointer: RefreshPointer): Decision {
  const now = deps.clock.now();
  const { tokens } = deps.settings;
  const age = family.generation - pointer.generation;
  const key = deps.keys.refreshById(family.keyId);
  if (age < 0 || !key) return "AUTH_TOKEN_INVALID";
  if (age === 0 && !fitsHash(pointer.secret, family.secretHash)) return "AUTH_TOKEN_INVALID";

  // Another node's clock may be ahead of ours: what was rotated in our future was rotated just now.
  const since = Math.max(0, now.getTime() - family.rotatedAt.getTime());
  const inGrace = age === 1 && since < tokens.refresh_grace;
  if (age > 0 && !inGrace) return "AUTH_REFRESH_REUSED";
  if (session.revokedAt || family.revokedAt || user.status !== "active") return "AUTH_TOKEN_REVOKED";
  if (now >= session.expiresAt || now >= family.idleExpiresAt) return "AUTH_TOKEN_EXPIRED";
  return age === 0 ? "rotate" : "repeat";
}

/** The session is locked since the family was read, and whoever changes a family has that lock. */
function rotate(tx: Tx, deps: Deps, found: Family): { rotated: Family; statements: readonly Statement[] } {
  const now = deps.clock.now();
  const key = deps.keys.refresh();
  const { family, session } = found;
  const generation = family.generation + 1;
  const idleEnd = Math.min(now.getTime() + deps.settings.tokens.refresh_idle, session.expiresAt.getTime());
  const next = {
    keyId: key.id,
    secretHash: hashSecret(generationSecret(key, family.id, generation)),
    rotatedAt: now,
    idleExpiresAt: new Date(idleEnd),
  };
  const rotated = { ...found, family: { ...family, ...next, generation } };
  return { rotated, statements: advanceRefreshFamily(tx, family, next) };
}

/** @returns false where it had ended already, and was told of then */
async function revokeReused(tx: Tx, deps: Deps, { session, user }: Family, caller: Caller): Promise<boolean> {
  const ended = await revokeSessions(tx, { id: session.id }, "refresh_reused", deps.clock.now());
  if (ended.length === 0) return false;
  await audit(tx, deps, {
    action: "refresh.reused",
    outcome: "failure",
    actor: { kind: "anonymous" },
    subject: { kind: "session", id: session.id },
    caller,
    details: { user_id: user.id },
  });
  await queueMail(tx, deps, {
    template: "refresh_reused",
    user_id: user.id,
    session_id: session.id,
    request_id: caller.requestId,
  });
  return true;
}

function logReuse(deps: Deps, { session, user }: Family, caller: Caller): void {
  deps.log.warn("A refresh token was used a second time; its session has ended", {
    event: "refresh.reused",
    session_id: session.id,
    user_id: user.id,
    request_id: caller.requestId,
  });
}
