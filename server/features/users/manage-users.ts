import type { Tx } from "../../../db/database.ts";
import { deleteDevicesOf } from "../../../db/queries/devices.ts";
import { revokeSessions } from "../../../db/queries/sessions.ts";
import { eraseUser as eraseUserRows, lockUser, type UserWithRights, updateUser } from "../../../db/queries/users.ts";
import { AppError } from "../../errors.ts";
import { assertUnchanged } from "../../etag.ts";
import { isId } from "../../ports/random.ts";
import { clearFailures } from "../protection/service.ts";
import { parseEmail, parseUsername } from "./names.ts";
import {
  type Actor,
  assertAdministratorRemains,
  assertMayManage,
  explainConflict,
  invalidField,
  record,
  requireUser,
  USERNAME_RULE,
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

async function requireLocked(tx: Tx, id: string): Promise<UserWithRights> {
  const found = isId(id) ? await lockUser(tx, id) : undefined;
  if (!found) throw new AppError("NOT_FOUND");
  return found;
}

/**
 * Changes the fields given. A user who is disabled is logged out everywhere, and so is one whose address changes: with it
 * changes who can reset the password.
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
    const disables = change.status === "disabled" && before.user.status !== "disabled";
    if (disables) await assertAdministratorRemains(tx, before);
    const moves = row.emailKey !== undefined && row.emailKey !== before.user.emailKey;
    await updateUser(tx, id, { ...row, updatedAt: now }).catch(explainConflict);
    const reason = disables ? "user_disabled" : moves ? "email_changed" : undefined;
    const ended = reason ? await revokeSessions(tx, { userId: id }, reason, now) : [];
    const details = { changed: Object.keys(change).sort(), sessions_ended: ended.length };
    const action = { disabled: "user.disabled", active: "user.enabled", none: "user.changed" } as const;
    await record(tx, deps, action[change.status ?? "none"], id, by, details);
    return viewOf(await requireUser(tx, id));
  });
}

function rowOf({ username, email, status }: UserChange, now: Date) {
  const name = username === undefined ? undefined : parseUsername(username);
  if (username !== undefined && name === undefined) throw invalidField("username", USERNAME_RULE);
  const address = email === undefined ? undefined : parseEmail(email);
  if (email !== undefined && !address) throw invalidField("email", "An e-mail address such as ada@example.org");
  return {
    ...(name === undefined ? {} : { username: name }),
    ...(address ? { ...address, emailVerifiedAt: now } : {}),
    ...(status === undefined ? {} : { status }),
    ...(status === "active" ? { deactivatedAt: null } : {}),
  };
}

/**
 * Takes an account out of use; its owner can take it back by logging in within `accounts.erase_after`, then it is erased.
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
    if (by.actor.kind !== "user" || by.actor.id !== id) await assertMayManage(tx, id, by);
    await assertAdministratorRemains(tx, before);
    await updateUser(tx, id, { status: "deactivated", deactivatedAt: now, updatedAt: now });
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
  const now = deps.clock.now();
  await deps.db.change(async (tx) => {
    const before = await requireLocked(tx, id);
    assertUnchanged(ifMatch, viewOf(before));
    await assertMayManage(tx, id, by);
    await assertAdministratorRemains(tx, before);
    const ended = await revokeSessions(tx, { userId: id }, "user_erased", now);
    await clearFailures(tx, id);
    await eraseUserRows(tx, id, now);
    await record(tx, deps, "user.erased", id, by, { sessions_ended: ended.length });
  });
}

/** The next login asks for a new password, and every session ends. @throws AppError NOT_FOUND, FORBIDDEN */
export async function requirePasswordChange(deps: UserDeps, id: string, by: Actor): Promise<void> {
  const now = deps.clock.now();
  await deps.db.change(async (tx) => {
    await requireLocked(tx, id);
    await assertMayManage(tx, id, by);
    await updateUser(tx, id, { passwordChangeRequired: true, updatedAt: now });
    await deleteDevicesOf(tx, id);
    const ended = await revokeSessions(tx, { userId: id }, "password_change_required", now);
    await record(tx, deps, "user.password_change_required", id, by, { sessions_ended: ended.length });
  });
}

/**
 * Disables a user: every session ends with it, in the same transaction.
 *
 * @throws AppError NOT_FOUND, or CONFLICT where it is the last active administrator
 */
export async function disableUser(deps: UserDeps, id: string, by: Actor): Promise<UserView> {
  const now = deps.clock.now();
  return deps.db.change(async (tx) => {
    await assertMayManage(tx, id, by);
    await assertAdministratorRemains(tx, await requireUser(tx, id));
    await updateUser(tx, id, { status: "disabled", updatedAt: now });
    const ended = await revokeSessions(tx, { userId: id }, "user_disabled", now);
    await record(tx, deps, "user.disabled", id, by, { sessions_ended: ended.length });
    return viewOf(await requireUser(tx, id));
  });
}

/** Lets a disabled or deactivated user log in again. @throws AppError NOT_FOUND */
export async function enableUser(deps: UserDeps, id: string, by: Actor): Promise<UserView> {
  return deps.db.change(async (tx) => {
    await requireUser(tx, id);
    await assertMayManage(tx, id, by);
    await updateUser(tx, id, { status: "active", deactivatedAt: null, updatedAt: deps.clock.now() });
    await record(tx, deps, "user.enabled", id, by, {});
    return viewOf(await requireUser(tx, id));
  });
}

/** Forgets the failed logins of a user, who can try again at once. @throws AppError NOT_FOUND */
export async function unlockUser(deps: UserDeps, id: string, by: Actor): Promise<UserView> {
  return deps.db.transaction(async (tx) => {
    const found = await requireUser(tx, id);
    await assertMayManage(tx, id, by);
    await clearFailures(tx, id);
    await record(tx, deps, "user.unlocked", id, by, {});
    return viewOf(found);
  });
}
