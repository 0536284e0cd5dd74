import { and, asc, desc, eq, gte, isNull, lt, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import {
  accountBaselines,
  type Baseline,
  baselineCursor,
  networkBaselines,
  signInAnomalies,
} from "../schema/baselines.ts";
import { loginRecords } from "../schema/logins.ts";
import { users } from "../schema/users.ts";
import { anyIdOf, anyOf } from "./any-of.ts";

/** Where in the login records the baselines have got to. */
export type BaselineCursor = Pick<typeof baselineCursor.$inferSelect, "time" | "loginId">;

/** Everything is before the first id. */
const NO_ID = "00000000-0000-0000-0000-000000000000";
const THE_ROW = eq(baselineCursor.id, 1);

/**
 * How far the baselines have got; until the transaction ends, nobody else learns.
 *
 * @param start from when on records count, where nothing was learnt before
 */
export async function lockBaselineCursor(tx: Tx, start: Date): Promise<BaselineCursor> {
  await tx.insert(baselineCursor).values({ id: 1, time: start, loginId: NO_ID }).onConflictDoNothing();
  const [row] = await tx.select().from(baselineCursor).where(THE_ROW).for("update");
  return row ?? { time: start, loginId: NO_ID };
}

export const moveBaselineCursor = (tx: Tx, { time, loginId }: BaselineCursor) =>
  tx.update(baselineCursor).set({ time, loginId }).where(THE_ROW);

/** The login records after the cursor and before a time, the oldest first. */
export const listLoginsToLearn = (tx: Reader, { time, loginId }: BaselineCursor, until: Date, limit: number) =>
  tx
    .select({
      id: loginRecords.id,
      userId: loginRecords.userId,
      outcome: loginRecords.outcome,
      reason: loginRecords.reason,
      ip: loginRecords.ip,
      createdAt: loginRecords.createdAt,
      riskScore: loginRecords.riskScore,
      riskSignals: loginRecords.riskSignals,
    })
    .from(loginRecords)
    .where(
      and(
        gte(loginRecords.createdAt, time), // what the index is asked for
        sql`(${loginRecords.createdAt}, ${loginRecords.id}) > (${time.toISOString()}::timestamptz, ${loginId}::uuid)`,
        lt(loginRecords.createdAt, until),
      ),
    )
    .orderBy(asc(loginRecords.createdAt), asc(loginRecords.id))
    .limit(limit);

export type LoginToLearn = Awaited<ReturnType<typeof listLoginsToLearn>>[number];

/** Of these users, those who are not erased; until the transaction ends, none of them is. Logins do not wait for it. */
export async function keepFromErasure(tx: Tx, ids: readonly string[]): Promise<string[]> {
  const rows = await tx
    .select({ id: users.id })
    .from(users)
    .where(and(sql`${users.id} = ${anyIdOf(ids)}`, isNull(users.erasedAt)))
    .orderBy(users.id)
    .for("key share");
  return rows.map((row) => row.id);
}

/** A baseline with the user's id or the network that it is of. */
export interface KeyedBaseline {
  readonly key: string;
  readonly baseline: Baseline;
}

export const listAccountBaselines = (tx: Reader, ids: readonly string[]): Promise<KeyedBaseline[]> =>
  tx
    .select({ key: accountBaselines.userId, baseline: accountBaselines.baseline })
    .from(accountBaselines)
    .where(sql`${accountBaselines.userId} = ${anyIdOf(ids)}`);

export const listNetworkBaselines = (tx: Reader, networks: readonly string[]): Promise<KeyedBaseline[]> =>
  tx
    .select({ key: networkBaselines.network, baseline: networkBaselines.baseline })
    .from(networkBaselines)
    .where(sql`${networkBaselines.network} = ${anyOf(networks)}`);

/** Writes baselines as they are now, all in one statement. */
export const upsertAccountBaselines = (tx: Tx, rows: readonly KeyedBaseline[]) =>
  tx.execute(sql`
    INSERT INTO account_baselines (user_id, last_hour, baseline)
    SELECT key::uuid, to_timestamp((baseline -> 'hour' ->> 'begin')::bigint / 1000), baseline
    FROM jsonb_to_recordset(${JSON.stringify(rows)}::text::jsonb) AS given (key text, baseline jsonb)
    ON CONFLICT (user_id) DO UPDATE SET last_hour = excluded.last_hour, baseline = excluded.baseline`);

export const upsertNetworkBaselines = (tx: Tx, rows: readonly KeyedBaseline[]) =>
  tx.execute(sql`
    INSERT INTO network_baselines (network, last_hour, baseline)
    SELECT key, to_timestamp((baseline -> 'hour' ->> 'begin')::bigint / 1000), baseline
    FROM jsonb_to_recordset(${JSON.stringify(rows)}::text::jsonb) AS given (key text, baseline jsonb)
    ON CONFLICT (network) DO UPDATE SET last_hour = excluded.last_hour, baseline = excluded.baseline`);

/** An hour that is unusual so far, of a user or a network. */
export interface AnomalyRow {
  readonly id: string;
  readonly user_id: string | null;
  readonly network: string | null;
  readonly hour: string;
  readonly score: number;
  readonly signals: readonly string[];
  readonly good: number;
  readonly failed: number;
}

/** Writes anomalies as they are now; one of the same hour is replaced. */
export async function upsertAnomalies(tx: Tx, rows: readonly AnomalyRow[]): Promise<void> {
  for (const owner of ["user_id", "network"] as const) {
    const given = rows.filter((row) => row[owner] !== null);
    if (given.length === 0) continue;
    await tx.execute(sql`
      INSERT INTO sign_in_anomalies (id, user_id, network, hour, score, signals, good, failed)
      SELECT id, user_id, network, hour, score, ARRAY(SELECT jsonb_array_elements_text(signals)), good, failed
      FROM jsonb_to_recordset(${JSON.stringify(given)}::text::jsonb) AS given (
        id uuid, user_id uuid, network text, hour timestamptz, score integer, signals jsonb, good integer, failed integer
      )
      ON CONFLICT (${sql.identifier(owner)}, hour) DO UPDATE SET score = excluded.score, signals = excluded.signals,
        good = excluded.good, failed = excluded.failed`);
  }
}

/** What is kept on how a user usually signs in, for themselves. */
export async function findBaselineOf(tx: Reader, userId: string): Promise<Baseline | undefined> {
  const [row] = await tx
    .select({ baseline: accountBaselines.baseline })
    .from(accountBaselines)
    .where(eq(accountBaselines.userId, userId));
  return row?.baseline;
}

/** The hours in which a user's sign-ins were unusual, for themselves; the newest first. */
export const listAnomaliesOf = (tx: Reader, userId: string) =>
  tx
    .select({
      hour: signInAnomalies.hour,
      score: signInAnomalies.score,
      signals: signInAnomalies.signals,
      good: signInAnomalies.good,
      failed: signInAnomalies.failed,
    })
    .from(signInAnomalies)
    .where(eq(signInAnomalies.userId, userId))
    .orderBy(desc(signInAnomalies.hour));

/** Everything that was learnt of a user. */
export async function deleteBaselineOf(tx: Tx, userId: string): Promise<void> {
  await tx.delete(accountBaselines).where(eq(accountBaselines.userId, userId));
  await tx.delete(signInAnomalies).where(eq(signInAnomalies.userId, userId));
}
