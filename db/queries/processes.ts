import { eq, gt, lte, sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { processes } from "../schema/processes.ts";

/** Says that a process is there. */
export const upsertProcess = (tx: Tx, row: typeof processes.$inferInsert) =>
  tx
    .insert(processes)
    .values(row)
    .onConflictDoUpdate({ target: processes.id, set: { seenAt: row.seenAt } });

/** How many processes of a kind were seen after a moment. */
export async function countProcesses(tx: Tx, kind: "serve" | "worker", after: Date): Promise<number> {
  const [row] = await tx
    .select({ count: sql<number>`(count(*) FILTER (WHERE kind = ${kind}))::int` })
    .from(processes)
    .where(gt(processes.seenAt, after));
  return row?.count ?? 0;
}

export const deleteProcess = (tx: Tx, id: string) => tx.delete(processes).where(eq(processes.id, id));

/** Forgets those that were last seen before a moment. */
export const deleteProcessesSeenBefore = (tx: Tx, moment: Date) =>
  tx.delete(processes).where(lte(processes.seenAt, moment));
