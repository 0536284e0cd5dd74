import { eq, lte, sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { processes } from "../schema/processes.ts";

/**
 * When processes were seen is told and compared by the database's clock alone: theirs differ, and one that is a quarter of
 * a minute behind would be gone for all others. It says how many share a limit, and decides nothing about time besides.
 */
const now = sql`now()`;
const ago = (ms: number) => sql`now() - ${ms / 1000} * interval '1 second'`;

/** A process that was not seen for this long (milliseconds) is gone. */
export const GONE_AFTER_MS = 15_000;

/** Says that a process is there. */
export const upsertProcess = (tx: Tx, row: Omit<typeof processes.$inferInsert, "seenAt">) =>
  tx
    .insert(processes)
    .values({ ...row, seenAt: now })
    .onConflictDoUpdate({ target: processes.id, set: { seenAt: now } });

/** How many processes of a kind there are. */
export async function countProcesses(tx: Tx, kind: "serve" | "worker"): Promise<number> {
  const [row] = await tx
    .select({ count: sql<number>`(count(*) FILTER (WHERE kind = ${kind}))::int` })
    .from(processes)
    .where(sql`${processes.seenAt} > ${ago(GONE_AFTER_MS)}`);
  return row?.count ?? 0;
}

export const deleteProcess = (tx: Tx, id: string) => tx.delete(processes).where(eq(processes.id, id));

/** Forgets those that are gone. */
export const deleteGoneProcesses = (tx: Tx) => tx.delete(processes).where(lte(processes.seenAt, ago(GONE_AFTER_MS)));
