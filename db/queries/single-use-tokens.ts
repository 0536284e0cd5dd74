import { and, eq, gt, inArray, isNull, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
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

/** Uses a token up: of several at once exactly one gets it. */
export async function spendToken(
  tx: Tx,
  tokenHash: string,
  purposes: readonly string[],
  now: Date,
): Promise<SingleUseTokenRow | undefined> {
  const [row] = await tx
    .update(singleUseTokens)
    .set({ usedAt: now })
    .where(
      and(
        eq(singleUseTokens.tokenHash, tokenHash),
        inArray(singleUseTokens.purpose, [...purposes]),
        isNull(singleUseTokens.usedAt),
        gt(singleUseTokens.expiresAt, now),
      ),
    )
    .returning();
  return row;
}

/** Takes away what links of these kinds a user still has. */
export const deleteTokensOf = (tx: Tx, userId: string, purposes: readonly string[]) =>
  tx
    .delete(singleUseTokens)
    .where(
      and(
        eq(singleUseTokens.userId, userId),
        inArray(singleUseTokens.purpose, [...purposes]),
        isNull(singleUseTokens.usedAt),
      ),
    );

/** The new address that a user waits to prove; null where there is none. */
export async function findPendingEmail(tx: Reader, userId: string, now: Date): Promise<string | null> {
  const [row] = await tx
    .select({ details: singleUseTokens.details })
    .from(singleUseTokens)
    .where(
      and(
        eq(singleUseTokens.userId, userId),
        eq(singleUseTokens.purpose, "verify_email"),
        isNull(singleUseTokens.usedAt),
        gt(singleUseTokens.expiresAt, now),
      ),
    );
  return typeof row?.details.email === "string" ? row.details.email : null;
}
