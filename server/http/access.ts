import { Elysia } from "elysia";
import type { Deps } from "../deps.ts";
import { AppError, ERRORS } from "../errors.ts";
import {
  type Authenticated,
  assertSteppedUp,
  authenticate,
  authenticateLegacy,
  bearerToken,
} from "../features/auth/service.ts";
import { can, type Principal } from "../features/rights/service.ts";
import type { Actor } from "../features/users/service.ts";
import { callerOf, contextOf } from "./context.ts";
import { cookieOf } from "./cookies.ts";
import { isLegacyToken, verifyLegacyToken } from "./legacy-tokens.ts";

/** Who may call a route: whoever is logged in, or of these only who has a permission, or who has just proven it again. */
export type Access =
  | "user"
  | {
      readonly permission?: string;
      readonly stepUp?: boolean;
      /**
       * While the database cannot be reached, sessions that were seen within `resilience.verify_stale` still count. Only
       * for routes that change nothing: it is the one exception to sessions ending at once.
       */
      readonly evenStale?: boolean;
    };

const admitted = new WeakMap<Request, Authenticated>();

/** Whoever a request was found to come from; undefined on a route that is public. */
export const admittedTo = (request: Request): Authenticated | undefined => admitted.get(request);

const recognised = new WeakMap<Request, Principal>();

/** Whoever a request came from, admitted or not; undefined where that was not asked or not found. */
export const principalOf = (request: Request): Principal | undefined => recognised.get(request);

/** Whoever is logged in, as who changes something. */
export const actorOf = (principal: Principal, request: Request): Actor => ({
  actor: { kind: principal.kind, id: principal.id },
  rights: principal,
  caller: callerOf(request),
});

/**
 * Lets a route declare who may call it, and gives its handler `principal` and `claims`. It is decided before the input is
 * looked at, so that a stranger learns nothing about what is expected. A route that declares nothing is public.
 */
export const access = (deps: Deps) => {
  return new Elysia({ name: "access" }).macro("access", (who: Access) => ({
    transform: async ({ request }) => {
      admitted.set(request, await admit(deps, who, request));
    },
    resolve: ({ request }): Authenticated => {
      const authenticated = admitted.get(request);
      if (!authenticated) throw new Error("The access of a route was not looked at");
      return authenticated;
    },
  }));
};

/**
 * Whoever a request comes from, where they may. What lasts asks again: they may not any more.
 *
 * @throws AppError for a token that does not count, FORBIDDEN, AUTH_STEP_UP_REQUIRED
 */
export async function admit(deps: Deps, who: Access, request: Request): Promise<Authenticated> {
  const { permission, stepUp = false, evenStale = false }: Exclude<Access, "user"> = who === "user" ? {} : who;
  const staleMs = evenStale ? deps.settings.resilience.verify_stale : 0;
  const authenticated = await authenticateRequest(deps, request, staleMs);
  recognised.set(request, authenticated.principal);
  if (permission !== undefined && !can(authenticated.principal, permission)) {
    throw new AppError("FORBIDDEN", { details: { permission } });
  }
  if (stepUp) assertSteppedUp(deps, authenticated.claims);
  return authenticated;
}

async function authenticateRequest(deps: Deps, request: Request, staleMs: number): Promise<Authenticated> {
  const { settings, clock } = deps;
  const authorization = request.headers.get("authorization");
  const token = bearerToken(authorization);
  const issuer = isLegacyToken(settings, clock, token) ? "legacy" : "own";
  const began = clock.elapsed();
  try {
    const authenticated =
      issuer === "legacy"
        ? await authenticateLegacy(deps, await verifyLegacyToken(settings, clock, token), contextOf(request).requestId)
        : await authenticate(deps, { authorization, fingerprint: cookieOf(settings, request, "fp") }, staleMs);
    deps.metrics.count("primer_tokens_verified_total", { issuer, outcome: "accepted" });
    deps.metrics.record("primer_token_verification_duration_seconds", (clock.elapsed() - began) / 1000, {});
    return authenticated;
  } catch (error) {
    // Where the database is away nothing was found out about the token.
    if (error instanceof AppError && ERRORS[error.errorCode].status === 401)
      deps.metrics.count("primer_tokens_verified_total", { issuer, outcome: "refused" });
    throw error;
  }
}
