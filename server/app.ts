import { type AnyElysia, type Context, Elysia, NotFoundError } from "elysia";
import { misused } from "../config/errors.ts";
import type { Settings } from "../config/schema.ts";
import { isTracing } from "../config/trace.ts";
import type { Deps } from "./deps.ts";
import { AppError } from "./errors.ts";
import { accountPages, accountRoutes } from "./features/accounts/routes.ts";
import { auditRoutes } from "./features/audit/routes.ts";
import { authRoutes } from "./features/auth/routes.ts";
import { clientRoutes } from "./features/clients/routes.ts";
import { docsRoutes } from "./features/docs/routes.ts";
import { healthRoutes } from "./features/health/routes.ts";
import { invitationRoutes } from "./features/invitations/routes.ts";
import { jobRoutes } from "./features/jobs/routes.ts";
import { keyRoutes } from "./features/keys/routes.ts";
import { metricsRoute, monitoringRoutes } from "./features/monitoring/routes.ts";
import { oauthRoutes } from "./features/oauth/routes.ts";
import { revocationRoutes } from "./features/revocations/routes.ts";
import { roleRoutes } from "./features/roles/routes.ts";
import { sessionRoutes } from "./features/sessions/routes.ts";
import { userRoutes } from "./features/users/routes.ts";
import { auditRefused } from "./http/audit-refused.ts";
import { readJsonBody } from "./http/body.ts";
import { openContext, pathOf } from "./http/context.ts";
import { answerError, type ErrorAnswer } from "./http/error-handler.ts";
import { readFormBody } from "./http/form.ts";
import { corsHeaders, preflightHeaders, securityHeaders } from "./http/headers.ts";
import {
  enforceLimits,
  enforceLimitsOfRefused,
  GENERAL,
  LIMITS_FIELD,
  type LimitedRoute,
  type RouteLimit,
} from "./http/limits.ts";
import { isOauthRequest } from "./http/oauth.ts";
import { assertPlainQuery } from "./http/query.ts";
import { createRouteTable } from "./http/route-table.ts";
import { countAnswers, inStage, nameSpan, traceRequest } from "./http/telemetry.ts";

/** Every feature of the API, one line each. */
const features = (deps: Deps): AnyElysia[] => [
  authRoutes(deps),
  sessionRoutes(deps),
  accountRoutes(deps),
  userRoutes(deps),
  invitationRoutes(deps),
  roleRoutes(deps),
  clientRoutes(deps),
  oauthRoutes(deps),
  jobRoutes(deps),
  keyRoutes(deps),
  revocationRoutes(deps),
  auditRoutes(deps),
  monitoringRoutes(deps),
  metricsRoute(deps),
  healthRoutes(deps),
];

/** The OpenAPI document of every route. No handler runs, so none of what handlers work with has to be there. */
export async function describeApi({ version }: Pick<Deps, "version">): Promise<Record<string, unknown>> {
  const { openapiDocument } = await import("./features/docs/openapi.ts");
  const api = features({} as Deps).reduce((app, feature) => app.use(feature), new Elysia() as AnyElysia);
  return openapiDocument(api, version);
}

/** What each route is limited by, in the order of the API. No handler runs. */
export function routeLimits(): { route: string; limits: readonly RouteLimit[] }[] {
  const api = features({} as Deps).reduce((app, feature) => app.use(feature), new Elysia() as AnyElysia);
  return api.routes.map(({ method, path, hooks }) => ({ route: `${method} ${path}`, limits: limitsIn(hooks) }));
}

/** @throws OperatorError (exit 2) where a limit is set for a route that there is not: it would limit nothing */
export function assertRoutesKnown({ rate_limits }: Settings, routes: readonly string[]): void {
  for (const route of rate_limits.routes.keys()) {
    if (routes.includes(route)) continue;
    throw misused(`rate_limits.routes: there is no route ${route}.`, "`primer config show limits` lists them.");
  }
}

/**
 * The whole HTTP application. Hooks run in the order they stand here and are registered before any feature, since a hook
 * of Elysia's counts only for what comes after it.
 */
export function createApp(deps: Deps): AnyElysia {
  const answered = countAnswers(deps);
  const app = new Elysia({ normalize: false, aot: true, nativeStaticResponse: false, strictPath: true })
    .onRequest(({ request, server, set }) => {
      const { requestId } = openContext(deps, request, server?.requestIP(request)?.address ?? null);
      Object.assign(
        set.headers,
        securityHeaders(deps.settings),
        corsHeaders(deps.settings, request.headers.get("origin")),
      );
      set.headers["x-request-id"] = requestId;
      assertPlainQuery(request);
    })
    .onError(async ({ error, request, route, set }) => {
      nameSpan(request, route);
      const thrown = error instanceof NotFoundError ? notFound(request, set) : error;
      if (thrown === undefined) {
        answered(request, route, 204);
        return new Response(null, { status: 204 });
      }
      const answer = await refuse(thrown, request, route);
      Object.assign(set.headers, answer.headers);
      set.status = answer.status;
      answered(request, route, answer.status);
      return answer.body;
    })
    .onParse(({ request }) => {
      const readBody = isOauthRequest(request) ? readFormBody : readJsonBody;
      return inStage(deps, "parse", async () => readBody(request, deps.settings.server));
    })
    .onBeforeHandle(async ({ request, route, body, set }) => {
      nameSpan(request, route);
      Object.assign(set.headers, await enforceLimits(deps, limited(request.method, route), { request, body }));
    })
    .onAfterHandle(({ request, route, set, responseValue }) => {
      const status = responseValue instanceof Response ? responseValue.status : Number(set.status ?? 200);
      answered(request, route, status);
    });

  if (isTracing()) app.wrap(traceRequest as never);
  for (const feature of features(deps)) app.use(feature);
  app.use(docsRoutes(deps, () => describeApi(deps)));
  app.use(accountPages(deps));

  const declared = new Map(app.routes.map(({ method, path, hooks }) => [`${method} ${path}`, limitsIn(hooks)]));
  assertRoutesKnown(deps.settings, [...declared.keys()]);
  function limited(method: string, route: string): LimitedRoute {
    const name = `${method === "HEAD" ? "GET" : method} ${route}`;
    return { name, limits: declared.get(name) ?? GENERAL };
  }
  /** The answer to what was thrown; also what is refused before anything else counts as a request. */
  async function refuse(thrown: unknown, request: Request, route: string | undefined): Promise<ErrorAnswer> {
    const answer = answerError(deps, thrown, request);
    if (answer.status >= 500) return answer;
    try {
      if (answer.status === 403) await auditRefused(deps, thrown, request, route || pathOf(request));
      const headers = await enforceLimitsOfRefused(deps, limited(request.method, route || pathOf(request)), request);
      return { ...answer, headers: { ...headers, ...answer.headers } };
    } catch (error) {
      return answerError(deps, error, request);
    }
  }
  const routes = createRouteTable(app.routes);
  /** No such path: 404. A path that other methods have: 405, or the answer to a preflight of an allowed origin. */
  function notFound(request: Request, set: Context["set"]): AppError | undefined {
    const methods = routes.methodsOf(pathOf(request));
    if (methods.length === 0) return new AppError("NOT_FOUND");
    set.headers.allow = methods.join(", ");
    const isPreflight = request.method === "OPTIONS" && request.headers.has("access-control-request-method");
    if (!isPreflight || set.headers["access-control-allow-origin"] === undefined)
      return new AppError("METHOD_NOT_ALLOWED");
    Object.assign(set.headers, preflightHeaders(methods));
    return undefined;
  }
  return app;
}

const limitsIn = (hooks: unknown) =>
  (hooks as { detail?: Record<string, readonly RouteLimit[]> } | undefined)?.detail?.[LIMITS_FIELD] ?? GENERAL;
