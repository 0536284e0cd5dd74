import { eq, like, or, sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { failureCounters } from "../schema/logins.ts";

/** From how many failures on tries are slowed down, and refused for good. 0 is never. */
export interface FailurePolicy {
  readonly delayAfter: number;
  readonly lockAfter: number;
}

/** The wait after the first failure that brings one (seconds); each further one doubles it, up to the longest. */
const FIRST_DELAY_SECONDS = 5;
const LONGEST_DELAY_SECONDS = 900;

/**
 * Counts an attempt as failed before it is looked at, so that of many at the same moment no more are looked at than may
 * fail. One statement: whoever comes at the same time waits for its row.
 *
 * @returns how many it makes in a row and since when; undefined where it may not be made now, then nothing was counted
 */
export async function reserveAttempt(
  tx: Tx,
  subject: string,
  { delayAfter, lockAfter }: FailurePolicy,
  now: Date,
): Promise<{ failures: number; firstFailureAt: Date } | undefined> {
  const { failures, blockedUntil } = failureCounters;
  const next = sql`${failures} + 1`;
  const delay = sql`make_interval(secs => least(${LONGEST_DELAY_SECONDS}, ${FIRST_DELAY_SECONDS} * power(2, least(${next} - ${delayAfter}::int, 20))))`;
  const at = sql`${now.toISOString()}::timestamptz`;
  const blocked =
    delayAfter === 0 ? sql`NULL` : sql`CASE WHEN ${next} >= ${delayAfter}::int THEN ${at} + ${delay} ELSE NULL END`;
  const [row] = await tx
    .insert(failureCounters)
    .values({
      subject,
      failures: 1,
      firstFailureAt: now,
      lastFailureAt: now,
      blockedUntil: delayAfter === 1 ? new Date(now.getTime() + FIRST_DELAY_SECONDS * 1000) : null,
    })
    .onConflictDoUpdate({
      target: failureCounters.subject,
      set: { failures: next, lastFailureAt: now, blockedUntil: blocked },
      setWhere: sql`(${blockedUntil} IS NULL OR ${blockedUntil} <= ${at}) AND (${lockAfter}::int = 0 OR ${failures} < ${lockAfter}::int)`,
    })
    .returning({ failures, firstFailureAt: failureCounters.firstFailureAt });
  return row;
}

export async function findFailures(tx: Tx, subject: string) {
  const [row] = await tx.select().from(failureCounters).where(eq(failureCounters.subject, subject));
  return row;
}

/** Takes back a reservation that came to nothing, since the attempt was not looked at. */
export const releaseAttempt = (tx: Tx, subject: string) =>
  tx
    .update(failureCounters)
    .set({ failures: sql`greatest(${failureCounters.failures} - 1, 0)`, blockedUntil: null })
    .where(eq(failureCounters.subject, subject));

/** Forgets the failures of a subject: it was right. */
export const deleteFailures = (tx: Tx, subject: string) =>
  tx.delete(failureCounters).where(eq(failureCounters.subject, subject));

/** Forgets those of an account, from wherever they came. */
export const deleteFailuresOf = (tx: Tx, account: string) =>
  tx
    .delete(failureCounters)
    .where(or(eq(failureCounters.subject, account), like(failureCounters.subject, `${account}:%`)));
