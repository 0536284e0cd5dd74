import { sql } from "drizzle-orm";
import { check, integer, jsonb, pgTable, text } from "drizzle-orm/pg-core";
import { instant } from "./columns.ts";

export const SCHEDULE_STATES = ["waiting", "running", "retry", "done", "failed"] as const;

/** The last run of each schedule. Of all processes the one that moves `occurrence` on is the one that runs it. */
export const scheduleRuns = pgTable(
  "schedule_runs",
  {
    name: text("name").primaryKey(),
    /** The time that it was due at; of a schedule that never ran, the one from which on it counts. */
    occurrence: instant("occurrence").notNull(),
    /** How many times this occurrence was begun. */
    attempt: integer("attempt").notNull().default(0),
    state: text("state", { enum: SCHEDULE_STATES }).notNull(),
    startedAt: instant("started_at"),
    endedAt: instant("ended_at"),
    /** From when on the same occurrence may be begun again: a failed one, or one whose process says nothing any more. */
    claimableAt: instant("claimable_at"),
    /** Why the last run failed, as a code. */
    error: text("error"),
    /** What the last good run came to. */
    details: jsonb("details").$type<Readonly<Record<string, unknown>>>(),
  },
  (t) => [check("schedule_runs_state_known", sql`${t.state} IN ('waiting', 'running', 'retry', 'done', 'failed')`)],
);
