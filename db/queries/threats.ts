import { and, eq, getTableColumns, isNotNull, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import { threatLists } from "../schema/threats.ts";
import { anyOf } from "./any-of.ts";

export type ThreatListRow = typeof threatLists.$inferSelect;

/** How a list stands, without its networks. */
export type ThreatListState = Omit<ThreatListRow, "networks">;

const { networks: _, ...STATE } = getTableColumns(threatLists);

export const listThreatLists = (tx: Reader): Promise<ThreatListState[]> => tx.select(STATE).from(threatLists);

/** The packed networks of a list; undefined where none were ever read. */
export async function findNetworks(tx: Reader, source: string): Promise<string | undefined> {
  const [row] = await tx
    .select({ networks: threatLists.networks })
    .from(threatLists)
    .where(and(eq(threatLists.source, source), isNotNull(threatLists.networks)));
  return row?.networks ?? undefined;
}

/** Writes how a try to read a list went; what is not given of it stays as it was. */
export const upsertThreatList = (tx: Tx, row: Partial<ThreatListRow> & typeof threatLists.$inferInsert) =>
  tx.insert(threatLists).values(row).onConflictDoUpdate({ target: threatLists.source, set: row });

/** Forgets lists that are not among these any more. */
export const deleteOtherThreatLists = (tx: Tx, sources: readonly string[]) =>
  tx.delete(threatLists).where(sql`NOT (${threatLists.source} = ${anyOf(sources)})`);
