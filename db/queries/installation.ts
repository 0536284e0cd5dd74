import type { Tx } from "../database.ts";
import { installation } from "../schema/installation.ts";

export type InstallationRow = typeof installation.$inferSelect;

/** What this installation is; undefined before `primer init` has reached the database. */
export async function findInstallation(tx: Tx): Promise<InstallationRow | undefined> {
  const [row] = await tx.select().from(installation);
  return row;
}

export const insertInstallation = (tx: Tx, row: typeof installation.$inferInsert) =>
  tx.insert(installation).values(row).onConflictDoNothing();

export const markInitialised = (tx: Tx, at: Date) => tx.update(installation).set({ initialisedAt: at });
