import { Elysia } from "elysia";
import type { Deps } from "../deps.ts";
import { AppError } from "../errors.ts";
import { type Authenticated, authenticate, authenticateLegacy, bearerToken } from "../features/auth/service.ts";
import { contextOf } from "./context.ts";
import { cookieOf } from "./cookies.ts";
import { isLegacyToken, verifyLegacyToken } from "./legacy-tokens.ts";

/**
 * Lets a route declare who may call it: `access: "user"` asks for a bearer token whose session counts and gives the
 * handler `principal` and `claims`. A route that declares nothing is public.
 */
export const access = (deps: Deps) =>
  new Elysia({ name: "access" }).macro("access", (_who: "user") => ({
    resolve: async ({ request }) => authenticateRequest(deps, request),
  }));

async function authenticateRequest(deps: Deps, request: Request): Promise<Authenticated> {
  const { settings, clock } = deps;
  const authorization = request.headers.get("authorization");
  const token = bearerToken(authorization);
  if (isLegacyToken(settings, clock, token)) {
    const claims = await verifyLegacyToken(settings, clock, token);
    if (!claims)
      throw new AppError("AUTH_TOKEN_INVALID", { internal: "A token of the earlier service did not verify" });
    return authenticateLegacy(deps, claims, contextOf(request).requestId);
  }
  return authenticate(deps, { authorization, fingerprint: cookieOf(settings, request, "fp") });
}
