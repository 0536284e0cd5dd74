import { sql } from "drizzle-orm";
import {
  bigint,
  check,
  customType,
  date,
  index,
  jsonb,
  pgSequence,
  pgTable,
  primaryKey,
  text,
  uuid,
} from "drizzle-orm/pg-core";
import { instant } from "./columns.ts";

const bytes = customType<{ data: Uint8Array }>({ dataType: () => "bytea" });

/** Numbers audit rows as they are written, which is not the order in which they commit. */
export const auditNumbers = pgSequence("audit_log_number_seq");

/**
 * Who did what to whom, from where, and how it ended. Written in the transaction of the action, and never changed: the
 * database itself refuses that. Partitioned by month; what no partition was made for is in `audit_log_rest`.
 */
export const auditLog = pgTable(
  "audit_log",
  {
    id: uuid("id").notNull(),
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
    /** Nothing personal but ids: it stays when somebody is erased. */
    details: jsonb("details").$type<Record<string, unknown>>().notNull().default({}),
    number: bigint("number", { mode: "number" }).notNull().default(sql`nextval('audit_log_number_seq'::regclass)`),
    /** The user whose address and agent these are; with their erasure they go. */
    callerOf: text("caller_of"),
    /** Goes with address and agent, so that nobody finds them from their digest in the chain by trying. */
    callerSalt: uuid("caller_salt").default(sql`gen_random_uuid()`),
  },
  (t) => [
    primaryKey({ columns: [t.time, t.id] }),
    index("audit_log_number_idx").on(t.number),
    index("audit_log_actor_idx").on(t.actorId, t.time, t.id),
    index("audit_log_actor_kind_idx").on(t.actorKind, t.time, t.id).where(sql`${t.actorId} IS NULL`),
    index("audit_log_subject_idx").on(t.subjectId, t.time, t.id),
    index("audit_log_action_idx").on(t.action, t.time, t.id),
    index("audit_log_caller_of_idx").on(t.callerOf).where(sql`${t.callerSalt} IS NOT NULL`),
    check("audit_log_outcome_known", sql`${t.outcome} IN ('success', 'failure')`),
  ],
);

/** The chain over the audit log: a link for each of its rows, in the month of the row. */
export const auditSeals = pgTable(
  "audit_seals",
  {
    time: instant("time").notNull(),
    eventId: uuid("event_id").notNull(),
    /** The place in the chain, from 1. */
    seq: bigint("seq", { mode: "number" }).notNull(),
    /** When it was made, every row up to this number was sealed, or undone for good. */
    sealedThrough: bigint("sealed_through", { mode: "number" }).notNull(),
    /** Of address and agent, salted; null where they were gone already. */
    callerDigest: bytes("caller_digest"),
    hash: bytes("hash").notNull(),
  },
  (t) => [primaryKey({ columns: [t.time, t.eventId] }), index("audit_seals_seq_idx").on(t.seq)],
);

/** Stretches of the chain whose rows were dropped with their month; mostly one a month. */
export const auditAnchors = pgTable("audit_anchors", {
  firstSeq: bigint("first_seq", { mode: "number" }).primaryKey(),
  lastSeq: bigint("last_seq", { mode: "number" }).notNull(),
  /** The first day of the month. */
  month: date("month").notNull(),
  rows: bigint("rows", { mode: "number" }).notNull(),
  lastHash: bytes("last_hash").notNull(),
  sealedThrough: bigint("sealed_through", { mode: "number" }).notNull(),
  droppedAt: instant("dropped_at").notNull(),
});
