import { Elysia, t } from "elysia";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { access } from "../../http/access.ts";
import { callerOf } from "../../http/context.ts";
import { describe } from "../../http/openapi.ts";
import { queryFault } from "../../http/query.ts";
import { can } from "../rights/service.ts";
import { LoginBody, LogoutBody, RefreshBody, TokenAnswer, VerifyAnswer, VerifyQuery } from "./schema.ts";
import { login, logout, refresh } from "./service.ts";

const tag = "Authentication";

export const authRoutes = (deps: Deps) =>
  new Elysia({ name: "auth", prefix: "/api/v1/auth" })
    .use(access(deps))
    .post("/login", ({ body, request }) => login(deps, body, callerOf(request)), {
      body: LoginBody,
      detail: describe({
        tag,
        summary: "Log in with user name or e-mail address and password",
        answers: { 200: TokenAnswer },
        errors: [
          "VALIDATION_FAILED",
          "PAYLOAD_TOO_LARGE",
          "UNSUPPORTED_MEDIA_TYPE",
          "AUTH_INVALID_CREDENTIALS",
          "AUTH_ACCOUNT_DISABLED",
          "AUTH_EMAIL_NOT_VERIFIED",
        ],
      }),
    })
    .post("/refresh", ({ body, request }) => refresh(deps, body, callerOf(request)), {
      body: RefreshBody,
      detail: describe({
        tag,
        summary: "Trade a refresh token for the next tokens of the session",
        description: "A refresh token works once. Using one again after the grace ends the session.",
        answers: { 200: TokenAnswer },
        errors: [
          "VALIDATION_FAILED",
          "PAYLOAD_TOO_LARGE",
          "UNSUPPORTED_MEDIA_TYPE",
          "AUTH_TOKEN_INVALID",
          "AUTH_TOKEN_EXPIRED",
          "AUTH_TOKEN_REVOKED",
          "AUTH_REFRESH_REUSED",
        ],
      }),
    })
    .post(
      "/logout",
      async ({ body, request, set }) => {
        await logout(deps, body ?? {}, request.headers.get("authorization"), callerOf(request));
        set.status = 204;
      },
      {
        body: t.Optional(LogoutBody),
        detail: describe({
          tag,
          summary: "End a session",
          description: "By bearer token or by refresh token, expired or not. Its access token is dead at once.",
          bearer: "optional",
          bodyOptional: true,
          answers: { 204: "The session has ended" },
          errors: [
            "VALIDATION_FAILED",
            "PAYLOAD_TOO_LARGE",
            "UNSUPPORTED_MEDIA_TYPE",
            "AUTH_TOKEN_MISSING",
            "AUTH_TOKEN_INVALID",
          ],
        }),
      },
    )
    .get(
      "/verify",
      ({ claims, principal, query, request, set }) => {
        const reason = queryFault(request.url);
        if (reason !== undefined) throw new AppError("FORBIDDEN", { internal: reason, details: { reason } });
        if (query.permission !== undefined && !can(principal, query.permission)) {
          throw new AppError("FORBIDDEN", { details: { permission: query.permission } });
        }
        set.headers["x-auth-user-id"] = principal.id;
        set.headers["x-auth-username"] = principal.username;
        set.headers["x-auth-roles"] = principal.roles.join(",");
        const { sub, sid, jti, iat, exp } = claims;
        const { username, roles, permissions } = principal;
        return { active: true as const, sub, username, roles, scope: permissions.join(" "), sid, jti, iat, exp };
      },
      {
        access: "user",
        query: VerifyQuery,
        detail: describe({
          tag,
          summary: "Check an access token",
          description:
            "For gateways: nginx auth_request, Traefik forwardAuth, Caddy forward_auth. The headers X-Auth-User-Id, X-Auth-Username and X-Auth-Roles carry who it is.",
          bearer: true,
          answers: { 200: VerifyAnswer },
          errors: ["AUTH_TOKEN_MISSING", "AUTH_TOKEN_INVALID", "AUTH_TOKEN_EXPIRED", "AUTH_TOKEN_REVOKED", "FORBIDDEN"],
        }),
      },
    );
