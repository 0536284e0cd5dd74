import { sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { heldNames } from "../schema/held-names.ts";

/** Holds a name for somebody, if nobody else does. Of several at once exactly one gets it. @returns whether they have it */
export async function holdName(
  tx: Tx,
  { username, holder, heldUntil }: typeof heldNames.$inferInsert,
  now: Date,
): Promise<boolean> {
  const held = await tx
    .insert(heldNames)
    .values({ username, holder, heldUntil })
    .onConflictDoUpdate({
      target: heldNames.username,
      set: { holder, heldUntil },
      setWhere: sql`${heldNames.holder} = ${holder} OR ${heldNames.heldUntil} <= ${now.toISOString()}::timestamptz`,
    })
    .returning({ username: heldNames.username });
  return held.length === 1;
}
