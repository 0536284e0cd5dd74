import { and, eq, gt, isNull, sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { singleUseTokens } from "../schema/sessions.ts";

export type SingleUseTokenRow = typeof singleUseTokens.$inferSelect;

/** Keeps a token; one of the same purpose and subject that was not used yet is none from then on. */
export const replaceSingleUseToken = (tx: Tx, row: typeof singleUseTokens.$inferInsert) =>
  tx
    .insert(singleUseTokens)
    .values(row)
    .onConflictDoUpdate({
      target: [singleUseTokens.purpose, singleUseTokens.subject],
      targetWhere: sql`${singleUseTokens.usedAt} IS NULL`,
      set: {
        id: row.id,
        tokenHash: row.tokenHash,
        userId: row.userId ?? null,
        details: row.details ?? {},
        createdAt: row.createdAt,
        expiresAt: row.expiresAt,
      },
    });

/** A token that still works: neither used nor replaced nor expired. */
export async function findLiveToken(tx: Tx, tokenHash: string, now: Date): Promise<SingleUseTokenRow | undefined> {
  const [row] = await tx
    .select()
    .from(singleUseTokens)
    .where(
      and(eq(singleUseTokens.tokenHash, tokenHash), isNull(singleUseTokens.usedAt), gt(singleUseTokens.expiresAt, now)),
    );
  return row;
}
