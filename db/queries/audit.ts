import { and, desc, eq, or, sql } from "drizzle-orm";
import type { Reader } from "../database.ts";
import { auditLog } from "../schema/audit.ts";

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
    .orderBy(desc(auditLog.id));
