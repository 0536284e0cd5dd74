import { index, pgTable, text } from "drizzle-orm/pg-core";
import { id, instant } from "./columns.ts";

/** The processes that serve now: each says again and again that it is there. */
export const processes = pgTable(
  "processes",
  {
    id: id(),
    kind: text("kind", { enum: ["serve", "worker"] }).notNull(),
    startedAt: instant("started_at").notNull(),
    seenAt: instant("seen_at").notNull(),
  },
  (t) => [index("processes_seen_at_idx").on(t.seenAt)],
);
