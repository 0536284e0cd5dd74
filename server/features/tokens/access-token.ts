import { decodeProtectedHeader, errors, type JWTPayload, jwtVerify, SignJWT } from "jose";
import { LRUCache } from "lru-cache";
import type { Settings } from "../../../config/schema.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { isId } from "../../ports/random.ts";
import type { OpenKey } from "../keys/service.ts";
import { isCanonical } from "./compact.ts";

/** RFC 9068: what an access token is, so that no other token passes for one. */
const TYPE = "at+jwt";
/** `scope` is left out when it would be longer than this (bytes). */
const MAX_SCOPE_BYTES = 1024;
const MAX_TOKEN_LENGTH = 8192;

/** Who a token is made for. */
export interface AccessTokenSubject {
  readonly userId: string;
  readonly username: string;
  readonly sessionId: string;
  readonly clientId: string;
  readonly roles: readonly string[];
  readonly permissions: readonly string[];
  readonly amr: readonly string[];
  readonly authTime: Date;
  /** The end of the session, which no token of it outlives. */
  readonly sessionEnd: Date;
  /** The hash of the browser's value that the token is bound to, if any. */
  readonly fingerprintHash: string | null;
}

/** RFC 7800: what whoever shows the token must have besides it. DPoP's `jkt` will stand beside the fingerprint. */
export interface Confirmation {
  /** SHA-256 of the value in the browser's fingerprint cookie, base64url. */
  readonly "fp#S256"?: string;
}

export interface AccessTokenClaims extends JWTPayload {
  readonly sub: string;
  readonly sid: string;
  readonly jti: string;
  readonly iat: number;
  readonly exp: number;
  readonly auth_time: number;
  readonly cnf?: Confirmation;
}

type TokenDeps = Pick<Deps, "keys" | "settings" | "clock" | "random">;

const seconds = (date: Date) => Math.floor(date.getTime() / 1000);

/** Signs an access token (RFC 9068) with the active key. @returns the token and its lifetime in seconds */
export async function signAccessToken(deps: TokenDeps, subject: AccessTokenSubject) {
  const { settings } = deps;
  const key = deps.keys.signing();
  const now = deps.clock.now();
  const issuedAt = seconds(now);
  const lifetime = Math.min(settings.tokens.access_ttl / 1000, Math.max(1, seconds(subject.sessionEnd) - issuedAt));
  const scope = subject.permissions.join(" ");
  const fits = Buffer.byteLength(scope) <= MAX_SCOPE_BYTES;
  const token = await new SignJWT({
    client_id: subject.clientId,
    sid: subject.sessionId,
    username: subject.username,
    roles: subject.roles,
    ...(fits ? { scope } : { scope_omitted: true }),
    amr: subject.amr,
    auth_time: seconds(subject.authTime),
    ...(subject.fingerprintHash ? { cnf: { "fp#S256": subject.fingerprintHash } satisfies Confirmation } : {}),
  })
    .setProtectedHeader({ alg: key.algorithm, kid: key.kid, typ: TYPE })
    .setIssuer(settings.tokens.issuer)
    .setAudience(settings.tokens.audience)
    .setSubject(subject.userId)
    .setJti(deps.random.id(now))
    .setIssuedAt(issuedAt)
    .setExpirationTime(issuedAt + lifetime)
    .sign(key.privateKey);
  return { token, expiresIn: lifetime };
}

interface VerifiedToken {
  readonly claims: AccessTokenClaims;
  /** What it was verified with: another key or other settings, and it has to be verified again. */
  readonly key: OpenKey;
  readonly settings: Settings;
}

/** Tokens that were found to be good, so that their signature is not computed again at each request. */
export type VerifiedTokens = LRUCache<string, VerifiedToken>;

const MAX_VERIFIED = 5000;
export const createVerifiedTokens = (): VerifiedTokens => new LRUCache({ max: MAX_VERIFIED });

type VerifyDeps = Pick<Deps, "keys" | "settings" | "clock" | "verifiedTokens">;

/**
 * Checks form, type, key, algorithm, signature, issuer, audience and times of an access token (RFC 8725). Whether its
 * session still counts is not its to say: ask the session's row.
 *
 * @throws AppError AUTH_TOKEN_EXPIRED for a good token past its time, AUTH_TOKEN_INVALID for anything else
 */
export async function verifyAccessToken(
  deps: VerifyDeps,
  token: string,
  options: { acceptExpired?: boolean } = {},
): Promise<AccessTokenClaims> {
  const claims = claimsOnceVerified(deps, token);
  if (!claims) return verifyAnew(deps, token, options.acceptExpired ?? false);
  if (isOver(deps, claims) && !options.acceptExpired) throw new AppError("AUTH_TOKEN_EXPIRED");
  return claims;
}

/** The claims of a token that was verified before and still holds; undefined where {@link verifyAccessToken} has to look. */
export function knownClaims(deps: VerifyDeps, token: string): AccessTokenClaims | undefined {
  const claims = claimsOnceVerified(deps, token);
  return claims && !isOver(deps, claims) ? claims : undefined;
}

function claimsOnceVerified(deps: VerifyDeps, token: string): AccessTokenClaims | undefined {
  const known = deps.verifiedTokens.get(token);
  const stillFits = known?.settings === deps.settings && deps.keys.verification(known.key.kid) === known.key;
  return stillFits ? known.claims : undefined;
}

const isOver = ({ clock, settings }: VerifyDeps, { exp }: AccessTokenClaims): boolean =>
  clock.now().getTime() >= exp * 1000 + settings.tokens.clock_skew;

async function verifyAnew(deps: VerifyDeps, token: string, acceptExpired: boolean): Promise<AccessTokenClaims> {
  const kid = kidOf(token);
  if (kid === undefined) throw invalid("Not a compact JWT with a kid");
  if (!deps.keys.verification(kid)) await deps.keys.lookAgain();
  const key = deps.keys.verification(kid);
  if (!key) throw invalid("The kid is not one of ours");
  const { settings } = deps;
  try {
    const { payload } = await jwtVerify(token, key.publicKey, {
      algorithms: [key.algorithm],
      typ: TYPE,
      issuer: settings.tokens.issuer,
      audience: settings.tokens.audience,
      clockTolerance: settings.tokens.clock_skew / 1000,
      currentDate: deps.clock.now(),
      requiredClaims: ["sub", "sid", "jti", "iat", "exp"],
    });
    const claims = checkedClaims(payload);
    deps.verifiedTokens.set(token, { claims, key, settings });
    return claims;
  } catch (error) {
    if (error instanceof errors.JWTExpired) {
      if (acceptExpired) return checkedClaims(error.payload);
      throw new AppError("AUTH_TOKEN_EXPIRED", { cause: error });
    }
    throw error instanceof AppError ? error : invalid("The token did not verify", error);
  }
}

const invalid = (internal: string, cause?: unknown) => new AppError("AUTH_TOKEN_INVALID", { internal, cause });

/** The kid of a token that is written exactly as we write one; undefined for anything else. Takes bounded time. */
function kidOf(token: string): string | undefined {
  if (token.length > MAX_TOKEN_LENGTH || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token) || !isCanonical(token))
    return undefined;
  try {
    const { kid, crit } = decodeProtectedHeader(token);
    return crit === undefined ? kid : undefined;
  } catch {
    return undefined;
  }
}

const isText = (value: unknown): value is string => typeof value === "string" && value !== "";
const isTime = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value > 0;

function checkedClaims(payload: JWTPayload): AccessTokenClaims {
  const { sub, sid, jti, iat, exp, auth_time } = payload;
  const isWhole = isId(sub) && isId(sid) && isText(jti) && isTime(iat) && isTime(exp) && isTime(auth_time);
  if (!isWhole) throw invalid("A claim is malformed");
  return { ...payload, sub, sid, jti, iat, exp, auth_time };
}
