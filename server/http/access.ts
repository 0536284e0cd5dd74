import { Elysia } from "elysia";
import type { Deps } from "../deps.ts";
import { AppError, ERRORS } from "../errors.ts";
import {
  type Authenticated,
  assertSteppedUp,
  authenticate,
  authenticateAtOnce,
  authenticateLegacy,
  bearerToken,
} from "../features/auth/service.ts";
import { can, type Principal } from "../features/rights/service.ts";
import type { Actor } from "../features/users/service.ts";
import { callerOf, contextOf, remember } from "./context.ts";
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
    transform: ({ request }) => {
      // Almost all tokens have been seen before, and every wait takes longer than to look one of those up. Elysia reads from
      // the text of a hook that is not `async` whether it is to be waited for: `return f(` is what tells it.
      const known = knownAtOnce(deps, request);
      if (known) assertMay(deps, who, request, known);
      else return admit(deps, who, request).then(() => {});
    },
    resolve: ({ request }): Authenticated => {
      const { admitted } = contextOf(request);
      if (!admitted) throw new Error("The access of a route was not looked at");
      return admitted;
    },
  }));
};

/**
 * Whoever a request comes from, where they may. What lasts asks again: they may not any more.
 *
 * @throws AppError for a token that does not count, FORBIDDEN, AUTH_STEP_UP_REQUIRED
 */
export async function admit(deps: Deps, who: Access, request: Request): Promise<Authenticated> {
  const staleMs = who !== "user" && who.evenStale ? deps.settings.resilience.verify_stale : 0;
  return assertMay(deps, who, request, await authenticateRequest(deps, request, staleMs));
}

function assertMay(deps: Deps, who: Access, request: Request, authenticated: Authenticated): Authenticated {
  const { permission, stepUp = false }: Exclude<Access, "user"> = who === "user" ? {} : who;
  remember(request, { principal: authenticated.principal });
  if (permission !== undefined && !can(authenticated.principal, permission)) {
    throw new AppError("FORBIDDEN", { details: { permission } });
  }
  if (stepUp) assertSteppedUp(deps, authenticated.claims);
  remember(request, { admitted: authenticated });
  return authenticated;
}

function knownAtOnce(deps: Deps, request: Request): Authenticated | undefined {
  const { settings, clock } = deps;
  const authorization = request.headers.get("authorization");
  if (!authorization) return undefined;
  const began = clock.elapsed();
  const known = authenticateAtOnce(deps, { authorization, fingerprint: cookieOf(settings, request, "fp") });
  if (known) countAccepted(deps, "own", began);
  return known;
}

function countAccepted({ metrics, clock }: Deps, issuer: "own" | "legacy", began: number): void {
  metrics.count("primer_tokens_verified_total", { issuer, outcome: "accepted" });
  metrics.record("primer_token_verification_duration_seconds", (clock.elapsed() - began) / 1000, {});
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
    countAccepted(deps, issuer, began);
    return authenticated;
  } catch (error) {
    // Where the database is away nothing was found out about the token.
    if (error instanceof AppError && ERRORS[error.errorCode].status === 401)
      deps.metrics.count("primer_tokens_verified_total", { issuer, outcome: "refused" });
    throw error;
  }
}
