import { and, desc, eq, gt, isNull, lt } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import { invitations } from "../schema/invitations.ts";

export type InvitationRow = typeof invitations.$inferSelect;

export const insertInvitation = (tx: Tx, row: typeof invitations.$inferInsert) => tx.insert(invitations).values(row);

/** Those that still count, newest first, from after the id given on. */
export const listInvitations = (tx: Reader, now: Date, page: { limit: number; after?: string }) =>
  tx
    .select()
    .from(invitations)
    .where(
      and(
        isNull(invitations.usedAt),
        gt(invitations.expiresAt, now),
        page.after === undefined ? undefined : lt(invitations.id, page.after),
      ),
    )
    .orderBy(desc(invitations.id))
    .limit(page.limit);

/** Uses an invitation up: of several at once exactly one gets it. */
export async function spendInvitationRow(tx: Tx, tokenHash: string, now: Date): Promise<InvitationRow | undefined> {
  const [row] = await tx
    .update(invitations)
    .set({ usedAt: now })
    .where(and(eq(invitations.tokenHash, tokenHash), isNull(invitations.usedAt), gt(invitations.expiresAt, now)))
    .returning();
  return row;
}

/** One that still counts: neither used nor expired. */
export async function findLiveInvitation(tx: Reader, tokenHash: string, now: Date): Promise<InvitationRow | undefined> {
  const [row] = await tx
    .select()
    .from(invitations)
    .where(and(eq(invitations.tokenHash, tokenHash), isNull(invitations.usedAt), gt(invitations.expiresAt, now)));
  return row;
}

export async function deleteInvitationRow(tx: Tx, id: string): Promise<InvitationRow | undefined> {
  const [row] = await tx
    .delete(invitations)
    .where(and(eq(invitations.id, id), isNull(invitations.usedAt)))
    .returning();
  return row;
}

/** What somebody was invited to, for themselves. */
export const listInvitationsTo = (tx: Reader, emailKey: string) =>
  tx
    .select({
      roles: invitations.roles,
      created_at: invitations.createdAt,
      expires_at: invitations.expiresAt,
      used_at: invitations.usedAt,
    })
    .from(invitations)
    .where(eq(invitations.emailKey, emailKey));
