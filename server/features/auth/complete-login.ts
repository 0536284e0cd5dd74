import type { Tx, WithCommit } from "../../../db/database.ts";
import { insertLoginRecord } from "../../../db/queries/logins.ts";
import { insertRefreshFamily, insertSession, revokeSessions } from "../../../db/queries/sessions.ts";
import { type LoginAccount, lockAccount, replaceHash, updateUser } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { audit, auditStatement } from "../audit/service.ts";
import { queueMail } from "../mail/service.ts";
import type { StoredPassword } from "../passwords/service.ts";
import { assessSignIn, type Guess, passGuess, rememberDevice, type SignInRisk } from "../protection/service.ts";
import { makeRoomForSession, sessionsCounted } from "../sessions/service.ts";
import { generationSecret, hashSecret, issueSingleUseToken } from "../tokens/service.ts";
import { issueTokens, type TokenAnswer } from "./issue-tokens.ts";

/** The client of logins that primer makes for itself (RFC 9068, section 2.2). */
const OWN_CLIENT = "primer";
/** How long the link in a mail about a sign-in ends that session (milliseconds). */
const END_SESSION_LINK_MS = 7 * 86_400_000;

export interface ProvenLogin {
  readonly account: LoginAccount;
  /** How the person proved who they are (RFC 8176). */
  readonly amr: readonly string[];
  readonly deviceName: string | null;
  readonly rehashed: StoredPassword | undefined;
  /** The hash of the value that the session's tokens are bound to, if any. */
  readonly fingerprintHash: string | null;
  /** The attempt that turned out right. */
  readonly guess: Guess;
  /** What the device is known by from now on, and whether it was before. */
  readonly device: { readonly token: string | null; readonly isKnown: boolean };
  /** The session that the browser had until now, whosever it was. */
  readonly replaced: Replaced | undefined;
}

export interface Replaced {
  readonly sessionId: string;
  readonly userId: string;
}

/**
 * The only place where a session comes into being: every factor has been proven, whatever they were. The session, its
 * refresh family, the login record and the audit row commit together, with the end of the session that the browser had
 * before, and of those that make room for it.
 *
 * @returns the tokens, or why there are none: then nothing was written
 */
export async function completeLogin(
  deps: Deps,
  login: ProvenLogin,
  caller: Caller,
): Promise<TokenAnswer | "account_changed" | "session_limit"> {
  const { account, replaced } = login;
  const returns = account.user.status === "deactivated";
  const now = deps.clock.now();
  const { tokens } = deps.settings;
  const refreshKey = deps.keys.refresh();
  const session = {
    id: deps.random.id(now),
    userId: account.user.id,
    clientId: OWN_CLIENT,
    amr: [...login.amr],
    authTime: now,
    createdAt: now,
    lastSeenAt: now,
    expiresAt: new Date(now.getTime() + tokens.refresh_absolute),
    deviceName: login.deviceName,
    userAgent: caller.userAgent,
    ip: caller.ip,
    fingerprintHash: login.fingerprintHash,
  };
  const familyId = deps.random.id(now);
  const family = {
    id: familyId,
    sessionId: session.id,
    generation: 1,
    keyId: refreshKey.id,
    secretHash: hashSecret(generationSecret(refreshKey, familyId, 1)),
    createdAt: now,
    rotatedAt: now,
    idleExpiresAt: new Date(now.getTime() + tokens.refresh_idle),
  };
  // Only then is something changed that processes have in their caches.
  const changes = deps.settings.sessions.max_per_user > 0 || returns || replaced;
  const commit = changes ? deps.db.change : deps.db.transaction;
  const issued = issueTokens(deps, { ...account, session, family });
  issued.catch(() => {}); // waited for below
  if (deps.db.kind === "pglite") await issued; // one transaction at a time: nobody else waits for this signature
  const outcome = await commit(async (tx, withCommit) => {
    const userId = account.user.id;
    // In one piece, in this order: the others are read when the account is locked.
    const [isSame, counted, risk] = await Promise.all([
      lockAccount(tx, account),
      sessionsCounted(tx, deps, userId),
      assessSignIn(
        tx,
        deps,
        userId,
        { isKnownDevice: login.device.isKnown, failures: login.guess.failures - 1 },
        caller,
      ),
    ]);
    if (!isSame) return "account_changed";
    const staying = counted.filter((id) => id !== replaced?.sessionId);
    if (!(await makeRoomForSession(tx, deps, userId, caller, staying))) return "session_limit";
    if (replaced) await endReplaced(tx, deps, replaced, userId, caller);
    await tellOwner(tx, withCommit, deps, { userId, sessionId: session.id, risk }, caller);
    await issued; // no session without its tokens
    withCommit(
      passGuess(tx, login.guess),
      ...(login.device.token === null ? [] : rememberDevice(tx, deps, userId, login.device.token, caller)),
      updateUser(tx, userId, { lastLoginAt: now, ...(returns ? { ...ACTIVE, updatedAt: now } : {}) }),
      ...(returns
        ? [auditStatement(tx, deps, { ...ofUser(userId), action: "user.reactivated", outcome: "success", caller })]
        : []),
      insertSession(tx, session),
      insertRefreshFamily(tx, family),
      ...(account.password && login.rehashed
        ? [replaceHash(tx, account.password.id, account.password.secret, login.rehashed)]
        : []),
      insertLoginRecord(tx, {
        id: deps.random.id(now),
        userId,
        sessionId: session.id,
        outcome: "success",
        reason: "password",
        createdAt: now,
        ...caller,
        ...(risk.score > 0 ? { riskScore: risk.score, riskSignals: [...risk.signals] } : {}),
      }),
      auditStatement(tx, deps, {
        action: "login",
        outcome: "success",
        actor: { kind: "user", id: userId },
        subject: { kind: "session", id: session.id },
        caller,
      }),
    );
    return risk;
  });
  if (typeof outcome === "string") return outcome;
  countUnusual(deps, { userId: account.user.id, sessionId: session.id, risk: outcome }, caller);
  deps.metrics.count("primer_sign_ins_total", { outcome: "success", reason: "password" });
  deps.metrics.count("primer_tokens_issued_total", { grant: "login" });
  return issued;
}

const ACTIVE = { status: "active", deactivatedAt: null, reclaimableUntil: null } as const;

const ofUser = (id: string) => ({ actor: { kind: "user", id }, subject: { kind: "user", id } }) as const;

/** A session that was planted in the browser, or that its former user left there, is of no use any more. */
async function endReplaced(tx: Tx, deps: Deps, replaced: Replaced, byUserId: string, caller: Caller): Promise<void> {
  const ended = await revokeSessions(tx, { id: replaced.sessionId }, "replaced", deps.clock.now());
  if (ended.length === 0) return;
  await audit(tx, deps, {
    action: "session.revoked",
    outcome: "success",
    actor: { kind: "user", id: byUserId },
    subject: { kind: "session", id: replaced.sessionId },
    caller,
    details: { reason: "replaced", user_id: replaced.userId, sessions_ended: 1 },
  });
}

interface SignIn {
  readonly userId: string;
  readonly sessionId: string;
  readonly risk: SignInRisk;
}

/** Tells log and metrics of a sign-in that is not usual: after the commit, since until then it may be run a second time. */
function countUnusual(deps: Deps, { userId, sessionId, risk }: SignIn, caller: Caller): void {
  const { signals, score, suspicious } = risk;
  for (const signal of signals) deps.metrics.count("primer_unusual_sign_ins_total", { signal });
  if (signals.length === 0) return;
  deps.log[suspicious ? "warn" : "info"]("A sign-in is unusual", {
    event: suspicious ? "login.suspicious" : "login.unusual",
    user_id: userId,
    session_id: sessionId,
    request_id: caller.requestId,
    score,
    signals,
  });
}

/** Tells the owner of a sign-in by mail where it is suspicious (the audit log too), or where the settings ask for that. */
async function tellOwner(
  tx: Tx,
  withCommit: WithCommit,
  deps: Deps,
  { userId, sessionId, risk }: SignIn,
  caller: Caller,
): Promise<void> {
  const { signals, score, suspicious } = risk;
  const { notify_login } = deps.settings.mail;
  const isTold = notify_login === "every" || (notify_login === "new_device" && signals.includes("new_device"));
  if (!suspicious && !isTold) return;
  const mail = { user_id: userId, session_id: sessionId, request_id: caller.requestId };
  // For the link with which its owner ends a session that somebody else has begun.
  const link = { purpose: "end_session", userId, subject: sessionId, ttlMs: END_SESSION_LINK_MS } as const;
  const sealed = async () => ({ token: await issueSingleUseToken(tx, deps, link, withCommit) });
  if (suspicious) {
    withCommit(
      auditStatement(tx, deps, {
        action: "login.suspicious",
        outcome: "success",
        actor: { kind: "user", id: userId },
        subject: { kind: "session", id: sessionId },
        caller,
        details: { score, signals },
      }),
    );
    await queueMail(tx, deps, { template: "suspicious_sign_in", signals, ...mail }, { sealed, withCommit });
  } else await queueMail(tx, deps, { template: "new_sign_in", ...mail }, { sealed, withCommit });
}
