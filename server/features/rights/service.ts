/** A permission is "resource:action"; either side may be "*". */
const PERMISSION = /^(\*|[a-z][a-z0-9_-]{0,62}):(\*|[a-z][a-z0-9_-]{0,62})$/;

/** Who acts: resolved from a token and the session's row at every request, never from the token alone. */
export interface Principal {
  readonly kind: "user";
  readonly id: string;
  readonly username: string;
  /** Null for a token of the service that was there before: it has none here. */
  readonly sessionId: string | null;
  readonly roles: readonly string[];
  readonly permissions: readonly string[];
  readonly amr: readonly string[];
  readonly authTime: Date;
}

export const isPermission = (text: string): boolean => PERMISSION.test(text);

/** The one place where it is decided whether somebody may do something. A malformed permission is never granted. */
export function can(principal: Pick<Principal, "permissions">, permission: string): boolean {
  if (!isPermission(permission)) return false;
  const [resource, action] = permission.split(":");
  return principal.permissions.some((granted) => {
    if (!isPermission(granted)) return false;
    const [grantedResource, grantedAction] = granted.split(":");
    const fits = (have: string | undefined, want: string | undefined) => have === "*" || have === want;
    return fits(grantedResource, resource) && fits(grantedAction, action);
  });
}
