import { desc, eq, isNotNull, max } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { backups } from "../schema/backups.ts";

export type BackupRow = typeof backups.$inferSelect;

export const insertBackup = (tx: Tx, row: typeof backups.$inferInsert) => tx.insert(backups).values(row);

/** A backup that this database knows, as verified at a time; of one that it does not know, nothing is kept. */
export const updateVerified = (tx: Tx, id: string, verifiedAt: Date) =>
  tx.update(backups).set({ verifiedAt }).where(eq(backups.id, id)).returning({ id: backups.id });

/** The backup that was taken last; with `verified` of those that were verified. */
export async function findLastBackup(tx: Tx, verified: boolean): Promise<BackupRow | undefined> {
  const [row] = await tx
    .select()
    .from(backups)
    .where(verified ? isNotNull(backups.verifiedAt) : undefined)
    .orderBy(desc(backups.takenAt))
    .limit(1);
  return row;
}

/** When this installation was last restored. */
export async function findLastRestore(tx: Tx): Promise<{ id: string; restoredAt: Date } | undefined> {
  const [row] = await tx.select({ restoredAt: max(backups.restoredAt) }).from(backups);
  if (!row?.restoredAt) return undefined;
  const [found] = await tx.select({ id: backups.id }).from(backups).where(eq(backups.restoredAt, row.restoredAt));
  return found && { id: found.id, restoredAt: row.restoredAt };
}
