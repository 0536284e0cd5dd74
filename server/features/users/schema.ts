import { t } from "elysia";

const strict = { additionalProperties: false } as const;
const username = t.String({
  minLength: 1,
  maxLength: 128,
  description: "2 to 64 of a-z, 0-9, dot, underscore, hyphen",
});
const email = t.String({ minLength: 3, maxLength: 254, description: "Counts as verified: the administrator vouches" });
const roleNames = t.Array(t.String({ maxLength: 63 }), { maxItems: 50, description: "Names of roles" });

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
