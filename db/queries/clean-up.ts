import { and, asc, eq, gte, lt, lte, type SQL, sql } from "drizzle-orm";
import type { AnyPgColumn, PgTable } from "drizzle-orm/pg-core";
import type { Tx } from "../database.ts";
import { accountBaselines, networkBaselines, signInAnomalies } from "../schema/baselines.ts";
import { heldNames } from "../schema/held-names.ts";
import { idempotencyKeys } from "../schema/idempotency.ts";
import { invitations } from "../schema/invitations.ts";
import { secretKeys, signingKeys } from "../schema/keys.ts";
import { failureCounters, loginRecords } from "../schema/logins.ts";
import { mailCounters } from "../schema/mail.ts";
import { processes } from "../schema/processes.ts";
import { refreshFamilies, sessions, singleUseTokens } from "../schema/sessions.ts";
import { users } from "../schema/users.ts";

/** Which rows go: at most so many, the oldest first, of a time from `from` up to and including `until`. */
export interface Doomed {
  readonly from: Date;
  readonly until: Date;
  readonly limit: number;
}

/** Deletes rows; those that somebody has locked are left for another time. @returns the times of those deleted */
export type DeleteOld = (tx: Tx, doomed: Doomed) => Promise<Date[]>;

/**
 * Until the transaction ends, no process is told of the sessions that are deleted. For those alone that have been over for
 * days: nobody remembers them, and to read about millions of them would hold up every process. And rows are read in the
 * order of their index, as few as are deleted: the planner, who is not told of what time they are, might sort all there are.
 */
export const deletingOld = (tx: Tx) =>
  tx.execute(sql`SELECT set_config('primer.long_over', 'on', true), set_config('enable_sort', 'off', true)`);

/**
 * A time that the planner does not know. Where it does, it looks for the least value of the index to hold it against, and
 * reads past all that was deleted there before: that takes longer than to delete hundreds of rows.
 */
const unplanned = (time: Date, column: AnyPgColumn) => sql`(SELECT ${sql.param(time, column)}::timestamptz)`;

/** Of rows whose time is from `from` up to and including `until`. */
const isDoomed = (time: AnyPgColumn, { from, until }: Doomed) =>
  and(lte(time, unplanned(until, time)), gte(time, unplanned(from, time)));

/** By a column that has an index. Where many go, each statement begins where the last one ended and not at what is dead. */
async function deleteByTime(
  tx: Tx,
  table: PgTable,
  time: AnyPgColumn,
  doomed: Doomed,
  condition?: SQL,
): Promise<Date[]> {
  const chosen = tx
    .select({ ctid: sql`ctid` })
    .from(table)
    .where(and(isDoomed(time, doomed), condition))
    .orderBy(asc(time))
    .limit(doomed.limit)
    .for("update", { skipLocked: true });
  const gone = await tx.delete(table).where(sql`ctid = ANY(ARRAY(${chosen}))`).returning({ time });
  return gone.map((row) => row.time as Date);
}

/** Used or not: what has expired works no more. */
export const deleteExpiredTokens: DeleteOld = (tx, doomed) =>
  deleteByTime(tx, singleUseTokens, singleUseTokens.expiresAt, doomed);

/** By when they were ended; with their refresh tokens. */
export const deleteEndedSessions: DeleteOld = (tx, doomed) => deleteByTime(tx, sessions, sessions.revokedAt, doomed);

/** By when they were over, however active. */
export const deleteExpiredSessions: DeleteOld = (tx, doomed) => deleteByTime(tx, sessions, sessions.expiresAt, doomed);

/**
 * By when they were over for want of a refresh. The session is locked first, as whoever changes both does: row by row and
 * not by a plain join, for which the planner would look for the least values of both indexes.
 */
export async function deleteIdleSessions(tx: Tx, doomed: Doomed): Promise<Date[]> {
  const idle = refreshFamilies.idleExpiresAt;
  const locked = tx
    .select({ id: sessions.id })
    .from(sessions)
    .where(eq(sessions.id, refreshFamilies.sessionId))
    .for("update", { skipLocked: true })
    .as("locked");
  const chosen = tx
    .select({ id: locked.id })
    .from(refreshFamilies)
    .innerJoinLateral(locked, sql`true`)
    .where(isDoomed(idle, doomed))
    .orderBy(asc(idle))
    .limit(doomed.limit);
  const time = sql`(SELECT f.idle_expires_at FROM refresh_families f WHERE f.session_id = sessions.id)`.mapWith(idle);
  const gone = await tx.delete(sessions).where(sql`${sessions.id} = ANY(ARRAY(${chosen}))`).returning({ time });
  return gone.map((row) => row.time as Date);
}

export const deleteOldLogins: DeleteOld = (tx, doomed) =>
  deleteByTime(tx, loginRecords, loginRecords.createdAt, doomed);

/** By when something happened last. */
export const deleteOldAccountBaselines: DeleteOld = (tx, doomed) =>
  deleteByTime(tx, accountBaselines, accountBaselines.lastHour, doomed);

export const deleteOldNetworkBaselines: DeleteOld = (tx, doomed) =>
  deleteByTime(tx, networkBaselines, networkBaselines.lastHour, doomed);

export const deleteOldAnomalies: DeleteOld = (tx, doomed) =>
  deleteByTime(tx, signInAnomalies, signInAnomalies.hour, doomed);

/** @param lockAfter from so many failures on a counter locks, and stays; 0: none does */
export const deleteOldFailures =
  (lockAfter: number): DeleteOld =>
  (tx, doomed) =>
    deleteByTime(
      tx,
      failureCounters,
      failureCounters.lastFailureAt,
      doomed,
      lockAfter === 0 ? undefined : lt(failureCounters.failures, lockAfter),
    );

export const deleteHeldNames: DeleteOld = (tx, doomed) => deleteByTime(tx, heldNames, heldNames.heldUntil, doomed);

export const deleteExpiredAnswers: DeleteOld = (tx, doomed) =>
  deleteByTime(tx, idempotencyKeys, idempotencyKeys.expiresAt, doomed);

/** Those that were used too. */
export const deleteOldInvitations: DeleteOld = (tx, doomed) =>
  deleteByTime(tx, invitations, invitations.expiresAt, doomed);

export const deleteOldMailCounters: DeleteOld = (tx, doomed) =>
  deleteByTime(tx, mailCounters, mailCounters.lastAt, doomed);

export const deleteGoneProcesses: DeleteOld = (tx, doomed) => deleteByTime(tx, processes, processes.seenAt, doomed);

/** What is left of users whose data was taken away, with their sessions. */
export const deleteErasedUsers: DeleteOld = (tx, doomed) => deleteByTime(tx, users, users.erasedAt, doomed);

export const deleteRetiredSigningKeys: DeleteOld = (tx, doomed) =>
  deleteByTime(tx, signingKeys, signingKeys.retiredAt, doomed, eq(signingKeys.state, "retired"));

export const deleteRetiredSecretKeys: DeleteOld = (tx, doomed) =>
  deleteByTime(tx, secretKeys, secretKeys.retiredAt, doomed, eq(secretKeys.state, "retired"));
