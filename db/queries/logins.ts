import { and, desc, eq, lt, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import type { Baseline } from "../schema/baselines.ts";
import { loginRecords } from "../schema/logins.ts";

export const insertLoginRecord = (tx: Tx, row: typeof loginRecords.$inferInsert) => tx.insert(loginRecords).values(row);

/** All of a user's attempts to log in, for themselves. */
export const listAllLogins = (tx: Reader, userId: string) =>
  tx
    .select({
      time: loginRecords.createdAt,
      outcome: loginRecords.outcome,
      reason: loginRecords.reason,
      ip: loginRecords.ip,
      user_agent: loginRecords.userAgent,
      risk_score: loginRecords.riskScore,
      risk_signals: loginRecords.riskSignals,
    })
    .from(loginRecords)
    .where(eq(loginRecords.userId, userId))
    .orderBy(desc(loginRecords.id));

/** A user's attempts to log in, newest first; `after` is the id of the last one seen. */
export const listLogins = (tx: Reader, userId: string, page: { limit: number; after?: string }) =>
  tx
    .select()
    .from(loginRecords)
    .where(and(eq(loginRecords.userId, userId), page.after === undefined ? undefined : lt(loginRecords.id, page.after)))
    .orderBy(desc(loginRecords.id))
    .limit(page.limit);

/** How many of a user's logins are looked at to tell what is usual. */
const RECENT = 50;

/** What is known of a user's recent logins, and of what is usual. */
export interface RecentLogins {
  readonly count: number;
  /** Whether one was from the network. */
  readonly network: boolean;
  /** Whether one was with the user agent. */
  readonly userAgent: boolean;
  /** Where from those were that are not older than `since`, the newest first. `at` is in milliseconds since 1970. */
  readonly since: readonly { readonly ip: string; readonly at: number }[];
  /** How many there were within the last hour. */
  readonly lastHour: number;
  /** Null where nothing was learnt yet. */
  readonly ofAccount: Baseline | null;
  readonly ofNetwork: Baseline | null;
}

/** What a login is held against. */
export interface LoginLike {
  /** As "203.0.113.0/24". */
  readonly network: string | null;
  readonly userAgent: string | null;
  /** Null where nobody asks where from. */
  readonly since: Date | null;
  readonly hourAgo: Date;
}

/**
 * Whether a user has lately logged in from a network, and with a user agent; how many logins there were; where from; and
 * what is usual of the user and of the network. One statement, and an index for each of its parts.
 */
export async function lookAtRecentLogins(tx: Tx, userId: string, like: LoginLike): Promise<RecentLogins> {
  const recent = sql`(
    SELECT ip, user_agent, created_at FROM login_records WHERE user_id = ${userId}::uuid AND outcome = 'success'
    ORDER BY created_at DESC LIMIT ${RECENT}
  )`;
  const [row] = await tx
    .select({
      count: sql<number>`count(*)::int`,
      network: sql<boolean>`coalesce(bool_or(recent.ip::inet <<= ${like.network}::inet), false)`,
      userAgent: sql<boolean>`coalesce(bool_or(recent.user_agent IS NOT DISTINCT FROM ${like.userAgent}), false)`,
      since: sql<RecentLogins["since"]>`coalesce(
        json_agg(
          json_build_object('ip', ip, 'at', extract(epoch FROM created_at) * 1000) ORDER BY created_at DESC
        ) FILTER (WHERE ip IS NOT NULL AND created_at >= ${like.since?.toISOString() ?? null}::timestamptz),
        '[]'::json
      )`,
      lastHour: sql<number>`(count(*) FILTER (WHERE created_at > ${like.hourAgo.toISOString()}::timestamptz))::int`,
      ofAccount: sql<Baseline | null>`(SELECT baseline FROM account_baselines WHERE user_id = ${userId}::uuid)`,
      ofNetwork: sql<Baseline | null>`(SELECT baseline FROM network_baselines WHERE network = ${like.network}::text)`,
    })
    .from(sql`${recent} AS recent`);
  return row as RecentLogins; // what is counted is one row, whatever there is
}
