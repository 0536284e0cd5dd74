import { and, desc, eq, gte, isNotNull, isNull, lt, lte, or, type SQL, sql } from "drizzle-orm";
import type { Connection, Reader, Tx } from "../database.ts";
import { auditLog } from "../schema/audit.ts";

/** Comes before every id. */
const NO_ID = "00000000-0000-0000-0000-000000000000";

export type AuditRow = typeof auditLog.$inferSelect;

export const insertAudit = (tx: Tx, row: typeof auditLog.$inferInsert) => tx.insert(auditLog).values(row);

/** What a user did, what was done to them, and what somebody unknown did with something of theirs, newest first. */
export const listAuditOf = (tx: Reader, userId: string) =>
  tx
    .select({
      time: auditLog.time,
      action: auditLog.action,
      outcome: auditLog.outcome,
      // Where somebody else was when they did it is not theirs to know.
      ip: sql<string | null>`CASE WHEN ${auditLog.actorId} = ${userId} THEN ${auditLog.ip} END`,
      user_agent: sql<string | null>`CASE WHEN ${auditLog.actorId} = ${userId} THEN ${auditLog.userAgent} END`,
      details: auditLog.details,
    })
    .from(auditLog)
    .where(
      or(
        and(eq(auditLog.actorKind, "user"), eq(auditLog.actorId, userId)),
        and(eq(auditLog.subjectKind, "user"), eq(auditLog.subjectId, userId)),
        and(eq(auditLog.callerOf, userId), isNotNull(auditLog.callerSalt)), // as the index has it
      ),
    )
    .orderBy(desc(auditLog.time), desc(auditLog.id));

/** Which rows are meant; what is not given does not matter. Kinds of actors without an id are asked for by `actorKind`. */
export interface AuditFilter {
  readonly action?: string;
  readonly outcome?: AuditRow["outcome"];
  readonly actorId?: string;
  readonly actorKind?: AuditRow["actorKind"];
  readonly subjectId?: string;
  /** From this moment on. */
  readonly from?: Date;
  /** Before this moment. */
  readonly to?: Date;
}

/** The newest first; after the row at `before`. */
export function listAudit(
  tx: Reader,
  filter: AuditFilter,
  page: { readonly limit: number; readonly before?: { readonly time: Date; readonly id: string } },
): Promise<AuditRow[]> {
  const { action, outcome, actorId, actorKind, subjectId, from, to } = filter;
  const { before, limit } = page;
  const conditions: (SQL | undefined)[] = [
    action === undefined ? undefined : eq(auditLog.action, action),
    outcome && eq(auditLog.outcome, outcome),
    actorId === undefined ? undefined : eq(auditLog.actorId, actorId),
    actorKind && and(eq(auditLog.actorKind, actorKind), isNull(auditLog.actorId)),
    subjectId === undefined ? undefined : eq(auditLog.subjectId, subjectId),
    from && gte(auditLog.time, from),
    to && lt(auditLog.time, to),
    before && lte(auditLog.time, before.time), // by this, later months are left out
    before && sql`(${auditLog.time}, ${auditLog.id}) < (${before.time.toISOString()}::timestamptz, ${before.id}::uuid)`,
  ];
  return tx
    .select()
    .from(auditLog)
    .where(and(...conditions))
    .orderBy(desc(auditLog.time), desc(auditLog.id))
    .limit(limit);
}

/** Takes address and agent from some events of a user of whom the log says that they were erased. */
export const forgetCaller = (tx: Tx, userId: string, limit: number) =>
  tx.execute(sql`SELECT audit_forget(${userId}, ${limit}::int)`);

/** The same in a transaction of its own. @returns from how many */
export async function forgetMoreOf(connection: Connection, userId: string, limit: number): Promise<number> {
  const [row] = await connection.query<{ forgotten: number }>("SELECT audit_forget($1, $2::int) AS forgotten", [
    userId,
    limit,
  ]);
  return row?.forgotten ?? 0;
}

/** That a user was erased, and whether address or agent of theirs is left all the same. */
export interface Erasure {
  readonly id: string;
  readonly time: Date;
  readonly userId: string;
  readonly isLeft: boolean;
}

/** Erasures from a moment on, the oldest first; after the one given. */
export async function listErasures(
  connection: Connection,
  { since, after, limit }: { readonly since: Date; readonly after?: Erasure; readonly limit: number },
): Promise<Erasure[]> {
  const rows = await connection.query<{ id: string; time: string; user_id: string; is_left: boolean }>(
    `SELECT e.id, (extract(epoch FROM e.time) * 1000)::bigint::text AS time, e.subject_id AS user_id,
       (SELECT true FROM audit_log l WHERE l.caller_of = e.subject_id AND l.caller_salt IS NOT NULL LIMIT 1) IS NOT NULL AS is_left
     FROM audit_log e
     WHERE e.action = 'user.erased' AND e.subject_kind = 'user' AND e.time >= $1::timestamptz
       AND (e.time, e.id) > ($1::timestamptz, $2::uuid)
     ORDER BY e.time, e.id LIMIT $3::int`,
    [(after?.time ?? since).toISOString(), after?.id ?? NO_ID, limit],
  );
  return rows.map(({ id, time, user_id, is_left }) => ({
    id,
    time: new Date(Number(time)),
    userId: user_id,
    isLeft: is_left,
  }));
}
