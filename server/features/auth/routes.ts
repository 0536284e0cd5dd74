import { type Context, Elysia, t } from "elysia";
import type { Deps } from "../../deps.ts";
import { AppError, type ErrorCode } from "../../errors.ts";
import { access } from "../../http/access.ts";
import { callerOf } from "../../http/context.ts";
import { assertOwnPage, cookieOf, setCookie } from "../../http/cookies.ts";
import { describe } from "../../http/openapi.ts";
import { queryFault } from "../../http/query.ts";
import { can } from "../rights/service.ts";
import {
  AccessTokenAnswer,
  LoginBody,
  LogoutBody,
  RefreshBody,
  StepUpBody,
  TokenAnswer,
  VerifyAnswer,
  VerifyQuery,
} from "./schema.ts";
import { login, logout, refresh, stepUp, type TokenAnswer as Tokens } from "./service.ts";

const tag = "Authentication";

const NO_REFRESH_TOKEN = [{ path: "refresh_token", message: "Expected a refresh token here or in the cookie" }];

/** After these the cookie is of no use any more. */
const ENDS_COOKIES = new Set<ErrorCode>(["AUTH_TOKEN_EXPIRED", "AUTH_TOKEN_REVOKED", "AUTH_REFRESH_REUSED"]);

/** As long as browsers keep a cookie at most. */
const DEVICE_COOKIE_SECONDS = 400 * 86_400;

type Answering = Context["set"];

/** Cookie mode: the browser keeps the refresh token where no script gets at it, and the body goes without. */
function intoCookies(
  { settings }: Deps,
  set: Answering,
  { refresh_token, ...rest }: Tokens,
  values: { readonly fp?: string | null; readonly device?: string | null },
) {
  set.headers["set-cookie"] = [
    setCookie(settings, "refresh", refresh_token, rest.refresh_expires_in),
    ...(values.fp ? [setCookie(settings, "fp", values.fp, settings.tokens.refresh_absolute / 1000)] : []),
    ...(values.device ? [setCookie(settings, "device", values.device, DEVICE_COOKIE_SECONDS)] : []),
  ];
  return rest;
}

/** The end of cookie mode. Not all cookies go: the device stays known. */
function takeCookies({ settings }: Deps, set: Answering): void {
  set.headers["set-cookie"] = [setCookie(settings, "refresh", "", 0), setCookie(settings, "fp", "", 0)];
  set.headers["clear-site-data"] = '"cache", "storage"';
}

export const authRoutes = (deps: Deps) =>
  new Elysia({ name: "auth", prefix: "/api/v1/auth" })
    .use(access(deps))
    .post(
      "/login",
      async ({ body, request, set }) => {
        // Somebody else's page must not log its visitor in to an account of its own.
        if (body.cookies && request.headers.has("origin")) assertOwnPage(deps.settings, request);
        const [device, replaces] = body.cookies
          ? (["device", "refresh"] as const).map((name) => cookieOf(deps.settings, request, name) ?? undefined)
          : [];
        const input = { ...body, ...(device && { device_token: device }), ...(replaces && { replaces }) };
        const { tokens, fingerprint, deviceToken } = await login(deps, input, callerOf(request));
        if (body.cookies) return intoCookies(deps, set, tokens, { fp: fingerprint, device: deviceToken });
        return deviceToken === null ? tokens : { ...tokens, device_token: deviceToken };
      },
      {
        body: LoginBody,
        detail: describe({
          tag,
          summary: "Log in with user name or e-mail address and password",
          description: "In cookie mode the session that the browser had until now ends.",
          limits: ["login_ip", "login_ip_account", "login_service", "general"],
          takesBody: true,
          answers: { 200: TokenAnswer },
          errors: [
            "FORBIDDEN",
            "AUTH_INVALID_CREDENTIALS",
            "AUTH_ACCOUNT_DISABLED",
            "AUTH_EMAIL_NOT_VERIFIED",
            "AUTH_PASSWORD_CHANGE_REQUIRED",
            "SESSION_LIMIT_REACHED",
            "CSRF_REJECTED",
          ],
        }),
      },
    )
    .post(
      "/refresh",
      async ({ body, request, set }) => {
        const fingerprint = cookieOf(deps.settings, request, "fp");
        if (body?.refresh_token !== undefined) {
          return refresh(deps, { refresh_token: body.refresh_token, fingerprint }, callerOf(request));
        }
        const refresh_token = cookieOf(deps.settings, request, "refresh");
        if (refresh_token === null && body === undefined) throw new AppError("AUTH_TOKEN_MISSING");
        if (refresh_token === null) throw new AppError("VALIDATION_FAILED", { details: { fields: NO_REFRESH_TOKEN } });
        assertOwnPage(deps.settings, request);
        const tokens = await refresh(deps, { refresh_token, fingerprint }, callerOf(request)).catch((error) => {
          if (ENDS_COOKIES.has(error.errorCode)) takeCookies(deps, set);
          throw error;
        });
        return intoCookies(deps, set, tokens, {});
      },
      {
        body: t.Optional(RefreshBody),
        detail: describe({
          tag,
          summary: "Trade a refresh token for the next tokens of the session",
          description:
            "By body, or by the cookie of a login in cookie mode. A refresh token works once. Using one again after the grace ends the session.",
          cookie: true,
          takesBody: "optional",
          answers: { 200: TokenAnswer },
          errors: [
            "AUTH_TOKEN_MISSING",
            "AUTH_TOKEN_INVALID",
            "AUTH_TOKEN_EXPIRED",
            "AUTH_TOKEN_REVOKED",
            "AUTH_REFRESH_REUSED",
            "CSRF_REJECTED",
          ],
        }),
      },
    )
    .post(
      "/logout",
      async ({ body, request, set }) => {
        const authorization = request.headers.get("authorization");
        const cookie = cookieOf(deps.settings, request, "refresh");
        const isBearer = authorization !== null && /^bearer /i.test(authorization);
        const byCookie = cookie !== null && body?.refresh_token === undefined && !isBearer;
        if (byCookie) assertOwnPage(deps.settings, request);
        const input = byCookie ? { ...body, refresh_token: cookie } : (body ?? {});
        await logout(deps, input, authorization, callerOf(request));
        if (cookie !== null) takeCookies(deps, set);
        set.status = 204;
      },
      {
        body: t.Optional(LogoutBody),
        detail: describe({
          tag,
          summary: "End a session",
          description:
            "By bearer token, by refresh token or by the cookie of a login in cookie mode, expired or not. Its access token is dead at once.",
          bearer: "optional",
          cookie: true,
          takesBody: "optional",
          answers: { 204: "The session has ended" },
          errors: ["AUTH_TOKEN_MISSING", "AUTH_TOKEN_INVALID", "CSRF_REJECTED"],
        }),
      },
    )
    .post(
      "/step-up",
      ({ body, principal, claims, request }) => stepUp(deps, { principal, claims }, body, callerOf(request)),
      {
        access: "user",
        body: StepUpBody,
        detail: describe({
          tag,
          summary: "Prove once more who you are",
          description:
            "For routes that answer AUTH_STEP_UP_REQUIRED. Access tokens from before stay as they are; those of later refreshes are as fresh as this one.",
          bearer: true,
          takesBody: true,
          answers: { 200: AccessTokenAnswer },
          errors: ["AUTH_INVALID_CREDENTIALS"],
        }),
      },
    )
    .get(
      "/verify",
      ({ claims, principal, query, request, set }) => {
        const reason = queryFault(request.url);
        if (reason !== undefined) throw new AppError("FORBIDDEN", { internal: reason, details: { reason } });
        const { permission, resource } = query;
        if (permission !== undefined && !can(principal, permission, resource)) {
          throw new AppError("FORBIDDEN", { details: { permission, ...(resource === undefined ? {} : { resource }) } });
        }
        set.headers["x-auth-user-id"] = principal.id;
        set.headers["x-auth-username"] = principal.username;
        set.headers["x-auth-roles"] = principal.roles.join(",");
        const { sub, sid, jti, iat, exp } = claims;
        const { username, roles, permissions } = principal;
        return { active: true as const, sub, username, roles, scope: permissions.join(" "), sid, jti, iat, exp };
      },
      {
        access: { evenStale: true },
        query: VerifyQuery,
        detail: describe({
          tag,
          summary: "Check an access token",
          limits: [],
          description:
            "For gateways: nginx auth_request, Traefik forwardAuth, Caddy forward_auth. The headers X-Auth-User-Id, X-Auth-Username and X-Auth-Roles carry who it is. While the database is away, sessions seen within resilience.verify_stale still count.",
          bearer: true,
          answers: { 200: VerifyAnswer },
          errors: ["FORBIDDEN"],
        }),
      },
    );
