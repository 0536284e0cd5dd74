import { sql } from "drizzle-orm";
import { check, integer, pgTable, text } from "drizzle-orm/pg-core";
import { instant } from "./columns.ts";

/** The one row that says what this installation is and whether `primer init` has finished. */
export const installation = pgTable(
  "installation",
  {
    only: integer("only").primaryKey().default(1),
    /** The master key under which this installation's keys are sealed. */
    masterKeyId: text("master_key_id").notNull(),
    createdAt: instant("created_at").notNull(),
    initialisedAt: instant("initialised_at"),
    /** Access tokens from before count nowhere any more: their sessions may be gone without a trace. Set by a restore. */
    notBefore: instant("not_before"),
  },
  (t) => [check("installation_is_one_row", sql`${t.only} = 1`)],
);
