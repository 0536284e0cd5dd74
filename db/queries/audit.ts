import { and, desc, eq, gte, lt, or, type SQL, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import { auditLog } from "../schema/audit.ts";

export type AuditRow = typeof auditLog.$inferSelect;

export const insertAudit = (tx: Tx, row: typeof auditLog.$inferInsert) => tx.insert(auditLog).values(row);

/** What a user did and what was done to them, newest first. */
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
    actorKind && eq(auditLog.actorKind, actorKind),
    subjectId === undefined ? undefined : eq(auditLog.subjectId, subjectId),
    from && gte(auditLog.time, from),
    to && lt(auditLog.time, to),
    before && sql`(${auditLog.time}, ${auditLog.id}) < (${before.time.toISOString()}::timestamptz, ${before.id}::uuid)`,
  ];
  return tx
    .select()
    .from(auditLog)
    .where(and(...conditions))
    .orderBy(desc(auditLog.time), desc(auditLog.id))
    .limit(limit);
}

/** Takes address and agent from every event of a user who has been erased in this transaction. */
export const forgetCaller = (tx: Tx, userId: string) => tx.execute(sql`SELECT audit_forget(${userId})`);
