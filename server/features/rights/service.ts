/** A permission is "resource:action"; either side may be "*". */
const PERMISSION = /^(\*|[a-z][a-z0-9_-]{0,62}):(\*|[a-z][a-z0-9_-]{0,62})$/;

/** One thing, or everything under it: "tenants/acme", "orders/17". Segments of letters, digits and some signs. */
const RESOURCE = /^[\w~@:.-]{1,128}(\/[\w~@:.-]{1,128}){0,9}$/;

/** Every permission that primer itself asks for, with what it allows. Services ask for others of their own. */
export const PERMISSIONS = {
  "*:*": "Everything.",
  "users:read": "See all users, and what they may do.",
  "users:write": "Create, change, disable and erase users who may do no more than oneself.",
  "roles:read": "See all roles and permissions.",
  "roles:write": "Create and change roles, and give them to users; never more than one may do oneself.",
  "sessions:read": "See where other users are logged in.",
  "sessions:revoke": "Log other users out.",
  "clients:read": "See the service clients.",
  "clients:write": "Register service clients, and replace their secrets.",
  "jobs:read": "See background jobs; never what they carry.",
  "jobs:retry": "Have background jobs tried again.",
  "audit:read": "See and export the audit log.",
  "reports:read": "Get the daily report and alerts by mail.",
  "monitoring:read": "See health, breakers and counts.",
} as const;

/** A role on one thing, and what it allows there. */
export interface ScopedRights {
  readonly resource: string;
  readonly permissions: readonly string[];
}

/** What somebody may do: everywhere, and on single things. */
export interface Rights {
  readonly permissions: readonly string[];
  readonly grants?: readonly ScopedRights[];
}

/** Who acts: resolved from a token and the session's row at every request, never from the token alone. */
export interface Principal extends Rights {
  readonly kind: "user";
  readonly id: string;
  readonly username: string;
  /** Null for a token of the service that was there before: it has none here. */
  readonly sessionId: string | null;
  readonly roles: readonly string[];
  readonly amr: readonly string[];
  readonly authTime: Date;
}

export const isPermission = (text: string): boolean => PERMISSION.test(text);

/** Whether a text names a thing. Never with "." or ".." as a segment: what it means must not depend on who reads it. */
export const isResource = (text: string): boolean =>
  RESOURCE.test(text) && !text.split("/").some((segment) => segment === "." || segment === "..");

/** Whether one of these permissions covers another, which may have wildcards itself. */
function covers(permissions: readonly string[], wanted: string): boolean {
  const [resource, action] = wanted.split(":");
  return permissions.some((given) => {
    if (!isPermission(given)) return false;
    const [givenResource, givenAction] = given.split(":");
    const fits = (have: string | undefined, want: string | undefined) => have === "*" || have === want;
    return fits(givenResource, resource) && fits(givenAction, action);
  });
}

/**
 * The one place where it is decided whether somebody may do something: everywhere, or on the thing named. What is
 * malformed is never granted.
 */
export function can({ permissions, grants = [] }: Rights, permission: string, resource?: string): boolean {
  if (!isPermission(permission)) return false;
  if (resource !== undefined && !isResource(resource)) return false;
  if (covers(permissions, permission)) return true;
  if (resource === undefined) return false;
  return grants.some(
    (grant) =>
      (resource === grant.resource || resource.startsWith(`${grant.resource}/`)) &&
      covers(grant.permissions, permission),
  );
}
