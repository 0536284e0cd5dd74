import { index, pgTable, text } from "drizzle-orm/pg-core";
import { instant } from "./columns.ts";

/**
 * User names that somebody has asked for, by a keyed hash of the address they gave. One is held whether or not that
 * address has an account: a name that is free would tell.
 */
export const heldNames = pgTable(
  "held_names",
  {
    username: text("username").primaryKey(),
    holder: text("holder").notNull(),
    heldUntil: instant("held_until").notNull(),
  },
  (t) => [index("held_names_held_until_idx").on(t.heldUntil)],
);
