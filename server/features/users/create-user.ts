import type { Tx } from "../../../db/database.ts";
import { listAllRoles } from "../../../db/queries/roles.ts";
import { insertUser, replaceUserRoles } from "../../../db/queries/users.ts";
import { eachTime, type Once } from "../idempotency/service.ts";
import {
  type Approval,
  assertPasswordAllowed,
  hashPassword,
  recordApproval,
  type StoredPassword,
} from "../passwords/service.ts";
import { assertMayGive, permissionsOf } from "../roles/service.ts";
import { requireEmail, requireUsername } from "./names.ts";
import { keepPassword } from "./set-password.ts";
import {
  type Actor,
  assertRolesExist,
  explainConflict,
  record,
  requireUser,
  type UserDeps,
  type UserView,
  viewOf,
} from "./user.ts";

export interface NewUser {
  readonly username: string;
  readonly email: string;
  readonly password: string;
  readonly roles: readonly string[];
}

/**
 * Creates an active user with a verified address: for administrators and the command line.
 *
 * @throws AppError VALIDATION_FAILED, PASSWORD_TOO_WEAK, or CONFLICT with `details.field`
 */
export async function createUser(deps: UserDeps, input: NewUser, by: Actor, once: Once = eachTime): Promise<UserView> {
  const prepared = await prepareUser(deps, input);
  return deps.db.transaction((tx) => once(tx, () => insertPreparedUser(tx, deps, prepared, by)));
}

export interface PreparedUser {
  readonly username: string;
  readonly email: { readonly email: string; readonly emailKey: string };
  readonly password: StoredPassword;
  readonly approval: Approval;
  readonly roles: readonly string[];
}

/** Checks a new user and hashes the password: everything that should happen before a transaction begins. */
export async function prepareUser(deps: UserDeps, input: NewUser): Promise<PreparedUser> {
  const username = requireUsername(input.username);
  const email = requireEmail(input.email);
  const approval = await assertPasswordAllowed(deps, input.password, { username, email: email.email });
  return { username, email, password: await hashPassword(deps, input.password), approval, roles: input.roles };
}

export async function insertPreparedUser(tx: Tx, deps: UserDeps, user: PreparedUser, by: Actor): Promise<UserView> {
  const now = deps.clock.now();
  const id = deps.random.id(now);
  await assertRolesExist(tx, user.roles);
  assertMayGive(by, permissionsOf(await listAllRoles(tx), user.roles));
  const row = {
    id,
    username: user.username,
    ...user.email,
    emailVerifiedAt: now,
    status: "active" as const,
    createdAt: now,
    updatedAt: now,
  };
  await insertUser(tx, row).catch(explainConflict);
  await keepPassword(tx, deps, id, user.password, now, now);
  await replaceUserRoles(tx, id, user.roles, now);
  await record(tx, deps, "user.created", id, by, { roles: user.roles });
  await recordApproval(tx, deps, user.approval, { subject: { kind: "user", id }, ...by });
  return viewOf(await requireUser(tx, id));
}
