import { bigint, index, pgTable, text } from "drizzle-orm/pg-core";
import { id, instant } from "./columns.ts";

/** Backups that were taken of this installation, and what has been done with them since. The id stands in the file. */
export const backups = pgTable(
  "backups",
  {
    id: id(),
    file: text("file").notNull(),
    takenAt: instant("taken_at").notNull(),
    bytes: bigint("bytes", { mode: "number" }).notNull(),
    rows: bigint("rows", { mode: "number" }).notNull(),
    /** When it was last restored to a scratch place and logged in to there. */
    verifiedAt: instant("verified_at"),
    /** When this installation was last restored from it. */
    restoredAt: instant("restored_at"),
  },
  (t) => [index("backups_taken_at_idx").on(t.takenAt)],
);
