import { type Context, Elysia } from "elysia";
import type { Deps } from "../../deps.ts";
import { etagOf } from "../../etag.ts";
import { access, actorOf } from "../../http/access.ts";
import { keyedRequest } from "../../http/idempotency.ts";
import { describe } from "../../http/openapi.ts";
import { IdParams, PageQuery, UserAnswer, UserPage, UserQuery } from "../../http/shapes.ts";
import { DEFAULT_LIMIT } from "../../page.ts";
import { createOnce } from "../idempotency/service.ts";
import { EraseQuery, LoginPage, NewUserBody, RightsAnswer, RolesBody, UserBody } from "./schema.ts";
import {
  changeUser,
  createUser,
  deactivateUser,
  eraseUser,
  getUser,
  listLoginPage,
  listUserPage,
  requirePasswordChange,
  rightsOf,
  setRoles,
  type UserView,
  unlockUser,
} from "./service.ts";

const OWN = "Own account";
const ALL = "Users";
const PATH = "/api/v1/users";
const READ = { permission: "users:read" };
const WRITE = { permission: "users:write" };
/** What gives or takes an account asks who it is once more, like the same for one's own. */
const PROVEN_WRITE = { ...WRITE, stepUp: true };
const user = {
  id: "019b76da-a800-7000-8000-000000000000",
  username: "ada",
  email: "ada@example.org",
  email_verified: true,
  status: "active",
  roles: ["user"],
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-01T00:00:00.000Z",
  last_login_at: null,
};
const rights = { permissions: [], grants: [{ role: "editor", resource: "tenants/acme", permissions: ["orders:*"] }] };
const login = {
  id: "019b76da-a800-7000-8000-000000000000",
  time: "2026-01-01T00:00:00.000Z",
  outcome: "success",
  reason: "password",
  session_id: "019b76da-a800-7000-8000-000000000001",
  ip: "203.0.113.9",
  user_agent: "Mozilla/5.0",
};

function tagged(set: Context["set"], view: UserView): UserView {
  set.headers.etag = etagOf(JSON.stringify(view));
  return view;
}

const ifMatchOf = (request: Request) => request.headers.get("if-match");

/** What people see of their own account. */
const ownRoutes = (deps: Deps) =>
  new Elysia({ name: "own-account", prefix: PATH })
    .use(access(deps))
    .get("/me", async ({ principal, set }) => tagged(set, await getUser(deps, principal.id)), {
      access: "user",
      detail: describe({
        tag: OWN,
        summary: "Your account",
        bearer: true,
        answers: { 200: UserAnswer },
        example: user,
      }),
    })
    .get("/me/permissions", ({ principal }) => rightsOf(deps, principal.id), {
      access: "user",
      detail: describe({
        tag: OWN,
        summary: "What you may do",
        description: "Also what does not fit into a token's scope, and what is given on single things.",
        bearer: true,
        answers: { 200: RightsAnswer },
        example: rights,
      }),
    })
    .get(
      "/me/logins",
      ({ principal, query }) => listLoginPage(deps, principal.id, { limit: DEFAULT_LIMIT, ...query }),
      {
        access: "user",
        query: PageQuery,
        detail: describe({
          tag: OWN,
          summary: "Attempts to log in to your account",
          bearer: true,
          answers: { 200: LoginPage },
          errors: ["VALIDATION_FAILED"],
          example: { data: [login], next_cursor: null },
        }),
      },
    );

/** Looking after users. */
const adminRoutes = (deps: Deps) =>
  new Elysia({ name: "users", prefix: PATH })
    .use(access(deps))
    .get("", ({ query: { q, ...page } }) => listUserPage(deps, { limit: DEFAULT_LIMIT, ...page }, q), {
      access: READ,
      query: UserQuery,
      detail: describe({
        tag: ALL,
        summary: "List or search the users",
        description:
          "Permission users:read. With q only those whose user name or address has that text in it; of one or two characters, or where the database does not have the extension pg_trgm, those who begin with it.",
        bearer: true,
        answers: { 200: UserPage },
        errors: ["FORBIDDEN", "VALIDATION_FAILED"],
        example: { data: [user], next_cursor: null },
      }),
    })
    .post(
      "",
      async ({ body, principal, request, set }) => {
        const by = actorOf(principal, request);
        const made = await createOnce(deps, keyedRequest(request, principal, body), (once) =>
          createUser(deps, { roles: ["user"], ...body }, by, once),
        );
        set.status = 201;
        set.headers.location = `${PATH}/${made.id}`;
        return tagged(set, made);
      },
      {
        access: WRITE,
        body: NewUserBody,
        detail: describe({
          tag: ALL,
          summary: "Create a user",
          description:
            "Permission users:write. Active at once, with a verified address, and with no more rights than you have.",
          bearer: true,
          takesBody: true,
          takesKey: true,
          answers: { 201: UserAnswer },
          errors: ["FORBIDDEN", "CONFLICT", "PASSWORD_TOO_WEAK"],
          example: user,
        }),
      },
    )
    .get("/:id", async ({ params, set }) => tagged(set, await getUser(deps, params.id)), {
      access: READ,
      params: IdParams,
      detail: describe({
        tag: ALL,
        summary: "Show a user",
        description: "Permission users:read.",
        bearer: true,
        answers: { 200: UserAnswer },
        errors: ["FORBIDDEN", "NOT_FOUND"],
        example: user,
      }),
    })
    .put(
      "/:id",
      async ({ body, params, principal, request, set }) =>
        tagged(set, await changeUser(deps, params.id, body, actorOf(principal, request), ifMatchOf(request))),
      {
        access: PROVEN_WRITE,
        params: IdParams,
        body: UserBody,
        detail: describe({
          tag: ALL,
          summary: "Change, disable or enable a user",
          description:
            "Permission users:write. Changes the fields given. Disabling, and a new address, log the user out everywhere. Refused for a user who may do more than you. With If-Match only as it was when you read it.",
          bearer: true,
          takesBody: true,
          answers: { 200: UserAnswer },
          errors: ["FORBIDDEN", "AUTH_STEP_UP_REQUIRED", "NOT_FOUND", "CONFLICT", "PRECONDITION_FAILED"],
          example: user,
        }),
      },
    )
    .delete(
      "/:id",
      async ({ params, principal, query, request, set }) => {
        const remove = query.erase === true ? eraseUser : deactivateUser;
        await remove(deps, params.id, actorOf(principal, request), ifMatchOf(request));
        set.status = 204;
      },
      {
        access: PROVEN_WRITE,
        params: IdParams,
        query: EraseQuery,
        detail: describe({
          tag: ALL,
          summary: "Take a user out of use, or erase one",
          description:
            "Permission users:write. Logs the user out everywhere. One out of use is erased after accounts.erase_after, and enabled again until then; with ?erase=true everything personal is gone at once and for good.",
          bearer: true,
          answers: { 204: "Done" },
          errors: [
            "FORBIDDEN",
            "AUTH_STEP_UP_REQUIRED",
            "NOT_FOUND",
            "CONFLICT",
            "PRECONDITION_FAILED",
            "VALIDATION_FAILED",
          ],
        }),
      },
    )
    .put(
      "/:id/roles",
      async ({ body, params, principal, request, set }) =>
        tagged(set, await setRoles(deps, params.id, body, actorOf(principal, request))),
      {
        access: { permission: "roles:write", stepUp: true },
        params: IdParams,
        body: RolesBody,
        detail: describe({
          tag: ALL,
          summary: "Give a user exactly these roles",
          description:
            "Permission roles:write. Counts at the next request of any token of theirs. No more than you may do yourself; the last administrator stays.",
          bearer: true,
          takesBody: true,
          answers: { 200: UserAnswer },
          errors: ["FORBIDDEN", "AUTH_STEP_UP_REQUIRED", "NOT_FOUND", "CONFLICT"],
          example: user,
        }),
      },
    )
    .get("/:id/permissions", ({ params }) => rightsOf(deps, params.id), {
      access: READ,
      params: IdParams,
      detail: describe({
        tag: ALL,
        summary: "What a user may do",
        description: "Permission users:read.",
        bearer: true,
        answers: { 200: RightsAnswer },
        errors: ["FORBIDDEN", "NOT_FOUND"],
        example: rights,
      }),
    })
    .get("/:id/logins", ({ params, query }) => listLoginPage(deps, params.id, { limit: DEFAULT_LIMIT, ...query }), {
      access: READ,
      params: IdParams,
      query: PageQuery,
      detail: describe({
        tag: ALL,
        summary: "Attempts to log in as a user",
        description: "Permission users:read.",
        bearer: true,
        answers: { 200: LoginPage },
        errors: ["FORBIDDEN", "NOT_FOUND", "VALIDATION_FAILED"],
        example: { data: [login], next_cursor: null },
      }),
    })
    .post(
      "/:id/unlock",
      async ({ params, principal, request, set }) =>
        tagged(set, await unlockUser(deps, params.id, actorOf(principal, request))),
      {
        access: WRITE,
        params: IdParams,
        detail: describe({
          tag: ALL,
          summary: "Forget a user's failed logins",
          description: "Permission users:write. They can try again at once.",
          bearer: true,
          answers: { 200: UserAnswer },
          errors: ["FORBIDDEN", "NOT_FOUND"],
          example: user,
        }),
      },
    )
    .post(
      "/:id/require-password-change",
      async ({ params, principal, request, set }) => {
        await requirePasswordChange(deps, params.id, actorOf(principal, request));
        set.status = 204;
      },
      {
        access: WRITE,
        params: IdParams,
        detail: describe({
          tag: ALL,
          summary: "Have a user set a new password",
          description: "Permission users:write. Logs them out everywhere; the next login asks for a new password.",
          bearer: true,
          answers: { 204: "Done" },
          errors: ["FORBIDDEN", "NOT_FOUND"],
        }),
      },
    );

export const userRoutes = (deps: Deps) =>
  new Elysia({ name: "user-routes" }).use(ownRoutes(deps)).use(adminRoutes(deps));
