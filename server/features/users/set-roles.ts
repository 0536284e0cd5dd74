import { listAllRoles } from "../../../db/queries/roles.ts";
import { listGrants, replaceGrants, replaceUserRoles, updateUser } from "../../../db/queries/users.ts";
import { invalidField } from "../../errors.ts";
import { isResource } from "../rights/service.ts";
import { assertMayGive, permissionsOf } from "../roles/service.ts";
import {
  type Actor,
  ADMIN_ROLE,
  assertAdministratorRemains,
  assertMayManage,
  assertRolesExist,
  record,
  requireLocked,
  requireUser,
  type UserDeps,
  type UserView,
  viewOf,
} from "./user.ts";

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
    const before = await requireLocked(tx, id);
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
