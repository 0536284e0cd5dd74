import type { Tx } from "../../../db/database.ts";
import { violatedUniqueness } from "../../../db/errors.ts";
import { deleteDevicesOf } from "../../../db/queries/devices.ts";
import { listAllRoles } from "../../../db/queries/roles.ts";
import { revokeSessions } from "../../../db/queries/sessions.ts";
import {
  countActiveHolders,
  findUser,
  insertUser,
  listGrants,
  listRoleNames,
  listUsers,
  replaceGrants,
  replaceUserRoles,
  type UserRow,
  type UserWithRights,
  updateUser,
  upsertPassword,
} from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { isId } from "../../ports/random.ts";
import { type AuditAction, audit } from "../audit/service.ts";
import { queueMail } from "../mail/service.ts";
import {
  type Approval,
  assertPasswordAllowed,
  hashPassword,
  recordApproval,
  type StoredPassword,
} from "../passwords/service.ts";
import { clearFailures } from "../protection/service.ts";
import { isResource, type Rights } from "../rights/service.ts";
import { assertMayGive, permissionsOf } from "../roles/service.ts";
import { parseEmail, parseUsername } from "./names.ts";

export { parseEmail, parseIdentifier, parseUsername } from "./names.ts";

export const ADMIN_ROLE = "admin";

/** What services need of the process to work with users; no server has to run. */
export type UserDeps = Pick<
  Deps,
  "db" | "jobs" | "clock" | "random" | "settings" | "secrets" | "hashPool" | "breachCheck"
>;

/** Who changes something: in the audit log's words, from where, and with which rights of their own to give. */
export type Actor = { readonly caller?: Caller } & (
  | { readonly actor: { readonly kind: "user"; readonly id: string }; readonly rights: Rights }
  /** Whoever is at the machine, or primer itself: they may do anything. */
  | { readonly actor: { readonly kind: "operator" | "system" }; readonly rights?: undefined }
);

/** A user as the API and the command line show it. */
export interface UserView {
  readonly id: string;
  readonly username: string;
  readonly email: string;
  readonly email_verified: boolean;
  readonly status: UserRow["status"];
  readonly roles: readonly string[];
  readonly created_at: string;
  readonly updated_at: string;
  readonly last_login_at: string | null;
}

export const viewOf = ({ user, roles }: Pick<UserWithRights, "user" | "roles">): UserView => ({
  id: user.id,
  username: user.username,
  email: user.email,
  email_verified: user.emailVerifiedAt !== null,
  status: user.status,
  roles,
  created_at: user.createdAt.toISOString(),
  updated_at: user.updatedAt.toISOString(),
  last_login_at: user.lastLoginAt?.toISOString() ?? null,
});

export interface NewUser {
  readonly username: string;
  readonly email: string;
  readonly password: string;
  readonly roles: readonly string[];
}

export const invalidField = (path: string, message: string) =>
  new AppError("VALIDATION_FAILED", { details: { fields: [{ path, message }] } });

export const USERNAME_RULE = "2 to 64 of a-z, 0-9, dot, underscore and hyphen, starting with a letter or digit";

/**
 * Creates an active user with a verified address: for administrators and the command line.
 *
 * @throws AppError VALIDATION_FAILED, PASSWORD_TOO_WEAK, or CONFLICT with `details.field`
 */
export async function createUser(deps: UserDeps, input: NewUser, by: Actor): Promise<UserView> {
  const prepared = await prepareUser(deps, input);
  return deps.db.transaction((tx) => insertPreparedUser(tx, deps, prepared, by));
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
  const username = parseUsername(input.username);
  if (!username) throw invalidField("username", USERNAME_RULE);
  const email = parseEmail(input.email);
  if (!email) throw invalidField("email", "An e-mail address such as ada@example.org");
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
  await record(tx, deps, "user.created", id, by, { username: user.username, roles: user.roles });
  await recordApproval(tx, deps, user.approval, { subject: { kind: "user", id }, ...by });
  return viewOf(await requireUser(tx, id));
}

export function explainConflict(error: unknown): never {
  const constraint = violatedUniqueness(error);
  if (constraint === "users_username_key") throw new AppError("CONFLICT", { details: { field: "username" } });
  if (constraint === "users_email_key") throw new AppError("CONFLICT", { details: { field: "email" } });
  throw error;
}

async function assertRolesExist(tx: Tx, names: readonly string[]): Promise<void> {
  const known = await listRoleNames(tx);
  const missing = names.filter((name) => !known.includes(name));
  if (missing.length > 0) {
    throw invalidField("roles", `There is no role ${missing.join(", ")}; there are ${known.join(", ")}`);
  }
}

/** `since` is when the user was made: a password that came later shows by being newer than that. */
const keepPassword = (tx: Tx, deps: UserDeps, userId: string, password: StoredPassword, since: Date, now: Date) =>
  upsertPassword(tx, {
    id: deps.random.id(now),
    userId,
    kind: "password",
    ...password,
    createdAt: since,
    updatedAt: now,
  });

export async function requireUser(tx: Tx, id: string): Promise<UserWithRights> {
  const found = isId(id) ? await findUser(tx, { id }) : undefined;
  if (!found) throw new AppError("NOT_FOUND");
  return found;
}

async function userAt({ db }: UserDeps, cursor: string): Promise<UserWithRights> {
  const found = isId(cursor) ? await findUser(db.orm, { id: cursor }) : undefined;
  if (!found) throw invalidField("cursor", "Expected the next_cursor of a page");
  return found;
}

/** Newest first. `after` is the id of the last user of the page before. @throws AppError VALIDATION_FAILED */
export async function listUserPage(deps: UserDeps, page: { limit: number; search?: string; after?: string }) {
  const last = page.after === undefined ? undefined : await userAt(deps, page.after);
  const rows = await listUsers(deps.db.replica, {
    limit: page.limit + 1,
    ...(page.search === undefined ? {} : { search: page.search.toLowerCase() }),
    ...(last ? { after: last.user } : {}),
  });
  const shown = rows.slice(0, page.limit).map(viewOf);
  return { data: shown, next_cursor: rows.length > page.limit ? (shown.at(-1)?.id ?? null) : null };
}

/** The user that somebody names by id, user name or e-mail address. @throws AppError NOT_FOUND */
export async function findUserByAny(deps: UserDeps, text: string): Promise<UserView> {
  const email = parseEmail(text);
  const username = parseUsername(text);
  const by = isId(text.toLowerCase())
    ? { id: text.toLowerCase() }
    : email
      ? { emailKey: email.emailKey }
      : { username: username ?? "" };
  const found = await findUser(deps.db.orm, by);
  if (!found) throw new AppError("NOT_FOUND");
  return viewOf(found);
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

/**
 * Sets a new password; every session ends with it, and the owner is told by mail, in the same transaction.
 *
 * @throws AppError NOT_FOUND or PASSWORD_TOO_WEAK
 */
export async function setPassword(deps: UserDeps, id: string, password: string, by: Actor): Promise<UserView> {
  const { user } = await requireUser(deps.db.orm, id);
  const approval = await assertPasswordAllowed(deps, password, user);
  const stored = await hashPassword(deps, password);
  const now = deps.clock.now();
  return deps.db.change(async (tx) => {
    await requireUser(tx, id);
    await updateUser(tx, id, { passwordChangeRequired: false, updatedAt: now });
    await keepPassword(tx, deps, id, stored, user.createdAt, now);
    await clearFailures(tx, id);
    await deleteDevicesOf(tx, id);
    const ended = await revokeSessions(tx, { userId: id }, "password_changed", now);
    await record(tx, deps, "password.changed", id, by, { sessions_ended: ended.length });
    await recordApproval(tx, deps, approval, { subject: { kind: "user", id }, ...by });
    const request_id = by.caller?.requestId ?? null;
    await queueMail(tx, deps, { template: "password_changed", user_id: id, request_id });
    return viewOf(await requireUser(tx, id));
  });
}

/** What a user is given: roles everywhere, and roles on single things. */
export interface GivenRoles {
  readonly roles: readonly string[];
  /** Where nothing is said, they stay as they are. */
  readonly grants?: readonly { readonly role: string; readonly resource: string }[];
}

/**
 * Gives a user exactly these roles; in effect at the next request of any of their tokens.
 *
 * @throws AppError NOT_FOUND, VALIDATION_FAILED for an unknown role or what names no thing, FORBIDDEN beyond one's own
 * rights, CONFLICT for the last active administrator
 */
export async function setRoles(deps: UserDeps, id: string, given: GivenRoles, by: Actor): Promise<UserView> {
  const now = deps.clock.now();
  const wanted = [...new Set(given.roles)].sort();
  return deps.db.change(async (tx) => {
    const before = await requireUser(tx, id);
    const grants = given.grants ?? (await listGrants(tx, id));
    const malformed = grants.find(({ resource }) => !isResource(resource));
    if (malformed) throw invalidField("grants", `Expected things such as tenants/acme, not ${malformed.resource}`);
    const named = [...wanted, ...grants.map(({ role }) => role)];
    await assertRolesExist(tx, named);
    await assertMayManage(tx, id, by);
    const all = await listAllRoles(tx);
    assertMayGive(by, permissionsOf(all, wanted));
    for (const { role, resource } of grants) assertMayGive(by, permissionsOf(all, [role]), resource);
    if (!wanted.includes(ADMIN_ROLE)) await assertAdministratorRemains(tx, before);
    await replaceUserRoles(tx, id, wanted, now);
    await replaceGrants(tx, id, grants, now);
    await updateUser(tx, id, { updatedAt: now });
    const to = { roles: wanted, grants: grants.map(({ role, resource }) => ({ role, resource })) };
    await record(tx, deps, "user.roles_changed", id, by, { from: before.roles, ...to });
    return viewOf(await requireUser(tx, id));
  });
}

/**
 * Nobody changes a user who may do more than they: else a new address or password would be a way to those rights.
 *
 * @throws AppError FORBIDDEN with `details.permission`, NOT_FOUND
 */
export async function assertMayManage(tx: Tx, id: string, by: Actor): Promise<void> {
  if (!by.rights) return;
  assertMayGive(by, (await requireUser(tx, id)).permissions);
  for (const { permissions, resource } of await listGrants(tx, id)) assertMayGive(by, permissions, resource);
}

export async function assertAdministratorRemains(tx: Tx, { user, roles }: UserWithRights): Promise<void> {
  if (user.status !== "active" || !roles.includes(ADMIN_ROLE)) return;
  if ((await countActiveHolders(tx, ADMIN_ROLE)) > 1) return;
  throw new AppError("CONFLICT", { internal: "The last administrator", details: { reason: "last_administrator" } });
}

export const record = (tx: Tx, deps: UserDeps, action: AuditAction, userId: string, by: Actor, details: object) =>
  audit(tx, deps, {
    action,
    outcome: "success",
    subject: { kind: "user", id: userId },
    details: { ...details },
    ...by,
  });
