import { and, desc, eq, gt, isNull, lt, ne, type SQL, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import { refreshFamilies, sessions } from "../schema/sessions.ts";
import { users } from "../schema/users.ts";
import { grantsOfUser, permissionsOfUser, rolesOfUser } from "./users.ts";

export type SessionRow = typeof sessions.$inferSelect;
export type RefreshFamilyRow = typeof refreshFamilies.$inferSelect;

const withUser = { session: sessions, user: users, roles: rolesOfUser, permissions: permissionsOfUser };

/** A session with its user and all of their rights as they are now, in one indexed read. */
export async function findSession(tx: Tx, id: string) {
  const [row] = await tx
    .select({ ...withUser, grants: grantsOfUser })
    .from(sessions)
    .innerJoin(users, eq(users.id, sessions.userId))
    .where(eq(sessions.id, id));
  return row;
}

export type SessionWithUser = NonNullable<Awaited<ReturnType<typeof findSession>>>;

/** The same, with the session's row locked until the transaction ends: whatever ends it comes before or after. */
export async function lockSession(tx: Tx, id: string) {
  await tx.select({ id: sessions.id }).from(sessions).where(eq(sessions.id, id)).for("update");
  return findSession(tx, id);
}

export const updateSession = (tx: Tx, id: string, change: Pick<SessionRow, "authTime" | "lastSeenAt">) =>
  tx.update(sessions).set(change).where(eq(sessions.id, id));

/** Neither ended nor past a limit of its own, or of its refresh tokens. */
const isLive = (now: Date) =>
  and(isNull(sessions.revokedAt), gt(sessions.expiresAt, now), gt(refreshFamilies.idleExpiresAt, now));

/** The live sessions of a user, newest first: ids are in the order of creation. `after` is the last id seen. */
export async function listLiveSessions(
  tx: Reader,
  userId: string,
  now: Date,
  page: { limit: number; after?: string },
): Promise<SessionRow[]> {
  const { after } = page;
  const rows = await tx
    .select({ session: sessions })
    .from(sessions)
    .innerJoin(refreshFamilies, eq(refreshFamilies.sessionId, sessions.id))
    .where(and(eq(sessions.userId, userId), isLive(now), after === undefined ? undefined : lt(sessions.id, after)))
    .orderBy(desc(sessions.id))
    .limit(page.limit);
  return rows.map(({ session }) => session);
}

/** All sessions of a user that are kept, for themselves. */
export const listAllSessions = (tx: Reader, userId: string) =>
  tx
    .select({
      id: sessions.id,
      device_name: sessions.deviceName,
      user_agent: sessions.userAgent,
      ip: sessions.ip,
      created_at: sessions.createdAt,
      last_seen_at: sessions.lastSeenAt,
      expires_at: sessions.expiresAt,
      ended_at: sessions.revokedAt,
      ended_reason: sessions.revokedReason,
    })
    .from(sessions)
    .where(eq(sessions.userId, userId))
    .orderBy(desc(sessions.id));

/** Their ids, the oldest first. */
export async function listLiveSessionIds(tx: Tx, userId: string, now: Date): Promise<string[]> {
  const rows = await tx
    .select({ id: sessions.id })
    .from(sessions)
    .innerJoin(refreshFamilies, eq(refreshFamilies.sessionId, sessions.id))
    .where(and(eq(sessions.userId, userId), isLive(now)))
    .orderBy(sessions.id);
  return rows.map(({ id }) => id);
}

/** The ids of sessions of whomever that have not been ended, from after the one given on. */
export async function listUnrevokedSessionIds(tx: Tx, page: { limit: number; after?: string }): Promise<string[]> {
  const rows = await tx
    .select({ id: sessions.id })
    .from(sessions)
    .where(and(isNull(sessions.revokedAt), page.after === undefined ? undefined : gt(sessions.id, page.after)))
    .orderBy(sessions.id)
    .limit(page.limit);
  return rows.map(({ id }) => id);
}

/** A line of refresh tokens with its session, its user and their rights as they are now. */
export async function findRefreshFamily(tx: Tx, id: string) {
  const [row] = await tx
    .select({ ...withUser, family: refreshFamilies })
    .from(refreshFamilies)
    .innerJoin(sessions, eq(sessions.id, refreshFamilies.sessionId))
    .innerJoin(users, eq(users.id, sessions.userId))
    .where(eq(refreshFamilies.id, id));
  return row;
}

/**
 * The same, with the session's row locked until the transaction ends. Whoever changes a session and its family takes the
 * session first; in two orders, a refresh and a logout at once would wait for each other for ever.
 *
 * In two statements: one that had to wait for the lock answers the family as it was before the wait.
 */
export async function lockRefreshFamily(tx: Tx, id: string) {
  const locked = tx
    .select({ id: sessions.id })
    .from(refreshFamilies)
    .innerJoin(sessions, eq(sessions.id, refreshFamilies.sessionId))
    .where(eq(refreshFamilies.id, id))
    .for("update", { of: sessions })
    .execute(); // is sent first; what is sent behind it is done when it is
  const [found] = await Promise.all([findRefreshFamily(tx, id), locked]);
  return found;
}

export const insertSession = (tx: Tx, session: typeof sessions.$inferInsert) => tx.insert(sessions).values(session);

export const insertRefreshFamily = (tx: Tx, family: typeof refreshFamilies.$inferInsert) =>
  tx.insert(refreshFamilies).values(family);

/**
 * What moves a family on to its next generation, if it is still at the one given and not revoked: of several at once
 * exactly one. The first statement answers a row where it has.
 */
export const advanceRefreshFamily = (
  tx: Tx,
  family: Pick<RefreshFamilyRow, "id" | "sessionId" | "generation">,
  next: { keyId: string; secretHash: string; rotatedAt: Date; idleExpiresAt: Date },
) =>
  [
    tx
      .update(refreshFamilies)
      .set({ ...next, generation: family.generation + 1 })
      .where(
        and(
          eq(refreshFamilies.id, family.id),
          eq(refreshFamilies.generation, family.generation),
          isNull(refreshFamilies.revokedAt),
        ),
      )
      .returning({ id: refreshFamilies.id }),
    tx.update(sessions).set({ lastSeenAt: next.rotatedAt }).where(eq(sessions.id, family.sessionId)),
  ] as const;

/** One session (of this user and nobody else), these, or those of a user (but for one). */
export type SessionsMeant =
  | { readonly id: string; readonly userId?: string }
  | { readonly ids: readonly string[] }
  | { readonly userId: string; readonly except?: string };

function isMeant(which: SessionsMeant): SQL | undefined {
  if ("ids" in which) return isAnyOf(sessions.id, which.ids);
  const one = "id" in which ? eq(sessions.id, which.id) : undefined;
  const ofUser = which.userId === undefined ? undefined : eq(sessions.userId, which.userId);
  const butOne = "except" in which && which.except !== undefined ? ne(sessions.id, which.except) : undefined;
  return and(one, ofUser, butOne);
}

/** As one parameter: a statement takes 65,535 of them, and somebody may have more sessions. */
const isAnyOf = (column: typeof sessions.id | typeof refreshFamilies.sessionId, ids: readonly string[]) =>
  sql`${column} = ANY(${`{${ids.join(",")}}`}::uuid[])`;

/**
 * Ends sessions for good, with their refresh tokens. Their rows are locked in one order first, whoever ends several:
 * in two orders, two such transactions would wait for each other for ever.
 *
 * @returns the ids of those that had not ended before
 */
export async function revokeSessions(tx: Tx, which: SessionsMeant, reason: string, at: Date): Promise<string[]> {
  const rows = await tx
    .select({ id: sessions.id })
    .from(sessions)
    .where(and(isMeant(which), isNull(sessions.revokedAt)))
    .orderBy(sessions.id)
    .for("update");
  const ids = rows.map((session) => session.id);
  if (ids.length > 0) {
    await tx.update(sessions).set({ revokedAt: at, revokedReason: reason }).where(isAnyOf(sessions.id, ids));
    await tx.update(refreshFamilies).set({ revokedAt: at }).where(isAnyOf(refreshFamilies.sessionId, ids));
  }
  return ids;
}

/** The sessions that were revoked after a moment. */
export async function listRevokedSince(tx: Tx, moment: Date): Promise<{ id: string; revokedAt: Date }[]> {
  const rows = await tx
    .select({ id: sessions.id, revokedAt: sessions.revokedAt })
    .from(sessions)
    .where(gt(sessions.revokedAt, moment));
  return rows.flatMap(({ id, revokedAt }) => (revokedAt ? [{ id, revokedAt }] : []));
}
