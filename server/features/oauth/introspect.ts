import type { ClientRow } from "../../../db/queries/clients.ts";
import { findRefreshFamily } from "../../../db/queries/sessions.ts";
import type { Deps } from "../../deps.ts";
import { decideRefresh, findLiveSession } from "../auth/service.ts";
import { assertRoom, takeRoom } from "../protection/service.ts";
import { type AccessTokenClaims, openRefreshToken, verifyAccessToken } from "../tokens/service.ts";
import { looksLikeRefreshToken, unlessNotGood } from "./token-kind.ts";

/** What is said of a token that does not count, whatever the reason (RFC 7662, section 2.2). */
export interface Inactive {
  readonly active: false;
}

export interface ActiveAccessToken {
  readonly active: true;
  readonly token_type: "Bearer";
  readonly iss: string;
  readonly aud: string | string[];
  readonly sub: string;
  readonly client_id: string;
  readonly username: string;
  /** Permissions and roles as they are now, not as they were when the token was made. */
  readonly scope: string;
  readonly roles: readonly string[];
  readonly jti: string;
  readonly sid: string;
  readonly iat: number;
  readonly exp: number;
  readonly auth_time: number;
  readonly cnf?: AccessTokenClaims["cnf"];
}

export interface ActiveRefreshToken {
  readonly active: true;
  readonly token_type: "refresh_token";
  readonly sub: string;
  readonly client_id: string;
  readonly username: string;
  readonly sid: string;
  readonly iat: number;
  readonly exp: number;
}

export type Introspection = ActiveAccessToken | ActiveRefreshToken | Inactive;

const INACTIVE: Inactive = { active: false };
const seconds = (date: Date) => Math.floor(date.getTime() / 1000);

/**
 * What a token is worth now (RFC 7662). Writes nothing: looking at a refresh token that was used is not using it. Where
 * the store cannot say, neither do we, but for access tokens of sessions that were seen within `resilience.verify_stale`.
 *
 * @throws AppError RATE_LIMIT_EXCEEDED where the client has asked for too many that are not good
 */
export async function introspect(deps: Deps, client: ClientRow, token: string): Promise<Introspection> {
  await assertRoom(deps, "introspect_failed", client.id);
  const look = looksLikeRefreshToken(token) ? lookAtRefreshToken : lookAtAccessToken;
  const found = await unlessNotGood<Introspection | undefined>(look(deps, token));
  if (found) return found;
  await takeRoom(deps, "introspect_failed", client.id);
  return INACTIVE;
}

async function lookAtAccessToken(deps: Deps, token: string): Promise<ActiveAccessToken | undefined> {
  const claims = await verifyAccessToken(deps, token);
  const { session, user, roles, permissions } = await findLiveSession(
    deps,
    claims,
    deps.settings.resilience.verify_stale,
  );
  // Clocks may differ between us and others, not between us and ourselves: past its time it does not count.
  if (seconds(deps.clock.now()) >= claims.exp) return undefined;
  return {
    active: true,
    token_type: "Bearer",
    iss: claims.iss ?? deps.settings.tokens.issuer,
    aud: claims.aud ?? deps.settings.tokens.audience,
    sub: user.id,
    client_id: session.clientId,
    username: user.username,
    scope: permissions.join(" "),
    roles,
    jti: claims.jti,
    sid: session.id,
    iat: claims.iat,
    exp: claims.exp,
    // The token's own: one from before a step-up gains nothing by it.
    auth_time: claims.auth_time,
    ...(claims.cnf ? { cnf: claims.cnf } : {}),
  };
}

async function lookAtRefreshToken(deps: Deps, token: string): Promise<ActiveRefreshToken | undefined> {
  const pointer = await openRefreshToken(deps, token);
  const found = await findRefreshFamily(deps.db.orm, pointer.familyId);
  if (!found || decideRefresh(deps, found, pointer) !== "rotate") return undefined;
  const { family, session, user } = found;
  return {
    active: true,
    token_type: "refresh_token",
    sub: user.id,
    client_id: session.clientId,
    username: user.username,
    sid: session.id,
    iat: seconds(family.rotatedAt),
    exp: Math.min(seconds(family.idleExpiresAt), seconds(session.expiresAt)),
  };
}
