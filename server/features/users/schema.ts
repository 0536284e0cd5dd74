import { t } from "elysia";
import { USER_STATUSES } from "../../../db/schema/users.ts";

const strict = { additionalProperties: false } as const;
/** How many a page holds where nobody says. */
export const DEFAULT_LIMIT = 50;
const MAX_LIMIT = 200;

/** Whatever is no id of anything is a missing one: 404, never 422, so that nothing is told apart. */
export const IdParams = t.Object({ id: t.String({ description: "A UUID" }) });

const username = t.String({
  minLength: 1,
  maxLength: 128,
  description: "2 to 64 of a-z, 0-9, dot, underscore, hyphen",
});
const email = t.String({ minLength: 3, maxLength: 254, description: "Counts as verified: the administrator vouches" });
const roleNames = t.Array(t.String({ maxLength: 63 }), { maxItems: 50, description: "Names of roles" });

const page = {
  limit: t.Optional(t.Integer({ minimum: 1, maximum: MAX_LIMIT, default: DEFAULT_LIMIT })),
  cursor: t.Optional(t.String({ description: "The next_cursor of the page before" })),
};
export const PageQuery = t.Object(page, strict);
export const UserQuery = t.Object(
  { ...page, q: t.Optional(t.String({ minLength: 1, maxLength: 254, description: "In the user name or address" })) },
  strict,
);
export const EraseQuery = t.Object(
  {
    erase: t.Optional(t.BooleanString({ description: "Not only out of use: everything personal is removed for good" })),
  },
  strict,
);

export const NewUserBody = t.Object(
  {
    username,
    email,
    password: t.String({ minLength: 1, maxLength: 4096 }),
    roles: t.Optional(roleNames),
  },
  { ...strict, examples: [{ username: "ada", email: "ada@example.org", password: "…", roles: ["user"] }] },
);

export const UserBody = t.Object(
  {
    username: t.Optional(username),
    email: t.Optional(email),
    // Not UnionEnum, which fills in its first value where none is given.
    status: t.Optional(t.Union([t.Literal("active"), t.Literal("disabled")])),
  },
  { ...strict, minProperties: 1, examples: [{ status: "disabled" }] },
);

export const RolesBody = t.Object(
  {
    roles: roleNames,
    grants: t.Optional(
      t.Array(
        t.Object(
          { role: t.String({ maxLength: 63 }), resource: t.String({ maxLength: 512, description: "tenants/acme" }) },
          strict,
        ),
        { maxItems: 200, description: "Roles on one thing and everything under it; where left out they stay" },
      ),
    ),
  },
  { ...strict, examples: [{ roles: ["user"], grants: [{ role: "editor", resource: "tenants/acme" }] }] },
);

const user = {
  id: t.String({ format: "uuid" }),
  username: t.String(),
  email: t.String(),
  email_verified: t.Boolean(),
  status: t.UnionEnum([...USER_STATUSES]),
  roles: t.Array(t.String()),
  created_at: t.String({ format: "date-time" }),
  updated_at: t.String({ format: "date-time" }),
  last_login_at: t.Nullable(t.String({ format: "date-time" })),
};

export const UserAnswer = t.Object(user, { description: "The user" });

export const UserPage = t.Object(
  { data: t.Array(t.Object(user)), next_cursor: t.Nullable(t.String()) },
  { description: "The newest users first" },
);

export const LoginPage = t.Object(
  {
    data: t.Array(
      t.Object({
        id: t.String({ format: "uuid" }),
        time: t.String({ format: "date-time" }),
        outcome: t.UnionEnum(["success", "failure"]),
        reason: t.String({ description: "How they proved who they are, or why not" }),
        session_id: t.Nullable(t.String({ format: "uuid" })),
        ip: t.Nullable(t.String()),
        user_agent: t.Nullable(t.String()),
      }),
    ),
    next_cursor: t.Nullable(t.String()),
  },
  { description: "Attempts to log in, the newest first" },
);

export const RightsAnswer = t.Object(
  {
    permissions: t.Array(t.String(), { description: "Everywhere" }),
    grants: t.Array(
      t.Object({
        role: t.String(),
        resource: t.String({ description: "This thing and everything under it" }),
        permissions: t.Array(t.String()),
      }),
      { description: "On single things" },
    ),
  },
  { description: "Everything that somebody may do, with what their roles include" },
);
