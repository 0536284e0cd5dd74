import type { Tx } from "../../../db/database.ts";
import { deleteDevicesOf } from "../../../db/queries/devices.ts";
import { revokeSessions } from "../../../db/queries/sessions.ts";
import { findUserWithPassword, type UserRow, updateUser, upsertPassword } from "../../../db/queries/users.ts";
import { queueMail } from "../mail/service.ts";
import {
  type Approval,
  assertPasswordAllowed,
  checkPassword,
  hashPassword,
  recordApproval,
  type StoredPassword,
  unchangedPassword,
} from "../passwords/service.ts";
import { clearFailures } from "../protection/service.ts";
import {
  type Actor,
  assertMayManage,
  endLinks,
  record,
  requireLocked,
  requireUser,
  type UserDeps,
  type UserView,
  viewOf,
} from "./user.ts";

/** `since` is when the user was made: a password that came later shows by being newer than that. */
export const keepPassword = (
  tx: Tx,
  deps: UserDeps,
  userId: string,
  password: StoredPassword,
  since: Date,
  now: Date,
) =>
  upsertPassword(tx, {
    id: deps.random.id(now),
    userId,
    kind: "password",
    ...password,
    createdAt: since,
    updatedAt: now,
  });

/**
 * Sets a new password; every session ends with it, and the owner is told by mail, in the same transaction.
 *
 * @throws AppError NOT_FOUND or PASSWORD_TOO_WEAK
 */
export async function setPassword(deps: UserDeps, id: string, password: string, by: Actor): Promise<UserView> {
  const { user } = await requireUser(deps.db.orm, id);
  const fresh = await prepareNewPassword(deps, user, password);
  return deps.db.change(async (tx) => {
    const locked = await requireLocked(tx, id);
    await assertMayManage(tx, id, by);
    await replacePassword(tx, deps, locked.user, fresh, by);
    return viewOf(await requireUser(tx, id));
  });
}

/** A password that may be set, and its hash. */
export interface NewPassword {
  readonly stored: StoredPassword;
  readonly approval: Approval;
}

/**
 * Whoever has to change their password is not done with the one they have.
 *
 * @param isCurrent whether it is the one they have; asked of whoever has to change it alone
 * @throws AppError PASSWORD_TOO_WEAK, SERVICE_UNAVAILABLE where the hash pool is full
 */
export async function prepareNewPassword(
  deps: UserDeps,
  user: UserRow,
  password: string,
  isCurrent = () => hasPassword(deps, user, password),
): Promise<NewPassword> {
  const approval = await assertPasswordAllowed(deps, password, user);
  if (user.passwordChangeRequired && (await isCurrent())) throw unchangedPassword();
  return { stored: await hashPassword(deps, password), approval };
}

async function hasPassword(deps: UserDeps, { id }: UserRow, password: string): Promise<boolean> {
  const found = await findUserWithPassword(deps.db.orm, { kind: "id", key: id });
  return found?.password ? (await checkPassword(deps, password, found.password)).correct : false;
}

/**
 * Puts a new password in the place of an old one: sessions, known devices and links that went with the old one are over,
 * and the owner is told by mail.
 *
 * @param keepSession the session of whoever changes it, if that is its owner
 */
export async function replacePassword(
  tx: Tx,
  deps: UserDeps,
  user: UserRow,
  { stored, approval }: NewPassword,
  by: Actor,
  keepSession?: string,
): Promise<void> {
  const now = deps.clock.now();
  const { id } = user;
  await updateUser(tx, id, { passwordChangeRequired: false, updatedAt: now });
  await keepPassword(tx, deps, id, stored, user.createdAt, now);
  await clearFailures(tx, id);
  await deleteDevicesOf(tx, id);
  await endLinks(tx, user);
  const which = { userId: id, ...(keepSession === undefined ? {} : { except: keepSession }) };
  const ended = await revokeSessions(tx, which, "password_changed", now);
  await record(tx, deps, "password.changed", id, by, { sessions_ended: ended.length });
  await recordApproval(tx, deps, approval, { subject: { kind: "user", id }, ...by });
  await queueMail(tx, deps, { template: "password_changed", user_id: id, request_id: by.caller?.requestId ?? null });
}
