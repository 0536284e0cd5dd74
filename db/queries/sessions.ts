import { and, eq, gt, inArray, isNull } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { refreshFamilies, sessions } from "../schema/sessions.ts";
import { users } from "../schema/users.ts";
import { permissionsOfUser, rolesOfUser } from "./users.ts";

export type SessionRow = typeof sessions.$inferSelect;
export type RefreshFamilyRow = typeof refreshFamilies.$inferSelect;

const withUser = { session: sessions, user: users, roles: rolesOfUser, permissions: permissionsOfUser };

/** A session with its user and their rights as they are now, in one indexed read. */
export async function findSession(tx: Tx, id: string) {
  const [row] = await tx
    .select(withUser)
    .from(sessions)
    .innerJoin(users, eq(users.id, sessions.userId))
    .where(eq(sessions.id, id));
  return row;
}

export type SessionWithUser = NonNullable<Awaited<ReturnType<typeof findSession>>>;

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
  await tx
    .select({ id: sessions.id })
    .from(refreshFamilies)
    .innerJoin(sessions, eq(sessions.id, refreshFamilies.sessionId))
    .where(eq(refreshFamilies.id, id))
    .for("update", { of: sessions });
  return findRefreshFamily(tx, id);
}

export async function insertSession(
  tx: Tx,
  session: typeof sessions.$inferInsert,
  family: typeof refreshFamilies.$inferInsert,
): Promise<void> {
  await tx.insert(sessions).values(session);
  await tx.insert(refreshFamilies).values(family);
}

/**
 * Moves a family on to its next generation, if it is still at the one given and not revoked. Of several at once exactly
 * one gets true.
 */
export async function advanceRefreshFamily(
  tx: Tx,
  family: Pick<RefreshFamilyRow, "id" | "sessionId" | "generation">,
  next: { keyId: string; secretHash: string; rotatedAt: Date; idleExpiresAt: Date },
): Promise<boolean> {
  const moved = await tx
    .update(refreshFamilies)
    .set({ ...next, generation: family.generation + 1 })
    .where(
      and(
        eq(refreshFamilies.id, family.id),
        eq(refreshFamilies.generation, family.generation),
        isNull(refreshFamilies.revokedAt),
      ),
    )
    .returning({ id: refreshFamilies.id });
  if (moved.length === 0) return false;
  await tx.update(sessions).set({ lastSeenAt: next.rotatedAt }).where(eq(sessions.id, family.sessionId));
  return true;
}

/** Ends sessions for good, with their refresh tokens. @returns the ids of those that had not ended before */
export async function revokeSessions(
  tx: Tx,
  which: { id: string } | { userId: string },
  reason: string,
  at: Date,
): Promise<string[]> {
  const match = "id" in which ? eq(sessions.id, which.id) : eq(sessions.userId, which.userId);
  const ended = await tx
    .update(sessions)
    .set({ revokedAt: at, revokedReason: reason })
    .where(and(match, isNull(sessions.revokedAt)))
    .returning({ id: sessions.id });
  const ids = ended.map((session) => session.id);
  if (ids.length > 0) {
    await tx.update(refreshFamilies).set({ revokedAt: at }).where(inArray(refreshFamilies.sessionId, ids));
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
