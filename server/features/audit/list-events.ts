import type { Reader } from "../../../db/database.ts";
import { type AuditFilter, type AuditRow, listAudit } from "../../../db/queries/audit.ts";
import type { Deps } from "../../deps.ts";
import { invalidField } from "../../errors.ts";
import { badCursor, type Page, type PageAsked, pageOf } from "../../page.ts";
import { isId } from "../../ports/random.ts";

/** An event as the API and the command line show it. */
export interface AuditView {
  readonly id: string;
  readonly time: string;
  readonly action: string;
  readonly outcome: AuditRow["outcome"];
  readonly actor: { readonly kind: AuditRow["actorKind"]; readonly id: string | null };
  readonly subject: { readonly kind: string; readonly id: string | null } | null;
  readonly ip: string | null;
  readonly user_agent: string | null;
  readonly request_id: string | null;
  readonly details: Readonly<Record<string, unknown>>;
}

export const viewOf = (row: AuditRow): AuditView => ({
  id: row.id,
  time: row.time.toISOString(),
  action: row.action,
  outcome: row.outcome,
  actor: { kind: row.actorKind, id: row.actorId },
  subject: row.subjectKind === null ? null : { kind: row.subjectKind, id: row.subjectId },
  ip: row.ip,
  user_agent: row.userAgent,
  request_id: row.requestId,
  details: row.details,
});

/** Which events are asked for, as people write it. */
export interface EventQuery {
  readonly action?: string;
  readonly outcome?: "success" | "failure";
  /** The id of a user or client; or operator, system or anonymous, who have none. */
  readonly actor?: string;
  readonly subject?: string;
  readonly from?: string;
  readonly to?: string;
}

const WITHOUT_ID = ["operator", "system", "anonymous"] as const;

function momentOf(path: "from" | "to", text: string): Date {
  const moment = new Date(text);
  if (/^\d{4}-\d\d-\d\d/.test(text) && !Number.isNaN(moment.getTime())) return moment;
  throw invalidField(path, "A time such as 2026-03-01 or 2026-03-01T12:00:00Z");
}

/** @throws AppError VALIDATION_FAILED for a time that is none */
export function filterOf({ action, outcome, actor, subject, from, to }: EventQuery): AuditFilter {
  const actorKind = WITHOUT_ID.find((kind) => kind === actor);
  return {
    ...(action === undefined ? {} : { action }),
    ...(outcome === undefined ? {} : { outcome }),
    ...(actorKind ? { actorKind } : actor === undefined ? {} : { actorId: actor }),
    ...(subject === undefined ? {} : { subjectId: subject }),
    ...(from === undefined ? {} : { from: momentOf("from", from) }),
    ...(to === undefined ? {} : { to: momentOf("to", to) }),
  };
}

/** Of the last event shown: when it was, in milliseconds since 1970, and which. */
const cursorOf = ({ time, id }: AuditView) => `${new Date(time).getTime()}.${id}`;

function placeAt(cursor: string): { time: Date; id: string } {
  const [ms, id] = cursor.split(".");
  const time = new Date(/^\d{1,15}$/.test(ms ?? "") ? Number(ms) : Number.NaN);
  if (Number.isNaN(time.getTime()) || !id || !isId(id)) throw badCursor();
  return { time, id };
}

export type EventPage = Page<AuditView>;

/**
 * The audit log, newest first.
 *
 * @param from where it is read
 * @throws AppError VALIDATION_FAILED for a bad cursor or time
 */
export async function listEventPage(
  { db }: Pick<Deps, "db">,
  { limit, cursor, ...query }: EventQuery & Pick<PageAsked, "limit"> & { readonly cursor?: string | undefined },
  from: Reader = db.replica,
): Promise<EventPage> {
  const before = cursor === undefined ? {} : { before: placeAt(cursor) };
  const rows = await listAudit(from, filterOf(query), { limit: limit + 1, ...before });
  return pageOf(rows.map(viewOf), limit, cursorOf);
}
