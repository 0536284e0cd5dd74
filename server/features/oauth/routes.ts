import { Elysia } from "elysia";
import type { Deps } from "../../deps.ts";
import { badRequest } from "../../http/body.ts";
import { clientCredentials } from "../../http/client-credentials.ts";
import { callerOf } from "../../http/context.ts";
import type { Form } from "../../http/form.ts";
import { describe, type RouteDescription } from "../../http/openapi.ts";
import { IntrospectionAnswer, TokenForm } from "./schema.ts";
import { authenticateClient, introspect, revoke } from "./service.ts";

const tag = "OAuth 2.0";

const describeOauth = (route: Pick<RouteDescription, "summary" | "description" | "answers" | "example">) =>
  describe({
    tag,
    client: true,
    limits: [],
    form: TokenForm,
    errors: ["PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "AUTH_INVALID_CREDENTIALS", "RATE_LIMIT_EXCEEDED"],
    ...route,
  });

/** Who asks, and about which token. The client is authenticated before anything is said about its request. */
async function tokenRequest(deps: Deps, request: Request, body: unknown, staleMs = 0) {
  const form = (body ?? new Map()) as Form;
  const credentials = clientCredentials(request.headers.get("authorization"), form);
  const client = await authenticateClient(deps, credentials, callerOf(request), staleMs);
  const token = form.get("token");
  if (token === undefined) throw badRequest("The parameter token is missing");
  return { client, token };
}

export const oauthRoutes = (deps: Deps) =>
  new Elysia({ name: "oauth", prefix: "/oauth2" })
    .post(
      "/introspect",
      async ({ body, request }) => {
        const { verify_stale } = deps.settings.resilience;
        const { client, token } = await tokenRequest(deps, request, body, verify_stale);
        return introspect(deps, client, token);
      },
      {
        detail: describeOauth({
          summary: "What a token is worth now (RFC 7662)",
          description:
            "For services registered with `primer clients create`. Anything that does not count is {active: false}; asking for too many of those has to wait. Where the database is away, access tokens of sessions seen within resilience.verify_stale are answered as they were then; anything else is 503, never a guess.",
          answers: { 200: IntrospectionAnswer },
          example: { active: false },
        }),
      },
    )
    .post(
      "/revoke",
      async ({ body, request, set }) => {
        const { client, token } = await tokenRequest(deps, request, body);
        await revoke(deps, client, token, callerOf(request));
        set.status = 200;
      },
      {
        detail: describeOauth({
          summary: "End the session of a token (RFC 7009)",
          description:
            "By any access or refresh token of it, expired or not; all its tokens are dead at once. A token that names no session is answered with 200 too.",
          answers: { 200: "The token is not worth anything any more" },
        }),
      },
    );
