import { and, eq, gt, lte, or, sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { idempotencyKeys } from "../schema/idempotency.ts";

/** Whose key. */
export type KeyPlace = Pick<typeof idempotencyKeys.$inferSelect, "callerId" | "keyHash">;

const at = ({ callerId, keyHash }: KeyPlace) =>
  and(eq(idempotencyKeys.callerId, callerId), eq(idempotencyKeys.keyHash, keyHash));

/** What was sealed of the answer to a request with this key; undefined where there is none that still counts. */
export async function findSealedAnswer(tx: Tx, place: KeyPlace, now: Date): Promise<string | undefined> {
  const [row] = await tx
    .select({ sealed: idempotencyKeys.sealed })
    .from(idempotencyKeys)
    .where(and(at(place), gt(idempotencyKeys.expiresAt, now)));
  return row?.sealed ?? undefined;
}

/** So long somebody waits who comes with a key while a request with the same one is under way (milliseconds). */
const WAIT_MS = 1000;

/**
 * Takes a key for the transaction under way. Whoever comes with it at the same moment waits for the end of that: where it
 * is undone, as by a crash, they have the key.
 *
 * @returns false where it was used, and that still counts
 * @throws where the wait takes too long (SQLSTATE 55P03)
 */
export async function claimKey(tx: Tx, place: KeyPlace, now: Date, expiresAt: Date): Promise<boolean> {
  await tx.execute(sql`SELECT set_config('lock_timeout', ${String(WAIT_MS)}, true)`);
  const claimed = await tx
    .insert(idempotencyKeys)
    .values({ ...place, expiresAt })
    .onConflictDoUpdate({
      target: [idempotencyKeys.callerId, idempotencyKeys.keyHash],
      set: { sealed: null, subjectId: null, expiresAt },
      setWhere: lte(idempotencyKeys.expiresAt, now),
    })
    .returning({ keyHash: idempotencyKeys.keyHash });
  return claimed.length === 1;
}

export const updateAnswer = (tx: Tx, place: KeyPlace, answer: { sealed: string; subjectId: string | null }) =>
  tx.update(idempotencyKeys).set(answer).where(at(place));

/** Everything that a user was answered, and that was answered about them. */
export const deleteAnswersOf = (tx: Tx, userId: string) =>
  tx.delete(idempotencyKeys).where(or(eq(idempotencyKeys.callerId, userId), eq(idempotencyKeys.subjectId, userId)));
