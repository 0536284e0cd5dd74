import type { Tx } from "../../../db/database.ts";
import { deleteDevicesOf } from "../../../db/queries/devices.ts";
import { revokeSessions } from "../../../db/queries/sessions.ts";
import { deleteTokensOf } from "../../../db/queries/single-use-tokens.ts";
import { eraseUser as eraseUserRows, updateUser } from "../../../db/queries/users.ts";
import { AppError } from "../../errors.ts";
import { assertUnchanged } from "../../etag.ts";
import { forgetRest } from "../audit/service.ts";
import { clearFailures } from "../protection/service.ts";
import { tellOldAddress } from "./move-address.ts";
import { requireEmail, requireUsername } from "./names.ts";
import {
  type Actor,
  assertAdministratorRemains,
  assertMayManage,
  endLinks,
  explainConflict,
  record,
  recordErasure,
  requireLocked,
  requireUser,
  type UserDeps,
  type UserView,
  viewOf,
} from "./user.ts";

/** What an administrator changes of a user. Fields that are not given stay as they are. */
export interface UserChange {
  readonly username?: string;
  /** Counts at once and as verified: the administrator vouches for it. */
  readonly email?: string;
  readonly status?: "active" | "disabled";
}

/**
 * Changes the fields given. A user who is disabled is logged out everywhere, and so is one whose address changes: with it
 * changes who can reset the password. The old address is told, and links that were mailed before are dead. Nobody who has
 * not confirmed their registration is enabled: whoever made it may not be who owns the address.
 *
 * @param ifMatch see {@link assertUnchanged}
 * @throws AppError NOT_FOUND, VALIDATION_FAILED, PRECONDITION_FAILED, CONFLICT with `details.field` or for the last active
 * administrator, FORBIDDEN for a user who may do more
 */
export async function changeUser(
  deps: UserDeps,
  id: string,
  change: UserChange,
  by: Actor,
  ifMatch: string | null = null,
): Promise<UserView> {
  const now = deps.clock.now();
  return deps.db.change(async (tx) => {
    const before = await requireLocked(tx, id);
    assertUnchanged(ifMatch, viewOf(before));
    await assertMayManage(tx, id, by);
    const row = rowOf(change, now);
    // Neither enabled nor disabled: by way of the one it would come to the other. DELETE takes it away.
    if (change.status !== undefined && before.user.status === "pending") {
      throw new AppError("CONFLICT", { details: { reason: "email_not_verified" } });
    }
    const disables = change.status === "disabled" && before.user.status !== "disabled";
    if (disables) await assertAdministratorRemains(tx, before);
    const moves = row.emailKey !== undefined && row.emailKey !== before.user.emailKey;
    await updateUser(tx, id, { ...row, updatedAt: now }).catch(explainConflict);
    const reason = disables ? "user_disabled" : moves ? "email_changed" : undefined;
    if (reason) await endLinks(tx, before.user);
    if (moves) await deleteTokensOf(tx, id, ["verify_email"]); // also of a registration: it went to the old address
    if (moves) await tellOldAddress(tx, deps, before.user, by.caller);
    const ended = reason ? await revokeSessions(tx, { userId: id }, reason, now) : [];
    const details = { changed: Object.keys(change).sort(), sessions_ended: ended.length };
    const action = { disabled: "user.disabled", active: "user.enabled", none: "user.changed" } as const;
    await record(tx, deps, action[change.status ?? "none"], id, by, details);
    return viewOf(await requireUser(tx, id));
  });
}

function rowOf({ username, email, status }: UserChange, now: Date) {
  return {
    ...(username === undefined ? {} : { username: requireUsername(username) }),
    ...(email === undefined ? {} : { ...requireEmail(email), emailVerifiedAt: now }),
    ...(status === undefined ? {} : { status }),
    ...(status === undefined ? {} : { reclaimableUntil: null }),
    ...(status === "active" ? { deactivatedAt: null } : {}),
  };
}

/**
 * Takes an account out of use, and everything personal away after `accounts.erase_after`. An owner who does this can take
 * it back until then by logging in; where it was somebody else, they can. One that was never confirmed is erased at once.
 *
 * @throws AppError NOT_FOUND, PRECONDITION_FAILED, FORBIDDEN, CONFLICT for the last active administrator
 */
export async function deactivateUser(
  deps: UserDeps,
  id: string,
  by: Actor,
  ifMatch: string | null = null,
): Promise<void> {
  const now = deps.clock.now();
  await deps.db.change(async (tx) => {
    const before = await requireLocked(tx, id);
    assertUnchanged(ifMatch, viewOf(before));
    const isOwn = by.actor.kind === "user" && by.actor.id === id;
    if (!isOwn) await assertMayManage(tx, id, by);
    if (before.user.status === "pending") return erase(tx, deps, id, by);
    await assertAdministratorRemains(tx, before);
    const reclaimableUntil = isOwn ? new Date(now.getTime() + deps.settings.accounts.erase_after) : null;
    await updateUser(tx, id, { status: "deactivated", deactivatedAt: now, reclaimableUntil, updatedAt: now });
    await endLinks(tx, before.user);
    const ended = await revokeSessions(tx, { userId: id }, "user_deactivated", now);
    await record(tx, deps, "user.deactivated", id, by, { sessions_ended: ended.length });
  });
}

/**
 * Takes everything personal of a user away for good. An empty row stays until the last access token of theirs has expired
 * everywhere, so that services which verify by themselves hear that the sessions have ended.
 *
 * @throws AppError NOT_FOUND, PRECONDITION_FAILED, FORBIDDEN, CONFLICT for the last active administrator
 */
export async function eraseUser(deps: UserDeps, id: string, by: Actor, ifMatch: string | null = null): Promise<void> {
  await deps.db.change(async (tx) => {
    const before = await requireLocked(tx, id);
    assertUnchanged(ifMatch, viewOf(before));
    await assertMayManage(tx, id, by);
    await assertAdministratorRemains(tx, before);
    await erase(tx, deps, id, by);
  });
  await forgetRest(deps.db, deps.clock, id).catch(() => {}); // they are erased; the clean-up does what is left
}

async function erase(tx: Tx, deps: UserDeps, id: string, by: Actor): Promise<void> {
  const now = deps.clock.now();
  const ended = await revokeSessions(tx, { userId: id }, "user_erased", now);
  await clearFailures(tx, id);
  await eraseUserRows(tx, id, now);
  await recordErasure(tx, deps, id, by, { sessions_ended: ended.length });
}

/** The next login asks for a new password, and every session ends. @throws AppError NOT_FOUND, FORBIDDEN */
export async function requirePasswordChange(deps: UserDeps, id: string, by: Actor): Promise<void> {
  const now = deps.clock.now();
  await deps.db.change(async (tx) => {
    const { user } = await requireLocked(tx, id);
    await assertMayManage(tx, id, by);
    await endLinks(tx, user);
    await updateUser(tx, id, { passwordChangeRequired: true, updatedAt: now });
    await deleteDevicesOf(tx, id);
    const ended = await revokeSessions(tx, { userId: id }, "password_change_required", now);
    await record(tx, deps, "user.password_change_required", id, by, { sessions_ended: ended.length });
  });
}

/** Forgets the failed logins of a user, who can try again at once. @throws AppError NOT_FOUND */
export async function unlockUser(deps: UserDeps, id: string, by: Actor): Promise<UserView> {
  return deps.db.transaction(async (tx) => {
    const found = await requireLocked(tx, id);
    await assertMayManage(tx, id, by);
    await clearFailures(tx, id);
    await record(tx, deps, "user.unlocked", id, by, {});
    return viewOf(found);
  });
}
