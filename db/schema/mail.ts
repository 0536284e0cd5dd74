import { sql } from "drizzle-orm";
import { index, pgTable, primaryKey, text, timestamp } from "drizzle-orm/pg-core";
import { instant } from "./columns.ts";

/** When mails of one kind were queued for one recipient within the last day: there are limits to that. */
export const mailCounters = pgTable(
  "mail_counters",
  {
    /** A user, or the keyed hash of an address. */
    recipient: text("recipient").notNull(),
    template: text("template").notNull(),
    times: timestamp("times", { withTimezone: true, precision: 3, mode: "date" }).array().notNull().default(sql`'{}'`),
    lastAt: instant("last_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.recipient, t.template] }), index("mail_counters_last_at_idx").on(t.lastAt)],
);
