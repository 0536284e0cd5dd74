import { sql } from "drizzle-orm";
import { check, index, jsonb, pgTable, text } from "drizzle-orm/pg-core";
import { id, instant } from "./columns.ts";

/** Who did what to whom, from where, and how it ended. Written in the transaction of the action. */
export const auditLog = pgTable(
  "audit_log",
  {
    id: id(),
    time: instant("time").notNull(),
    action: text("action").notNull(),
    outcome: text("outcome", { enum: ["success", "failure"] }).notNull(),
    actorKind: text("actor_kind", { enum: ["user", "client", "operator", "system", "anonymous"] }).notNull(),
    actorId: text("actor_id"),
    subjectKind: text("subject_kind"),
    subjectId: text("subject_id"),
    ip: text("ip"),
    userAgent: text("user_agent"),
    requestId: text("request_id"),
    details: jsonb("details").$type<Record<string, unknown>>().notNull().default({}),
  },
  (t) => [
    index("audit_log_time_idx").on(t.time.desc(), t.id.desc()),
    index("audit_log_actor_idx").on(t.actorId, t.time.desc()),
    index("audit_log_subject_idx").on(t.subjectId, t.time.desc()),
    index("audit_log_action_idx").on(t.action, t.time.desc()),
    check("audit_log_outcome_known", sql`${t.outcome} IN ('success', 'failure')`),
  ],
);
