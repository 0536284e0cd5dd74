import { eq } from "drizzle-orm";
import type { Connection, Tx } from "../database.ts";
import { scheduleRuns } from "../schema/schedules.ts";

/** The schedule that counts, and whose last run holds what it has counted. */
export const ACTIVITY_SCHEDULE = "activity";

/** Who uses the installation, as it was last counted. */
export type Activity = {
  /** Sessions that have not ended. */
  readonly sessions: number;
  /** Users with a session that was used within the last hour, and the last day. */
  readonly activeHour: number;
  readonly activeDay: number;
  /** Accounts by their status. */
  readonly users: Readonly<Record<string, number>>;
};

/** Reads all sessions and users, which takes seconds where there are millions: nobody waits for it. */
export async function countActivity(connection: Connection, now: Date): Promise<Activity> {
  const [row] = await connection.query<{ counted: string }>(
    `SELECT json_build_object(
       'sessions', count(*),
       'activeHour', count(DISTINCT user_id) FILTER (WHERE last_seen_at > $1::timestamptz - interval '1 hour'),
       'activeDay', count(DISTINCT user_id) FILTER (WHERE last_seen_at > $1::timestamptz - interval '1 day'),
       'users', (SELECT coalesce(json_object_agg(status, count), '{}') FROM
         (SELECT status, count(*) FROM users GROUP BY status) by_status)
     )::text AS counted FROM sessions WHERE revoked_at IS NULL AND expires_at > $1::timestamptz`,
    [now.toISOString()],
  );
  if (!row) throw new Error("The sessions could not be counted");
  return JSON.parse(row.counted);
}

/** Undefined before the first count. */
export async function findActivity(tx: Tx): Promise<Activity | undefined> {
  const [row] = await tx
    .select({ details: scheduleRuns.details })
    .from(scheduleRuns)
    .where(eq(scheduleRuns.name, ACTIVITY_SCHEDULE));
  return (row?.details as Activity | null | undefined) ?? undefined;
}
