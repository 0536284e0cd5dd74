import { eq, like, or, type SQL, sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { failureCounters } from "../schema/logins.ts";
import { credentials, users } from "../schema/users.ts";
import { isKeyOf, isPasswordOf, type UserKey, withRights } from "./users.ts";

/** From how many failures on tries are slowed down, and refused for good. 0 is never. */
export interface FailurePolicy {
  readonly delayAfter: number;
  readonly lockAfter: number;
}

/** The wait after the first failure that brings one (seconds); each further one doubles it, up to the longest. */
const FIRST_DELAY_SECONDS = 5;
const LONGEST_DELAY_SECONDS = 900;

/** Where it may be made now: how many it makes in a row, and since when. */
export interface Reserved {
  readonly failures: number;
  readonly firstFailureAt: Date;
}

/**
 * Counts an attempt as failed before it is looked at, so that of many at the same moment no more are looked at than may
 * fail. One statement: whoever comes at the same time waits for its row.
 *
 * @returns undefined where it may not be made now, then nothing was counted
 */
export async function reserveAttempt(
  tx: Tx,
  subject: string,
  policy: FailurePolicy,
  now: Date,
): Promise<Reserved | undefined> {
  const [row] = await reservation(tx, sql`(SELECT ${subject}::text AS subject) AS meant`, policy, now);
  return row;
}

/** @param meant has the subject as the column of that name */
function reservation(tx: Tx, meant: SQL, { delayAfter, lockAfter }: FailurePolicy, now: Date) {
  const { failures, blockedUntil } = failureCounters;
  const at = sql`${now.toISOString()}::timestamptz`;
  const blocked = (nth: SQL) => {
    const delay = sql`make_interval(secs => least(${LONGEST_DELAY_SECONDS}, ${FIRST_DELAY_SECONDS} * power(2, least(${nth} - ${delayAfter}::int, 20))))`;
    return delayAfter === 0
      ? sql`NULL::timestamptz`
      : sql`CASE WHEN ${nth} >= ${delayAfter}::int THEN ${at} + ${delay} END`;
  };
  const next = sql`${failures} + 1`;
  return tx
    .insert(failureCounters)
    .select(sql`SELECT subject, 1, ${at}, ${at}, ${blocked(sql`1`)} FROM ${meant}`)
    .onConflictDoUpdate({
      target: failureCounters.subject,
      set: { failures: next, lastFailureAt: now, blockedUntil: blocked(next) },
      setWhere: sql`(${blockedUntil} IS NULL OR ${blockedUntil} <= ${at}) AND (${lockAfter}::int = 0 OR ${failures} < ${lockAfter}::int)`,
    })
    .returning({ failures, firstFailureAt: failureCounters.firstFailureAt });
}

/** Who is meant by somebody who logs in. */
export interface LoginMeant {
  readonly by: UserKey;
  /** The hash of what their device shows; null where it shows nothing. */
  readonly deviceTokenHash: string | null;
  /** What is counted where nobody has that name. */
  readonly nobody: string;
}

/**
 * The account that somebody means, whether their device is one of its owner's, and their attempt counted as by
 * {@link reserveAttempt}: on the account, on that device of it, or on a name that nobody has. All in one statement.
 */
export async function reserveLogin(
  tx: Tx,
  { by, deviceTokenHash, nobody }: LoginMeant,
  policy: FailurePolicy,
  now: Date,
) {
  const ofUser = sql`'user:' || users.id`;
  const meant = tx
    .$with("meant", {
      userId: sql<string | null>`user_id`.as("user_id"),
      deviceId: sql<string | null>`device_id`.as("device_id"),
      subject: sql<string>`subject`.as("subject"),
    })
    .as(sql`
      SELECT users.id AS user_id, known_devices.id AS device_id, CASE
        WHEN users.id IS NULL THEN ${nobody}::text
        WHEN known_devices.id IS NULL THEN ${ofUser}
        ELSE ${ofUser} || ':device:' || known_devices.id END AS subject
      FROM (SELECT 1) AS attempt
      LEFT JOIN users ON ${isKeyOf(by)}
      LEFT JOIN known_devices ON known_devices.user_id = users.id AND known_devices.token_hash = ${deviceTokenHash}::text
    `);
  const reserved = tx.$with("reserved").as(reservation(tx, sql`meant`, policy, now));
  const [row] = await tx
    .with(meant, reserved)
    .select({
      ...withRights,
      password: credentials,
      subject: meant.subject,
      deviceId: meant.deviceId,
      failures: reserved.failures,
      firstFailureAt: reserved.firstFailureAt,
    })
    .from(meant)
    .leftJoin(users, eq(users.id, meant.userId))
    .leftJoin(credentials, isPasswordOf(users.id))
    .leftJoin(reserved, sql`true`);
  if (!row) throw new Error("An attempt that was reserved answers no row");
  const { user, roles, permissions, password, subject, deviceId, failures, firstFailureAt } = row;
  return {
    account: user ? { user, roles, permissions, password } : undefined,
    deviceId,
    subject,
    reserved: failures !== null && firstFailureAt !== null ? { failures, firstFailureAt } : undefined,
  };
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
