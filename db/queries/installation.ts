import type { Tx } from "../database.ts";
import { installation } from "../schema/installation.ts";

export interface InstallationRow {
  readonly masterKeyId: string;
  readonly initialisedAt: Date | null;
}

/**
 * What this installation is; undefined before `primer init` has reached the database. Asked before migrations too, so it
 * reads only columns that were there from the first one on.
 */
export async function findInstallation(tx: Tx): Promise<InstallationRow | undefined> {
  const { masterKeyId, initialisedAt } = installation;
  const [row] = await tx.select({ masterKeyId, initialisedAt }).from(installation);
  return row;
}

export const insertInstallation = (tx: Tx, row: typeof installation.$inferInsert) =>
  tx.insert(installation).values(row).onConflictDoNothing();

export const markInitialised = (tx: Tx, at: Date) => tx.update(installation).set({ initialisedAt: at });

/** From when on access tokens count; undefined where nothing was ever restored. */
export async function findNotBefore(tx: Tx): Promise<Date | undefined> {
  const [row] = await tx.select({ notBefore: installation.notBefore }).from(installation);
  return row?.notBefore ?? undefined;
}
