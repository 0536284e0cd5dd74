import { and, desc, eq, lt, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import { loginRecords } from "../schema/logins.ts";

export const insertLoginRecord = (tx: Tx, row: typeof loginRecords.$inferInsert) => tx.insert(loginRecords).values(row);

/** A user's attempts to log in, newest first; `before` is the id of the last one seen. */
export const listLogins = (tx: Reader, userId: string, page: { limit: number; before?: string }) =>
  tx
    .select()
    .from(loginRecords)
    .where(
      and(eq(loginRecords.userId, userId), page.before === undefined ? undefined : lt(loginRecords.id, page.before)),
    )
    .orderBy(desc(loginRecords.id))
    .limit(page.limit);

/** How many of a user's logins are looked at to tell what is usual. */
const RECENT = 50;

/** Whether a user has lately logged in from a network, and with a user agent; and how many logins there were. */
export async function lookAtRecentLogins(
  tx: Tx,
  userId: string,
  { network, userAgent }: { readonly network: string | null; readonly userAgent: string | null },
): Promise<{ count: number; network: boolean; userAgent: boolean }> {
  const recent = sql`(
    SELECT ip, user_agent FROM login_records WHERE user_id = ${userId}::uuid AND outcome = 'success'
    ORDER BY created_at DESC LIMIT ${RECENT}
  )`;
  const [row] = await tx
    .select({
      count: sql<number>`count(*)::int`,
      network: sql<boolean>`coalesce(bool_or(recent.ip::inet <<= ${network}::inet), false)`,
      userAgent: sql<boolean>`coalesce(bool_or(recent.user_agent IS NOT DISTINCT FROM ${userAgent}), false)`,
    })
    .from(sql`${recent} AS recent`);
  return row ?? { count: 0, network: false, userAgent: false };
}
