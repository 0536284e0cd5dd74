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

/** A date, or a time that says in which zone it is: without one it would be read in that of this server. */
const MOMENT =
  /^(\d{4})-(\d\d)-(\d\d)(T([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))?$/;
/** The years that can be written with four digits (milliseconds since 1970). */
const [FIRST_MS, LAST_MS] = [Date.parse("0001-01-01T00:00:00.000Z"), Date.parse("9999-12-31T23:59:59.999Z")];
const isWithin = (ms: number) => ms >= FIRST_MS && ms <= LAST_MS;

function momentOf(path: "from" | "to", text: string): Date {
  const [, year, month, day] = MOMENT.exec(text) ?? [];
  const date = `${year}-${month}-${day}`;
  const midnight = Date.parse(`${date}T00:00:00Z`);
  // There is no 31 February, which others read as 3 March.
  const isDay = !Number.isNaN(midnight) && new Date(midnight).toISOString().startsWith(date);
  const moment = isDay ? Date.parse(text) : Number.NaN;
  if (isWithin(moment)) return new Date(moment);
  throw invalidField(path, "Expected a date such as 2026-03-01, or a time with its zone such as 2026-03-01T12:00:00Z");
}

/** No row has a zero byte in it, and the database takes none. */
function assertStorable(query: EventQuery): void {
  const path = (["action", "actor", "subject"] as const).find((name) => query[name]?.includes("\u0000"));
  if (path) throw invalidField(path, "Text without a zero byte");
}

/** @throws AppError VALIDATION_FAILED for a time that is none, or a zero byte */
export function filterOf(query: EventQuery): AuditFilter {
  assertStorable(query);
  const { action, outcome, actor, subject, from, to } = query;
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
  const [, ms, id] = /^(\d{1,15})\.(.*)$/.exec(cursor) ?? [];
  if (!isWithin(Number(ms)) || !isId(id)) throw badCursor();
  return { time: new Date(Number(ms)), id };
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
