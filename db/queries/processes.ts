import { eq, lte, sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { processes } from "../schema/processes.ts";

/**
 * When processes were seen is told and compared by the database's clock alone: theirs differ, and one that is a quarter of
 * a minute behind would be gone for all others. It says how many share a limit, and decides nothing about time besides.
 */
const now = sql`now()`;
const ago = (ms: number) => sql`now() - ${ms / 1000} * interval '1 second'`;

/** Says that a process is there. */
export const upsertProcess = (tx: Tx, row: Omit<typeof processes.$inferInsert, "seenAt">) =>
  tx
    .insert(processes)
    .values({ ...row, seenAt: now })
    .onConflictDoUpdate({ target: processes.id, set: { seenAt: now } });

/** How many processes of a kind were seen within a time (milliseconds). */
export async function countProcesses(tx: Tx, kind: "serve" | "worker", withinMs: number): Promise<number> {
  const [row] = await tx
    .select({ count: sql<number>`(count(*) FILTER (WHERE kind = ${kind}))::int` })
    .from(processes)
    .where(sql`${processes.seenAt} > ${ago(withinMs)}`);
  return row?.count ?? 0;
}

export const deleteProcess = (tx: Tx, id: string) => tx.delete(processes).where(eq(processes.id, id));

/** Forgets those that were not seen for a time (milliseconds). */
export const deleteSilentProcesses = (tx: Tx, forMs: number) =>
  tx.delete(processes).where(lte(processes.seenAt, ago(forMs)));
