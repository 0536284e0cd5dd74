import { sql } from "drizzle-orm";
import { check, index, integer, pgTable, text, uniqueIndex, uuid } from "drizzle-orm/pg-core";
import { id, instant } from "./columns.ts";
import { users } from "./users.ts";

export const LOGIN_OUTCOMES = ["success", "failure"] as const;

/** Every attempt to log in, with where from and how it ended. `user_id` is null where no account was meant. */
export const loginRecords = pgTable(
  "login_records",
  {
    id: id(),
    userId: uuid("user_id").references(() => users.id, { onDelete: "cascade" }),
    sessionId: uuid("session_id"),
    outcome: text("outcome", { enum: LOGIN_OUTCOMES }).notNull(),
    reason: text("reason").notNull(),
    ip: text("ip"),
    userAgent: text("user_agent"),
    requestId: text("request_id"),
    createdAt: instant("created_at").notNull(),
    /** How unusual a good one was, and in what; null where it was not. */
    riskScore: integer("risk_score"),
    riskSignals: text("risk_signals").array(),
  },
  (t) => [
    index("login_records_user_id_idx").on(t.userId, t.createdAt.desc()),
    index("login_records_created_at_idx").on(t.createdAt),
    check("login_records_outcome_known", sql`${t.outcome} IN ('success', 'failure')`),
  ],
);

/**
 * Attempts in a row that were not right, by what is being guessed at: an account, an account from one of its devices, or
 * the hash of a name that has no account. One is counted before the password is looked at.
 */
export const failureCounters = pgTable(
  "failure_counters",
  {
    subject: text("subject").primaryKey(),
    failures: integer("failures").notNull().default(0),
    firstFailureAt: instant("first_failure_at").notNull(),
    lastFailureAt: instant("last_failure_at").notNull(),
    blockedUntil: instant("blocked_until"),
  },
  (t) => [index("failure_counters_last_failure_at_idx").on(t.lastFailureAt)],
);

/** Devices that somebody has logged in on. The device keeps a random value, the row its hash. */
export const knownDevices = pgTable(
  "known_devices",
  {
    id: id(),
    userId: uuid("user_id")
      .notNull()
      .references(() => users.id, { onDelete: "cascade" }),
    tokenHash: text("token_hash").notNull(),
    createdAt: instant("created_at").notNull(),
    lastSeenAt: instant("last_seen_at").notNull(),
    userAgent: text("user_agent"),
    ip: text("ip"),
  },
  (t) => [uniqueIndex("known_devices_user_id_token_hash_key").on(t.userId, t.tokenHash)],
);
