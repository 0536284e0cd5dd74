import type { SessionWithUser } from "../../../db/queries/sessions.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import type { Principal } from "../rights/service.ts";
import { type AccessTokenClaims, verifyAccessToken } from "../tokens/service.ts";

export type Authenticated = {
  readonly principal: Principal;
  readonly claims: AccessTokenClaims;
};

/** RFC 6750, section 2.1: the token of an Authorization header. @throws AppError AUTH_TOKEN_MISSING */
export function bearerToken(authorization: string | null): string {
  const token = authorization && /^Bearer +(\S+)$/i.exec(authorization)?.[1];
  if (!token) throw new AppError("AUTH_TOKEN_MISSING");
  return token;
}

/**
 * Who a bearer token speaks for, as of now: the token must verify, and its session must still count.
 *
 * @throws AppError AUTH_TOKEN_MISSING, AUTH_TOKEN_INVALID, AUTH_TOKEN_EXPIRED or AUTH_TOKEN_REVOKED
 */
export async function authenticate(deps: Deps, authorization: string | null): Promise<Authenticated> {
  const claims = await verifyAccessToken(deps, bearerToken(authorization));
  const found = await deps.sessions.find(deps.db.orm, claims.sid);
  if (!found || found.user.id !== claims.sub) {
    throw new AppError("AUTH_TOKEN_REVOKED", { internal: "The session is gone or another user's" });
  }
  assertAlive(deps, found);
  return { claims, principal: principalOf(found) };
}

function assertAlive(deps: Deps, { session, user }: SessionWithUser): void {
  if (session.revokedAt || user.status !== "active" || deps.clock.now() >= session.expiresAt) {
    throw new AppError("AUTH_TOKEN_REVOKED", { internal: session.revokedReason ?? user.status });
  }
}

const principalOf = ({ session, user, roles, permissions }: SessionWithUser): Principal => ({
  kind: "user",
  id: user.id,
  username: user.username,
  sessionId: session.id,
  roles,
  permissions,
  amr: session.amr,
  authTime: session.authTime,
});
