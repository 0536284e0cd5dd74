import type { Tx } from "../../../db/database.ts";
import { violatedUniqueness } from "../../../db/errors.ts";
import {
  countUses,
  deleteRole as deleteRoleRow,
  findRole,
  insertRole,
  listAllRoles,
  listRoles,
  lockRoles,
  type RoleWithRights,
  replaceRoleRights,
  updateRole as updateRoleRow,
} from "../../../db/queries/roles.ts";
import type { Deps } from "../../deps.ts";
import { AppError, invalidField } from "../../errors.ts";
import { assertUnchanged } from "../../etag.ts";
import { badCursor, type Page, type PageAsked, pageOf } from "../../page.ts";
import { type AuditAction, audit } from "../audit/service.ts";
import { eachTime, type Once } from "../idempotency/service.ts";
import { can, isPermission, PERMISSIONS } from "../rights/service.ts";
import type { Actor } from "../users/service.ts";

export type RoleDeps = Pick<Deps, "db" | "clock" | "random">;

/** A role as the API and the command line show it. */
export interface RoleView {
  readonly name: string;
  readonly description: string;
  /** What it gives by itself. */
  readonly permissions: readonly string[];
  /** Roles that it gives everything of as well. */
  readonly includes: readonly string[];
  /** Whether it came with primer: such a role is never deleted, and `admin` never changed. */
  readonly built_in: boolean;
  readonly created_at: string;
  readonly updated_at: string;
}

export interface RoleContent {
  readonly description: string;
  readonly permissions: readonly string[];
  readonly includes: readonly string[];
}

const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;
const NAME_RULE = "1 to 63 of a-z, 0-9, dot, underscore and hyphen, starting with a letter or digit";
/** So that whoever reads rights reads a bounded number. */
const MAX_ROLES = 1000;
const ADMIN_ROLE = "admin";

export const viewOf = ({ role, permissions, includes }: RoleWithRights): RoleView => ({
  name: role.name,
  description: role.description,
  permissions,
  includes,
  built_in: role.builtIn,
  created_at: role.createdAt.toISOString(),
  updated_at: role.updatedAt.toISOString(),
});

const conflict = (reason: string) => new AppError("CONFLICT", { details: { reason } });

/** Newest first. The cursor is the name of the last one of the page before. @throws AppError VALIDATION_FAILED */
export async function listRolePage(deps: Pick<Deps, "db">, { limit, cursor }: PageAsked): Promise<Page<RoleView>> {
  const last = cursor === undefined ? undefined : await findRole(deps.db.orm, cursor);
  if (cursor !== undefined && !last) throw badCursor();
  const rows = await listRoles(deps.db.replica, { limit: limit + 1, ...(last ? { after: last.role } : {}) });
  return pageOf(rows.map(viewOf), limit, ({ name }) => name);
}

/** @throws AppError NOT_FOUND */
export async function getRole(deps: Pick<Deps, "db">, name: string): Promise<RoleView> {
  const found = await findRole(deps.db.orm, name);
  if (!found) throw new AppError("NOT_FOUND");
  return viewOf(found);
}

/** Every permission that primer asks for or some role gives, by name; those of others without a description. */
export async function listPermissions(deps: Pick<Deps, "db">) {
  const given = (await listAllRoles(deps.db.replica)).flatMap(({ permissions }) => permissions);
  const names = [...new Set([...Object.keys(PERMISSIONS), ...given])].sort();
  const described: Readonly<Record<string, string>> = PERMISSIONS;
  return { data: names.map((permission) => ({ permission, description: described[permission] ?? null })) };
}

/** Everything that a role gives, with those that it includes. */
export const rightsOfRole = async (deps: Pick<Deps, "db">, name: string) =>
  permissionsOf(await listAllRoles(deps.db.orm), [name]);

/** Everything that roles give, with those that they include. */
export function permissionsOf(all: readonly RoleWithRights[], names: readonly string[]): string[] {
  const byName = new Map(all.map((entry) => [entry.role.name, entry]));
  const held = new Set(names);
  // A set that grows while it is walked is walked to its end.
  for (const name of held) for (const included of byName.get(name)?.includes ?? []) held.add(included);
  return [...new Set([...held].flatMap((name) => byName.get(name)?.permissions ?? []))].sort();
}

/**
 * Nobody gives what they do not have themselves, everywhere or on the thing named; and nobody changes who has more.
 *
 * @throws AppError FORBIDDEN with `details.permission`, the first one that is missing
 */
export function assertMayGive({ rights }: Actor, permissions: readonly string[], resource?: string): void {
  const beyond = rights && permissions.find((permission) => !can(rights, permission, resource));
  if (beyond !== undefined) throw new AppError("FORBIDDEN", { details: { permission: beyond } });
}

/**
 * Makes a role; in effect for whoever is given it.
 *
 * @throws AppError VALIDATION_FAILED, CONFLICT with `details.field` for a taken name, FORBIDDEN beyond one's own rights
 */
export async function createRole(
  deps: RoleDeps,
  name: string,
  content: RoleContent,
  by: Actor,
  once: Once = eachTime,
): Promise<RoleView> {
  return deps.db.change((tx) => once(tx, async () => viewOf(await insertNewRole(tx, deps, name, content, by))));
}

async function insertNewRole(tx: Tx, deps: RoleDeps, name: string, content: RoleContent, by: Actor) {
  if (!NAME.test(name)) throw invalidField("name", NAME_RULE);
  const all = await lockRoles(tx);
  if (all.length >= MAX_ROLES) throw conflict("too_many_roles");
  if (all.some(({ role }) => role.name === name)) throw new AppError("CONFLICT", { details: { field: "name" } });
  const now = deps.clock.now();
  const role = { name, description: content.description, builtIn: false, createdAt: now, updatedAt: now };
  const made = { role, ...checked(content, name, all) };
  assertMayGive(by, permissionsOf([...all, made], [name]));
  await insertRole(tx, role).catch((error) => {
    if (violatedUniqueness(error) === "roles_pkey") throw new AppError("CONFLICT", { details: { field: "name" } });
    throw error;
  });
  await replaceRoleRights(tx, name, made);
  await record(tx, deps, "role.created", name, by, { permissions: made.permissions, includes: made.includes });
  return made;
}

/**
 * Changes the fields given; in effect at the next request of whoever holds the role.
 *
 * @param ifMatch see {@link assertUnchanged}
 * @throws AppError NOT_FOUND, VALIDATION_FAILED, PRECONDITION_FAILED, FORBIDDEN beyond one's own rights, CONFLICT for `admin`
 */
export async function changeRole(
  deps: RoleDeps,
  name: string,
  change: Partial<RoleContent>,
  by: Actor,
  ifMatch: string | null = null,
): Promise<RoleView> {
  return deps.db.change(async (tx) => viewOf(await updateKnownRole(tx, deps, name, change, by, ifMatch)));
}

async function updateKnownRole(
  tx: Tx,
  deps: RoleDeps,
  name: string,
  change: Partial<RoleContent>,
  by: Actor,
  ifMatch: string | null,
): Promise<RoleWithRights> {
  const all = await lockRoles(tx);
  const before = all.find(({ role }) => role.name === name);
  if (!before) throw new AppError("NOT_FOUND");
  assertUnchanged(ifMatch, viewOf(before));
  if (name === ADMIN_ROLE) throw conflict("built_in");
  const { description } = before.role;
  const content = { description, permissions: before.permissions, includes: before.includes, ...change };
  const rights = checked(content, name, all);
  const after = { ...before, ...rights };
  assertMayGive(by, permissionsOf(all, [name]));
  assertMayGive(by, permissionsOf([...all.filter((entry) => entry !== before), after], [name]));
  const role = { ...before.role, description: content.description, updatedAt: deps.clock.now() };
  await updateRoleRow(tx, name, role);
  await replaceRoleRights(tx, name, rights);
  await record(tx, deps, "role.changed", name, by, {
    from: { permissions: before.permissions, includes: before.includes },
    to: rights,
  });
  return { ...after, role };
}

/** What a role is to give, sorted and without repetition. @throws AppError VALIDATION_FAILED */
function checked(content: RoleContent, name: string, all: readonly RoleWithRights[]) {
  const malformed = content.permissions.find((permission) => !isPermission(permission));
  if (malformed !== undefined) {
    throw invalidField("permissions", `Expected permissions such as orders:read or orders:*, not ${malformed}`);
  }
  const known = new Set(all.map(({ role }) => role.name));
  const unknown = content.includes.find((included) => !known.has(included));
  if (unknown !== undefined) throw invalidField("includes", `There is no role ${unknown}`);
  const includes = [...new Set(content.includes)].sort();
  assertNoCircle(name, includes, all);
  return { permissions: [...new Set(content.permissions)].sort(), includes };
}

function assertNoCircle(name: string, includes: readonly string[], all: readonly RoleWithRights[]): void {
  const byName = new Map(all.map((entry) => [entry.role.name, entry.includes]));
  const reached = new Set(includes);
  for (const included of reached) for (const next of byName.get(included) ?? []) reached.add(next);
  if (reached.has(name)) throw invalidField("includes", "A role cannot include itself, nor one that includes it");
}

/** Deletes a role that nobody has. @throws AppError NOT_FOUND, CONFLICT where it is built in or given to somebody */
export async function deleteRole(
  deps: RoleDeps,
  name: string,
  by: Actor,
  ifMatch: string | null = null,
): Promise<void> {
  await deps.db.change(async (tx) => {
    const all = await lockRoles(tx);
    const found = all.find(({ role }) => role.name === name);
    if (!found) throw new AppError("NOT_FOUND");
    assertUnchanged(ifMatch, viewOf(found));
    if (found.role.builtIn) throw conflict("built_in");
    if ((await countUses(tx, name, deps.clock.now())) > 0) throw conflict("in_use");
    assertMayGive(by, permissionsOf(all, [name]));
    await deleteRoleRow(tx, name);
    await record(tx, deps, "role.deleted", name, by, { permissions: found.permissions, includes: found.includes });
  });
}

/** How a role in the file differs from the one here. */
export interface RoleChange {
  readonly role: string;
  readonly change: "create" | "update" | "none";
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

/**
 * Makes roles be what a file says, all of them or none; roles that it does not name stay as they are.
 *
 * @param dryRun only tells what would change
 * @throws AppError as {@link createRole} and {@link changeRole}
 */
export async function applyRoles(
  deps: RoleDeps,
  wanted: ReadonlyMap<string, RoleContent>,
  by: Actor,
  dryRun: boolean,
): Promise<RoleChange[]> {
  const changes: RoleChange[] = [];
  class RolledBack extends Error {}
  await deps.db
    .change(async (tx) => {
      for (const [name, content] of inOrder(wanted)) changes.push(await applyRole(tx, deps, name, content, by));
      if (dryRun) throw new RolledBack();
    })
    .catch((error) => {
      if (!(error instanceof RolledBack)) throw error;
    });
  return changes;
}

async function applyRole(tx: Tx, deps: RoleDeps, name: string, content: RoleContent, by: Actor): Promise<RoleChange> {
  const before = await findRole(tx, name);
  const entries = (from: Pick<RoleContent, "permissions" | "includes">) => [
    ...from.permissions,
    ...from.includes.map((included) => `includes ${included}`),
  ];
  const [had, has] = [before ? entries(before) : [], entries(content)];
  const added = has.filter((entry) => !had.includes(entry));
  const removed = had.filter((entry) => !has.includes(entry));
  if (!before) await insertNewRole(tx, deps, name, content, by);
  else if (added.length + removed.length === 0 && before.role.description === content.description) {
    return { role: name, change: "none", added, removed };
  } else await updateKnownRole(tx, deps, name, content, by, null);
  return { role: name, change: before ? "update" : "create", added, removed };
}

/** Included roles before those that include them, so that each is there when it is named. */
function inOrder(wanted: ReadonlyMap<string, RoleContent>): [string, RoleContent][] {
  const done = new Map<string, RoleContent>();
  const visit = (name: string, path: readonly string[]) => {
    const content = wanted.get(name);
    if (!content || done.has(name) || path.includes(name)) return;
    for (const included of content.includes) visit(included, [...path, name]);
    done.set(name, content);
  };
  for (const name of wanted.keys()) visit(name, []);
  return [...done];
}

const record = (tx: Tx, deps: RoleDeps, action: AuditAction, id: string, by: Actor, details: object) =>
  audit(tx, deps, { action, outcome: "success", subject: { kind: "role", id }, details: { ...details }, ...by });
