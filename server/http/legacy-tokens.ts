import { jwt } from "@elysiajs/jwt";
import { decodeProtectedHeader, type JWTPayload } from "jose";
import { LRUCache } from "lru-cache";
import type { Settings } from "../../config/schema.ts";
import { AppError } from "../errors.ts";
import type { Clock } from "../ports/clock.ts";

const MAX_TOKEN_LENGTH = 8192;

const MAX_VERIFIED = 5000;

interface Verifier {
  readonly verify: (token: string, options: object) => Promise<JWTPayload | false>;
  /** What tokens say that were found to be good, so that their signature is not computed again at each request. */
  readonly verified: LRUCache<string, JWTPayload>;
}
/** With other settings everything is verified again. */
const verifiers = new WeakMap<Settings, Verifier>();

function verifierOf(settings: Settings): Verifier {
  const known = verifiers.get(settings);
  if (known) return known;
  const { decorator } = jwt({ name: "legacy", secret: settings.tokens.legacy_secret, alg: "HS256" });
  const verify = decorator.legacy.verify as unknown as Verifier["verify"];
  const verifier: Verifier = { verify, verified: new LRUCache({ max: MAX_VERIFIED }) };
  verifiers.set(settings, verifier);
  return verifier;
}

/** Whether a token says of itself that it is one of the earlier service's, and such are taken now. */
export function isLegacyToken({ tokens }: Settings, clock: Pick<Clock, "now">, token: string): boolean {
  const { legacy_secret, legacy_until } = tokens;
  if (legacy_secret === "" || legacy_until === null || clock.now().getTime() >= legacy_until) return false;
  if (token.length > MAX_TOKEN_LENGTH) return false;
  try {
    const { alg, kid, crit } = decodeProtectedHeader(token);
    return alg === "HS256" && kid === undefined && crit === undefined;
  } catch {
    return false;
  }
}

/**
 * Checks an HS256 token of the service that was there before. Only its own secret, algorithm, issuer and audience count:
 * a key of ours is never taken for its secret, nor the other way round (RFC 8725, section 3.1).
 *
 * @returns its claims
 * @throws AppError AUTH_TOKEN_INVALID
 */
export async function verifyLegacyToken(
  settings: Settings,
  clock: Pick<Clock, "now">,
  token: string,
): Promise<Readonly<JWTPayload>> {
  const { legacy_issuer, legacy_audience, legacy_user_claim, clock_skew } = settings.tokens;
  const { verify, verified } = verifierOf(settings);
  const known = verified.get(token);
  if (known?.exp !== undefined && clock.now().getTime() < known.exp * 1000 + clock_skew) return known;
  const claims = await verify(token, {
    algorithms: ["HS256"],
    issuer: legacy_issuer,
    audience: legacy_audience,
    clockTolerance: clock_skew / 1000,
    currentDate: clock.now(),
    requiredClaims: ["iat", "exp", legacy_user_claim],
  });
  if (!claims) throw new AppError("AUTH_TOKEN_INVALID", { internal: "A token of the earlier service did not verify" });
  verified.set(token, claims);
  return claims;
}
