import { findNotBefore } from "../../../db/queries/installation.ts";
import type { SessionWithUser } from "../../../db/queries/sessions.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { isId } from "../../ports/random.ts";
import type { Principal } from "../rights/service.ts";
import { type AccessTokenClaims, fitsHash, knownClaims, verifyAccessToken } from "../tokens/service.ts";
import { parseIdentifier } from "../users/service.ts";

export type Authenticated = {
  readonly principal: Principal;
  readonly claims: TokenClaims;
};

/** What is told of a token; one of the earlier service has no session, and says nothing of when it was proven. */
export type TokenClaims = Pick<AccessTokenClaims, "sub" | "iat" | "exp"> &
  Partial<Pick<AccessTokenClaims, "sid" | "jti" | "auth_time">>;

/** What a request shows of who sends it. */
export interface Shown {
  /** The Authorization header. */
  readonly authorization: string | null;
  /** The random value that the browser keeps in a cookie. */
  readonly fingerprint: string | null;
}

const SCHEME_LENGTH = "Bearer ".length;

/** RFC 6750, section 2.1: the token of an Authorization header. @throws AppError AUTH_TOKEN_MISSING */
export function bearerToken(authorization: string | null): string {
  // Without a pattern over the whole token: that takes longer than to look it up among those that were verified.
  if (!authorization || !/^Bearer +\S/i.test(authorization)) throw new AppError("AUTH_TOKEN_MISSING");
  const token = authorization.slice(SCHEME_LENGTH).trimStart();
  if (token.includes(" ") || token.includes("\t")) throw new AppError("AUTH_TOKEN_MISSING");
  return token;
}

/**
 * Who a bearer token speaks for, as of now: the token must verify, its session must still count, and where the token is
 * bound to a browser, it must be that one.
 *
 * @param staleMs how old what is known of the session may be where the database cannot be reached
 * @throws AppError AUTH_TOKEN_MISSING, AUTH_TOKEN_INVALID, AUTH_TOKEN_EXPIRED or AUTH_TOKEN_REVOKED
 */
export async function authenticate(deps: Deps, shown: Shown, staleMs = 0): Promise<Authenticated> {
  const claims = await verifyAccessToken(deps, bearerToken(shown.authorization));
  assertFingerprint(claims.cnf?.["fp#S256"], shown.fingerprint);
  return { claims, principal: principalOf(await findLiveSession(deps, claims, staleMs)) };
}

/**
 * What {@link authenticate} would answer, without waiting: undefined where something has to be computed or read for it,
 * and where the token does not count.
 */
export function authenticateAtOnce(deps: Deps, shown: Shown): Authenticated | undefined {
  const claims = knownClaims(deps, bearerToken(shown.authorization));
  const found = claims && deps.sessions.known(claims.sid);
  if (!found || found.user.id !== claims.sub || !isAlive(deps, found)) return undefined;
  if (!isSameBrowser(claims.cnf?.["fp#S256"], shown.fingerprint)) return undefined;
  return { claims, principal: principalOf(found) };
}

/**
 * The session of a token that verified, with its user and their rights as they are now, or as they were up to `staleMs`
 * ago where the database cannot be reached.
 *
 * @throws AppError AUTH_TOKEN_REVOKED
 */
export async function findLiveSession(deps: Deps, claims: AccessTokenClaims, staleMs = 0): Promise<SessionWithUser> {
  const found = await deps.sessions.find(deps.db.orm, claims.sid, staleMs);
  if (!found || found.user.id !== claims.sub) {
    throw new AppError("AUTH_TOKEN_REVOKED", { internal: "The session is gone or another user's" });
  }
  assertAlive(deps, found);
  return found;
}

/** @throws AppError AUTH_TOKEN_INVALID where a token is bound to a value that was not shown with it */
export function assertFingerprint(boundTo: string | null | undefined, shown: string | null): void {
  if (isSameBrowser(boundTo, shown)) return;
  throw new AppError("AUTH_TOKEN_INVALID", { internal: "The token is bound to another browser" });
}

const isSameBrowser = (boundTo: string | null | undefined, shown: string | null): boolean =>
  !boundTo || (shown !== null && fitsHash(shown, boundTo));

/** @throws AppError AUTH_TOKEN_REVOKED where the session has ended or its user may not act any more */
export function assertAlive(deps: Deps, found: SessionWithUser): void {
  if (isAlive(deps, found)) return;
  throw new AppError("AUTH_TOKEN_REVOKED", { internal: found.session.revokedReason ?? found.user.status });
}

/** Whether a session has not ended and its user may act. */
export const isAlive = ({ clock }: Pick<Deps, "clock">, { session, user }: Pick<SessionWithUser, "session" | "user">) =>
  !session.revokedAt && user.status === "active" && clock.now() < session.expiresAt;

const principalOf = ({ session, user, roles, permissions, grants }: SessionWithUser): Principal => ({
  kind: "user",
  id: user.id,
  username: user.username,
  sessionId: session.id,
  roles,
  permissions,
  grants,
  amr: session.amr,
  authTime: session.authTime,
});

/**
 * Who a token of the earlier service speaks for: the user that one of its claims names here by user name, e-mail address
 * or id, with the rights they have here and now. It has no session, so it ends with its own time, with the account, with a
 * change of the password, or with a restore: what had ended it may be gone with what came after the backup.
 *
 * @param claims what the token says, verified
 * @throws AppError AUTH_TOKEN_INVALID or AUTH_TOKEN_REVOKED
 */
export async function authenticateLegacy(
  deps: Deps,
  claims: Readonly<Record<string, unknown>>,
  requestId: string,
): Promise<Authenticated> {
  const { iat, exp, jti } = claims;
  const name = claims[deps.settings.tokens.legacy_user_claim];
  if (typeof name !== "string" || typeof iat !== "number" || typeof exp !== "number") {
    throw new AppError("AUTH_TOKEN_INVALID", { internal: "A claim of the earlier service's token is malformed" });
  }
  const found = await deps.legacyUsers.find(deps.db.orm, userKeyOf(name));
  // A token from before a restore is refused as such also where nobody has the name: they may be gone with it.
  const notBefore = found ? found.notBefore : await findNotBefore(deps.db.orm);
  if (notBefore && iat * 1000 < notBefore.getTime())
    throw new AppError("AUTH_TOKEN_REVOKED", { internal: "The earlier service's token is from before a restore" });
  if (!found) throw new AppError("AUTH_TOKEN_INVALID", { internal: "The earlier service's user is not here" });
  const { user, roles, permissions, grants, password } = found;
  // Only the password that came with the account may be known to the token's service; any later one ends the token.
  const changed = password && password.updatedAt > password.createdAt && iat * 1000 < password.updatedAt.getTime();
  if (user.status !== "active" || user.passwordChangeRequired || changed)
    throw new AppError("AUTH_TOKEN_REVOKED", { internal: user.status });
  deps.log.info("A token of the earlier service was accepted", {
    event: "token.legacy_accepted",
    user_id: user.id,
    request_id: requestId,
  });
  return {
    claims: { sub: user.id, iat, exp, ...(typeof jti === "string" ? { jti } : {}) },
    principal: {
      kind: "user",
      id: user.id,
      username: user.username,
      sessionId: null,
      roles,
      permissions,
      grants,
      amr: [],
      authTime: new Date(iat * 1000),
    },
  };
}

const userKeyOf = (name: string) => (isId(name) ? { kind: "id" as const, key: name } : parseIdentifier(name));
