import type { SessionWithUser } from "../../../db/queries/sessions.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import type { Principal } from "../rights/service.ts";
import { type AccessTokenClaims, hashSecret, sameText, verifyAccessToken } from "../tokens/service.ts";

export type Authenticated = {
  readonly principal: Principal;
  readonly claims: AccessTokenClaims;
};

/** What a request shows of who sends it. */
export interface Shown {
  /** The Authorization header. */
  readonly authorization: string | null;
  /** The random value that the browser keeps in a cookie. */
  readonly fingerprint: string | null;
}

/** RFC 6750, section 2.1: the token of an Authorization header. @throws AppError AUTH_TOKEN_MISSING */
export function bearerToken(authorization: string | null): string {
  const token = authorization && /^Bearer +(\S+)$/i.exec(authorization)?.[1];
  if (!token) throw new AppError("AUTH_TOKEN_MISSING");
  return token;
}

/**
 * Who a bearer token speaks for, as of now: the token must verify, its session must still count, and where the token is
 * bound to a browser, it must be that one.
 *
 * @throws AppError AUTH_TOKEN_MISSING, AUTH_TOKEN_INVALID, AUTH_TOKEN_EXPIRED or AUTH_TOKEN_REVOKED
 */
export async function authenticate(deps: Deps, shown: Shown): Promise<Authenticated> {
  const claims = await verifyAccessToken(deps, bearerToken(shown.authorization));
  assertFingerprint(claims.cnf?.["fp#S256"], shown.fingerprint);
  const found = await deps.sessions.find(deps.db.orm, claims.sid);
  if (!found || found.user.id !== claims.sub) {
    throw new AppError("AUTH_TOKEN_REVOKED", { internal: "The session is gone or another user's" });
  }
  assertAlive(deps, found);
  return { claims, principal: principalOf(found) };
}

/** @throws AppError AUTH_TOKEN_INVALID where a token is bound to a value that was not shown with it */
export function assertFingerprint(boundTo: string | null | undefined, shown: string | null): void {
  if (!boundTo || (shown !== null && sameText(hashSecret(shown), boundTo))) return;
  throw new AppError("AUTH_TOKEN_INVALID", { internal: "The token is bound to another browser" });
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
