import type { Tx } from "../../../db/database.ts";
import {
  deleteInvitationRow,
  findLiveInvitation,
  type InvitationRow,
  insertInvitation,
  listInvitations,
  spendInvitationRow,
} from "../../../db/queries/invitations.ts";
import { listAllRoles } from "../../../db/queries/roles.ts";
import { findUser } from "../../../db/queries/users.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { type Page, type PageAsked, pageOf, rowsAsked } from "../../page.ts";
import { isId } from "../../ports/random.ts";
import { audit } from "../audit/service.ts";
import { type MailDeps, queueMail } from "../mail/service.ts";
import { can } from "../rights/service.ts";
import { assertMayGive, permissionsOf } from "../roles/service.ts";
import { hashSecret } from "../tokens/service.ts";
import { type Actor, assertRolesExist, requireEmail } from "../users/service.ts";

/** How long somebody may take to follow an invitation (milliseconds). */
const INVITATION_MS = 72 * 3_600_000;

export interface InvitationView {
  readonly id: string;
  readonly email: string;
  readonly roles: readonly string[];
  readonly created_at: string;
  readonly expires_at: string;
}

const viewOf = ({ id, email, roles, createdAt, expiresAt }: Omit<InvitationRow, "usedAt">): InvitationView => ({
  id,
  email,
  roles,
  created_at: createdAt.toISOString(),
  expires_at: expiresAt.toISOString(),
});

/**
 * Invites somebody to register, with these roles, and mails them how, where people may register. Whoever registers with
 * the token and this very address has proven it, if the token was sent there.
 *
 * @returns the invitation with its token: the only time that it is shown
 * @throws AppError VALIDATION_FAILED, FORBIDDEN beyond one's own rights
 */
export async function createInvitation(
  deps: Pick<Deps, "db" | "clock" | "random"> & MailDeps,
  input: { readonly email: string; readonly roles: readonly string[] },
  by: Actor,
): Promise<InvitationView & { readonly token: string }> {
  const address = requireEmail(input.email);
  const createdAt = deps.clock.now();
  const token = deps.random.token();
  const row = {
    id: deps.random.id(createdAt),
    ...address,
    roles: [...new Set(input.roles)].sort(),
    tokenHash: hashSecret(token),
    invitedBy: by.actor.kind === "user" ? by.actor.id : null,
    createdAt,
    expiresAt: new Date(createdAt.getTime() + INVITATION_MS),
  };
  await deps.db.transaction(async (tx) => {
    await assertRolesExist(tx, row.roles);
    assertMayGive(by, permissionsOf(await listAllRoles(tx), row.roles));
    await insertInvitation(tx, row);
    await record(tx, deps, "invitation.created", row.id, by, { roles: row.roles });
    if (by.actor.kind !== "user" || deps.settings.registration.mode === "closed") return;
    const mail = { template: "invitation", user_id: by.actor.id, request_id: by.caller?.requestId ?? null } as const;
    const sealed = { token, to: address.email };
    await queueMail(tx, deps, mail, { emailKey: address.emailKey, sealed: async () => sealed });
  });
  return { ...viewOf(row), token };
}

/** Those that still count, newest first. @throws AppError VALIDATION_FAILED for a wrong cursor */
export async function listInvitationPage(
  deps: Pick<Deps, "db" | "clock">,
  page: PageAsked,
): Promise<Page<InvitationView>> {
  const rows = await listInvitations(deps.db.replica, deps.clock.now(), rowsAsked(page));
  return pageOf(rows.map(viewOf), page.limit, ({ id }) => id);
}

/** Takes an invitation back. @throws AppError NOT_FOUND, also where it was used */
export async function deleteInvitation(deps: Pick<Deps, "db" | "clock" | "random">, id: string, by: Actor) {
  await deps.db.transaction(async (tx) => {
    const deleted = isId(id) ? await deleteInvitationRow(tx, id) : undefined;
    if (!deleted) throw new AppError("NOT_FOUND");
    assertMayGive(by, permissionsOf(await listAllRoles(tx), deleted.roles));
    await record(tx, deps, "invitation.deleted", id, by, {});
  });
}

/**
 * Uses an invitation up, in the transaction of the registration.
 *
 * @throws AppError LINK_INVALID where it is wrong, used, expired, for another address, or not its inviter's to give any more
 */
export async function spendInvitation(
  tx: Tx,
  { clock }: Pick<Deps, "clock">,
  token: string,
  emailKey: string,
): Promise<InvitationRow> {
  const row = await spendInvitationRow(tx, hashSecret(token), clock.now());
  if (row?.emailKey !== emailKey || !(await isStillGiven(tx, row))) throw new AppError("LINK_INVALID");
  return row;
}

/** What an invitation is to, without using it; undefined where nobody could register by it now. */
export async function lookAtInvitation(
  { db, clock }: Pick<Deps, "db" | "clock">,
  token: string,
): Promise<InvitationRow | undefined> {
  const row = await findLiveInvitation(db.orm, hashSecret(token), clock.now());
  return row && (await isStillGiven(db.orm, row)) ? row : undefined;
}

/** Whether there are those roles, and whoever invited is still there and could give them now. */
async function isStillGiven(tx: Tx, { roles, invitedBy }: InvitationRow): Promise<boolean> {
  const all = await listAllRoles(tx);
  if (roles.some((name) => !all.some(({ role }) => role.name === name))) return false;
  if (invitedBy === null) return true;
  const inviter = await findUser(tx, { id: invitedBy });
  return inviter?.user.status === "active" && permissionsOf(all, roles).every((permission) => can(inviter, permission));
}

const record = (
  tx: Tx,
  deps: Pick<Deps, "clock" | "random">,
  action: "invitation.created" | "invitation.deleted",
  id: string,
  by: Actor,
  details: object,
) =>
  audit(tx, deps, { action, outcome: "success", subject: { kind: "invitation", id }, details: { ...details }, ...by });
