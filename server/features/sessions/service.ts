import type { Reader } from "../../../db/database.ts";
import {
  listLiveSessions,
  listUnrevokedSessionIds,
  revokeSessions,
  type SessionRow,
  type SessionsMeant,
} from "../../../db/queries/sessions.ts";
import { findUser } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { DEFAULT_LIMIT, type Page, type PageAsked, pageOf, rowsAsked } from "../../page.ts";
import { isId } from "../../ports/random.ts";
import { type AuditEvent, audit } from "../audit/service.ts";
import type { Principal } from "../rights/service.ts";
import { deviceOf } from "./device.ts";

export { deviceOf } from "./device.ts";
export { makeRoomForSession, sessionsCounted } from "./session-limit.ts";
export { createSessionStates, type SessionStates } from "./session-states.ts";

/** What services need of the process to work with sessions; no server has to run. */
type SessionDeps = Pick<Deps, "db" | "clock" | "random">;

/** Who ends sessions: in the audit log's words, and from where. */
interface Actor {
  readonly actor: AuditEvent["actor"];
  readonly caller?: Caller;
}

/** A session as the API and the command line show it: nothing in it is of use to log in with. */
export interface SessionView {
  readonly id: string;
  readonly device_name: string | null;
  readonly device: string;
  readonly ip: string | null;
  readonly created_at: string;
  readonly last_seen_at: string;
  readonly expires_at: string;
  readonly current: boolean;
}

const viewOf = (session: SessionRow, currentId: string | null): SessionView => ({
  id: session.id,
  device_name: session.deviceName,
  device: deviceOf(session.userAgent),
  ip: session.ip,
  created_at: session.createdAt.toISOString(),
  last_seen_at: session.lastSeenAt.toISOString(),
  expires_at: session.expiresAt.toISOString(),
  current: session.id === currentId,
});

/**
 * The live sessions of a user, newest first. A cursor is the id of the last one shown; whether that one still lives does
 * not matter.
 *
 * @param currentId the session of whoever asks
 * @param from where they are read: whoever looks at their own wants to see what they have just done
 * @throws AppError NOT_FOUND where there is no such user, VALIDATION_FAILED for a bad cursor
 */
export async function listSessionPage(
  deps: SessionDeps,
  userId: string,
  { limit = DEFAULT_LIMIT, ...page }: Partial<PageAsked>,
  currentId: string | null = null,
  from: Reader = deps.db.orm,
): Promise<Page<SessionView>> {
  const asked = rowsAsked({ limit, ...page });
  await assertUserExists(deps, userId);
  const rows = await listLiveSessions(from, userId, deps.clock.now(), asked);
  const views = rows.map((session) => viewOf(session, currentId));
  return pageOf(views, limit, ({ id }) => id);
}

async function assertUserExists({ db }: SessionDeps, id: string): Promise<void> {
  if (!isId(id) || !(await findUser(db.orm, { id }))) throw new AppError("NOT_FOUND");
}

/** Ends one session of one's own. @throws AppError NOT_FOUND where it is nobody's, somebody else's or has ended */
export async function endOwnSession(deps: SessionDeps, { id: userId }: Principal, id: string, caller: Caller) {
  const by = { actor: { kind: "user", id: userId }, caller } as const;
  const ended = isId(id) ? await endSessions(deps, { id, userId }, "ended_by_user", by) : 0;
  if (ended === 0) throw new AppError("NOT_FOUND");
}

/** Ends every session of one's own but the one that asks. */
export async function endOtherSessions(deps: SessionDeps, principal: Principal, caller: Caller): Promise<void> {
  const by = { actor: { kind: "user", id: principal.id }, caller } as const;
  const current = principal.sessionId === null ? {} : { except: principal.sessionId };
  await endSessions(deps, { userId: principal.id, ...current }, "ended_by_user", by);
}

/** Ends every session of a user. @returns how many  @throws AppError NOT_FOUND where there is no such user */
export async function endSessionsOf(deps: SessionDeps, userId: string, by: Actor): Promise<number> {
  await assertUserExists(deps, userId);
  return endSessions(deps, { userId }, "ended_by_administrator", by);
}

/** Ends a session, whosever it is. @throws AppError NOT_FOUND where there is none or it has ended */
export async function endSession(deps: SessionDeps, id: string, by: Actor): Promise<void> {
  const ended = isId(id) ? await endSessions(deps, { id }, "ended_by_administrator", by) : 0;
  if (ended === 0) throw new AppError("NOT_FOUND");
}

/** As many as are ended in one transaction: whoever refreshes one of them meanwhile does not wait long. */
const BATCH = 1000;

/** Ends every session of everybody that there is when it begins. Cut off, it has ended some. @returns how many */
export async function endEverySession(deps: SessionDeps, by: Actor): Promise<number> {
  let total = 0;
  let after: string | undefined;
  for (;;) {
    const ids = await listUnrevokedSessionIds(deps.db.orm, { limit: BATCH, ...(after === undefined ? {} : { after }) });
    if (ids.length > 0) total += await endSessions(deps, { ids }, "ended_by_administrator", by);
    if (ids.length < BATCH) return total;
    after = ids.at(-1);
  }
}

/** Where none of them is left to be ended, nothing is recorded either. */
async function endSessions(deps: SessionDeps, which: SessionsMeant, reason: string, by: Actor): Promise<number> {
  return deps.db.change(async (tx) => {
    const ended = await revokeSessions(tx, which, reason, deps.clock.now());
    if (ended.length === 0) return 0;
    await audit(tx, deps, {
      action: "session.revoked",
      outcome: "success",
      ...subjectOf(which),
      details: { reason, sessions_ended: ended.length },
      ...by,
    });
    return ended.length;
  });
}

function subjectOf(which: SessionsMeant): Pick<AuditEvent, "subject"> {
  if ("id" in which) return { subject: { kind: "session", id: which.id } };
  return "userId" in which ? { subject: { kind: "user", id: which.userId } } : {};
}
