import { integer, pgTable, text } from "drizzle-orm/pg-core";
import { instant } from "./columns.ts";

/** The lists of bad networks as they were last found good, with how the last try to read each went. */
export const threatLists = pgTable("threat_lists", {
  /** A hash of the source as it is set: its URL may have a key in it. */
  source: text("source").primaryKey(),
  /** When the networks were read, and what from; null as long as none were. */
  takenAt: instant("taken_at"),
  sha256: text("sha256"),
  count: integer("count"),
  /** The networks, packed; see server/features/threats/network-set.ts. */
  networks: text("networks"),
  attemptedAt: instant("attempted_at").notNull(),
  /** Tries in a row that came to nothing, and why the last one did. */
  failures: integer("failures").notNull().default(0),
  problem: text("problem"),
  /** Not tried again before. */
  dueAt: instant("due_at").notNull(),
});
