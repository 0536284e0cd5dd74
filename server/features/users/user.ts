import type { Tx } from "../../../db/database.ts";
import { violatedUniqueness } from "../../../db/errors.ts";
import { deleteTokensOf } from "../../../db/queries/single-use-tokens.ts";
import {
  countActiveHolders,
  deleteUnconfirmed,
  findUser,
  listGrants,
  listRoleNames,
  lockUser,
  type UserRow,
  type UserWithRights,
} from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError, invalidField } from "../../errors.ts";
import { isId } from "../../ports/random.ts";
import { type AuditAction, auditStatement, forgetFirst } from "../audit/service.ts";
import type { Rights } from "../rights/service.ts";
import { assertMayGive } from "../roles/service.ts";

export const ADMIN_ROLE = "admin";

/** An account that nobody has verified is kept for so long, and with it nobody else gets its user name (milliseconds). */
export const UNVERIFIED_KEPT_MS = 24 * 3_600_000;

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

export function explainConflict(error: unknown): never {
  const constraint = violatedUniqueness(error);
  if (constraint === "users_username_key") throw new AppError("CONFLICT", { details: { field: "username" } });
  if (constraint === "users_email_key") throw new AppError("CONFLICT", { details: { field: "email" } });
  throw error;
}

export async function assertRolesExist(tx: Tx, names: readonly string[]): Promise<void> {
  const known = await listRoleNames(tx);
  const missing = names.filter((name) => !known.includes(name));
  if (missing.length > 0) {
    throw invalidField("roles", `There is no role ${missing.join(", ")}; there are ${known.join(", ")}`);
  }
}

export async function requireUser(tx: Tx, id: string): Promise<UserWithRights> {
  const found = isId(id) ? await findUser(tx, { id }) : undefined;
  if (!found) throw new AppError("NOT_FOUND");
  return found;
}

/** The same, with the row locked until the transaction ends. @throws AppError NOT_FOUND */
export async function requireLocked(tx: Tx, id: string): Promise<UserWithRights> {
  const found = isId(id) ? await lockUser(tx, id) : undefined;
  if (!found) throw new AppError("NOT_FOUND");
  return found;
}

/** What was mailed to somebody opens nothing any more; the link that a registration waits for stays. */
export const endLinks = (tx: Tx, { id, status }: UserRow) =>
  deleteTokensOf(tx, id, ["reset_password", "change_password", ...(status === "pending" ? [] : ["verify_email"])]);

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

/** A registration that nobody has confirmed makes room. What the log has of whoever made it says no more from where they came. */
export async function removeUnconfirmed(tx: Tx, deps: UserDeps, userId: string): Promise<void> {
  // Confirmed at this moment, it is somebody's: then its name or address is taken.
  if (!(await deleteUnconfirmed(tx, userId))) return;
  await recordErasure(tx, deps, userId, { actor: { kind: "system" } }, { reason: "not_confirmed" });
}

/** The last event of a user, after which nothing in the log says from where they came. The row is gone, or empty, by then. */
export async function recordErasure(tx: Tx, deps: UserDeps, userId: string, by: Actor, details: object): Promise<void> {
  await record(tx, deps, "user.erased", userId, by, details);
  await forgetFirst(tx, userId);
}

export const record = async (...recorded: Parameters<typeof recordStatement>): Promise<void> => {
  await recordStatement(...recorded);
};

/** The same as a statement, for whoever sends it with the commit. */
export const recordStatement = (
  tx: Tx,
  deps: UserDeps,
  action: AuditAction,
  userId: string,
  by: Actor,
  details: object,
) =>
  auditStatement(tx, deps, {
    action,
    outcome: "success",
    subject: { kind: "user", id: userId },
    details: { ...details },
    ...by,
  });
