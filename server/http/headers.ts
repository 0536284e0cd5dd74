import type { Settings } from "../../config/schema.ts";

const CONTENT_SECURITY_POLICY =
  "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";
const PERMISSIONS_POLICY = "camera=(), geolocation=(), microphone=(), payment=(), usb=()";
const ONE_YEAR_SECONDS = 31_536_000;

const headersBySettings = new WeakMap<Settings, Readonly<Record<string, string>>>();

/** The headers of every answer. `no-store` is the rule; what may be cached says so itself. */
export function securityHeaders(settings: Settings): Readonly<Record<string, string>> {
  const known = headersBySettings.get(settings);
  if (known) return known;
  const made = makeSecurityHeaders(settings);
  headersBySettings.set(settings, made);
  return made;
}

function makeSecurityHeaders(settings: Settings): Readonly<Record<string, string>> {
  const https = settings.server.public_url.startsWith("https://");
  return {
    "cache-control": "no-store",
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": PERMISSIONS_POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    ...(https ? { "strict-transport-security": `max-age=${ONE_YEAR_SECONDS}; includeSubDomains` } : {}),
  };
}

const EXPOSED = "X-Request-Id, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, ETag, Location";

/**
 * The CORS headers of an answer to a browser page of another origin. Only origins of the list get any; an answer that
 * depends on the origin says so (Vary), whoever asked.
 */
export function corsHeaders(settings: Settings, origin: string | null): Readonly<Record<string, string>> {
  const allowed = settings.server.cors_origins;
  if (allowed.length === 0) return {};
  if (origin === null || !allowed.includes(origin)) return { vary: "Origin" };
  return {
    vary: "Origin",
    "access-control-allow-origin": origin,
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": EXPOSED,
  };
}

/** What a preflight from an allowed origin is told besides. */
export const preflightHeaders = (methods: readonly string[]): Readonly<Record<string, string>> => ({
  "access-control-allow-methods": methods.join(", "),
  "access-control-allow-headers": "Authorization, Content-Type, If-Match, Idempotency-Key, X-Request-Id",
  "access-control-max-age": "600",
});
