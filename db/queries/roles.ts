import { and, asc, desc, eq, gt, isNull, lt, or, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import { invitations } from "../schema/invitations.ts";
import { resourceGrants, roleInclusions, rolePermissions, roles, userRoles } from "../schema/users.ts";

export type RoleRow = typeof roles.$inferSelect;

/** A role with what it gives by itself, and the roles that it includes. */
export interface RoleWithRights {
  readonly role: RoleRow;
  readonly permissions: readonly string[];
  readonly includes: readonly string[];
}

const withRights = {
  role: roles,
  permissions: sql<string[]>`(
    SELECT coalesce(json_agg(rp.permission ORDER BY rp.permission), '[]'::json)
    FROM role_permissions rp WHERE rp.role = roles.name
  )`,
  includes: sql<string[]>`(
    SELECT coalesce(json_agg(ri.includes ORDER BY ri.includes), '[]'::json)
    FROM role_inclusions ri WHERE ri.role = roles.name
  )`,
};

export async function findRole(tx: Reader, name: string): Promise<RoleWithRights | undefined> {
  const [row] = await tx.select(withRights).from(roles).where(eq(roles.name, name));
  return row;
}

/** Newest first, of one age by name; from after the one given on. */
export function listRoles(tx: Reader, { limit, after }: { limit: number; after?: RoleRow }): Promise<RoleWithRights[]> {
  const isLater =
    after &&
    or(lt(roles.createdAt, after.createdAt), and(eq(roles.createdAt, after.createdAt), gt(roles.name, after.name)));
  return tx.select(withRights).from(roles).where(isLater).orderBy(desc(roles.createdAt), asc(roles.name)).limit(limit);
}

export const listAllRoles = (tx: Reader): Promise<RoleWithRights[]> => tx.select(withRights).from(roles);

/** The same, locked until the transaction ends, so that two changes at once cannot close a circle. */
export async function lockRoles(tx: Tx): Promise<RoleWithRights[]> {
  await tx.select({ name: roles.name }).from(roles).orderBy(roles.name).for("update");
  return listAllRoles(tx);
}

export const insertRole = (tx: Tx, row: typeof roles.$inferInsert) => tx.insert(roles).values(row);

export const updateRole = (tx: Tx, name: string, change: Pick<RoleRow, "description" | "updatedAt">) =>
  tx.update(roles).set(change).where(eq(roles.name, name));

/** Gives a role exactly these permissions and included roles. */
export async function replaceRoleRights(
  tx: Tx,
  role: string,
  { permissions, includes }: Pick<RoleWithRights, "permissions" | "includes">,
): Promise<void> {
  await tx.delete(rolePermissions).where(eq(rolePermissions.role, role));
  await tx.delete(roleInclusions).where(eq(roleInclusions.role, role));
  if (permissions.length > 0) {
    await tx.insert(rolePermissions).values(permissions.map((permission) => ({ role, permission })));
  }
  if (includes.length > 0) await tx.insert(roleInclusions).values(includes.map((name) => ({ role, includes: name })));
}

/** How many hold a role or are to: users, everywhere or on single things, roles that include it, and the invited. */
export async function countUses(tx: Tx, role: string, now: Date): Promise<number> {
  const count = { count: sql<number>`count(*)::int` };
  const uses = [
    ...(await tx.select(count).from(userRoles).where(eq(userRoles.role, role))),
    ...(await tx.select(count).from(resourceGrants).where(eq(resourceGrants.role, role))),
    ...(await tx.select(count).from(roleInclusions).where(eq(roleInclusions.includes, role))),
    ...(await tx
      .select(count)
      .from(invitations)
      .where(
        and(
          isNull(invitations.usedAt),
          gt(invitations.expiresAt, now),
          sql`${invitations.roles} @> to_jsonb(${role}::text)`,
        ),
      )),
  ];
  return uses.reduce((sum, use) => sum + use.count, 0);
}

export const deleteRole = (tx: Tx, name: string) => tx.delete(roles).where(eq(roles.name, name));
