import { type Context, Elysia } from "elysia";
import type { Deps } from "../../deps.ts";
import { etagOf } from "../../etag.ts";
import { access, actorOf } from "../../http/access.ts";
import { keyedRequest } from "../../http/idempotency.ts";
import { describe } from "../../http/openapi.ts";
import { PageQuery } from "../../http/shapes.ts";
import { DEFAULT_LIMIT } from "../../page.ts";
import { createOnce } from "../idempotency/service.ts";
import { NewRoleBody, PermissionList, RoleAnswer, RoleBody, RolePage, RoleParams } from "./schema.ts";
import {
  changeRole,
  createRole,
  deleteRole,
  getRole,
  listPermissions,
  listRolePage,
  type RoleView,
} from "./service.ts";

const tag = "Roles";
const PATH = "/api/v1/roles";
const READ = { permission: "roles:read" };
const WRITE = { permission: "roles:write" };
const example = {
  name: "support",
  description: "Looks after users",
  permissions: ["sessions:*", "users:read"],
  includes: ["user"],
  built_in: false,
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-01T00:00:00.000Z",
};

function tagged(set: Context["set"], role: RoleView): RoleView {
  set.headers.etag = etagOf(JSON.stringify(role));
  return role;
}

export const roleRoutes = (deps: Deps) =>
  new Elysia({ name: "roles", prefix: "/api/v1" })
    .use(access(deps))
    .get("/roles", ({ query }) => listRolePage(deps, { limit: DEFAULT_LIMIT, ...query }), {
      access: READ,
      query: PageQuery,
      detail: describe({
        tag,
        summary: "List the roles",
        description: "Permission roles:read.",
        bearer: true,
        answers: { 200: RolePage },
        errors: ["FORBIDDEN", "VALIDATION_FAILED"],
        example: { data: [example], next_cursor: null },
      }),
    })
    .post(
      "/roles",
      async ({ body: { name, ...given }, principal, request, set }) => {
        const content = { description: "", includes: [], ...given };
        const by = actorOf(principal, request);
        const role = await createOnce(deps, keyedRequest(request, principal, { name, ...given }), (once) =>
          createRole(deps, name, content, by, once),
        );
        set.status = 201;
        set.headers.location = `${PATH}/${role.name}`;
        return tagged(set, role);
      },
      {
        access: WRITE,
        body: NewRoleBody,
        detail: describe({
          tag,
          summary: "Make a role",
          description: "Permission roles:write. It can give no more than you may do yourself.",
          bearer: true,
          takesBody: true,
          takesKey: true,
          answers: { 201: RoleAnswer },
          errors: ["FORBIDDEN", "CONFLICT"],
          example,
        }),
      },
    )
    .get("/roles/:name", async ({ params, set }) => tagged(set, await getRole(deps, params.name)), {
      access: READ,
      params: RoleParams,
      detail: describe({
        tag,
        summary: "Show a role",
        description: "Permission roles:read.",
        bearer: true,
        answers: { 200: RoleAnswer },
        errors: ["FORBIDDEN", "NOT_FOUND"],
        example,
      }),
    })
    .put(
      "/roles/:name",
      async ({ body, params, principal, request, set }) => {
        const ifMatch = request.headers.get("if-match");
        return tagged(set, await changeRole(deps, params.name, body, actorOf(principal, request), ifMatch));
      },
      {
        access: WRITE,
        params: RoleParams,
        body: RoleBody,
        detail: describe({
          tag,
          summary: "Change a role",
          description:
            "Permission roles:write. Changes the fields given; counts at the next request of whoever has the role. Refused where the role gives, or would give, more than you may do yourself. With If-Match only as it was when you read it.",
          bearer: true,
          takesBody: true,
          answers: { 200: RoleAnswer },
          errors: ["FORBIDDEN", "NOT_FOUND", "CONFLICT", "PRECONDITION_FAILED"],
          example,
        }),
      },
    )
    .delete(
      "/roles/:name",
      async ({ params, principal, request, set }) => {
        const ifMatch = request.headers.get("if-match");
        await deleteRole(deps, params.name, actorOf(principal, request), ifMatch);
        set.status = 204;
      },
      {
        access: WRITE,
        params: RoleParams,
        detail: describe({
          tag,
          summary: "Delete a role",
          description: "Permission roles:write. Refused while somebody has it or another role includes it.",
          bearer: true,
          answers: { 204: "The role is gone" },
          errors: ["FORBIDDEN", "NOT_FOUND", "CONFLICT", "PRECONDITION_FAILED"],
        }),
      },
    )
    .get("/permissions", async () => ({ ...(await listPermissions(deps)), next_cursor: null }), {
      access: READ,
      detail: describe({
        tag,
        summary: "List the permissions",
        description: "Permission roles:read.",
        bearer: true,
        answers: { 200: PermissionList },
        errors: ["FORBIDDEN"],
        example: { data: [{ permission: "users:read", description: "See all users." }], next_cursor: null },
      }),
    });
