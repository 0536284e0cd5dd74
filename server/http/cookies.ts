import type { Settings } from "../../config/schema.ts";
import { AppError } from "../errors.ts";

/** The cookies that primer sets. Each is for the browser alone: no script reads it, and no other host sends it. */
export type CookieName = "refresh" | "fp" | "device";

const isSecure = ({ server }: Settings) => server.public_url.startsWith("https://");

/** "__Host-" binds a cookie to this very host and to https; plain http, in development, has neither. */
const fullName = (settings: Settings, name: CookieName) => `${isSecure(settings) ? "__Host-" : ""}primer_${name}`;

/** The value of a cookie of ours in a request; null where it has none. */
export function cookieOf(settings: Settings, request: Request, name: CookieName): string | null {
  return new Bun.CookieMap(request.headers.get("cookie") ?? "").get(fullName(settings, name));
}

/** A Set-Cookie header's value. `maxAgeSeconds` 0 takes the cookie away. */
export function setCookie(settings: Settings, name: CookieName, value: string, maxAgeSeconds: number): string {
  return new Bun.Cookie(fullName(settings, name), value, {
    path: "/",
    httpOnly: true,
    secure: isSecure(settings),
    sameSite: settings.cookies.same_site,
    maxAge: maxAgeSeconds,
  }).serialize();
}

/**
 * The defence of whatever a cookie alone allows: the request must come from a page of our own origin or of one on the
 * list. Every browser says which page sent a POST (Origin), and the newer ones how far it is away (Fetch Metadata).
 *
 * @throws AppError CSRF_REJECTED
 */
export function assertOwnPage(settings: Settings, request: Request): void {
  const origin = request.headers.get("origin");
  const site = request.headers.get("sec-fetch-site");
  const reject = (internal: string) => new AppError("CSRF_REJECTED", { internal });
  if (origin === null) throw reject("There is no Origin header");
  if (settings.server.cors_origins.includes(origin)) return;
  if (!isOwn(settings, origin)) throw reject("The request comes from a page of another origin");
  if (site !== null && site !== "same-origin" && site !== "none") {
    throw reject(`Origin and Sec-Fetch-Site (${site}) contradict each other`);
  }
}

/** In development the same server goes by several names of the same machine. */
function isOwn({ server, environment }: Settings, origin: string): boolean {
  const own = new URL(server.public_url);
  if (origin === own.origin) return true;
  if (environment !== "development" || !URL.canParse(origin)) return false;
  const { protocol, hostname, port } = new URL(origin);
  return protocol === own.protocol && port === own.port && ["localhost", "127.0.0.1", "[::1]"].includes(hostname);
}
