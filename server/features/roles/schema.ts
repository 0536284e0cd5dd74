import { t } from "elysia";

const strict = { additionalProperties: false } as const;
const name = t.String({ minLength: 1, maxLength: 63, description: "a-z, 0-9, dot, underscore and hyphen" });
const permissions = t.Array(t.String({ maxLength: 127 }), {
  maxItems: 200,
  description: 'What it gives: "resource:action", either side may be "*"',
});
const includes = t.Array(name, { maxItems: 50, description: "Roles that it gives everything of as well" });
const description = t.String({ maxLength: 500 });

export const RoleParams = t.Object({ name: t.String() });

export const NewRoleBody = t.Object(
  { name, description: t.Optional(description), permissions, includes: t.Optional(includes) },
  {
    ...strict,
    examples: [
      {
        name: "support",
        description: "Looks after users",
        permissions: ["users:read", "sessions:*"],
        includes: ["user"],
      },
    ],
  },
);

export const RoleBody = t.Object(
  { description: t.Optional(description), permissions: t.Optional(permissions), includes: t.Optional(includes) },
  { ...strict, minProperties: 1, examples: [{ permissions: ["users:read"] }] },
);

const role = {
  name: t.String(),
  description: t.String(),
  permissions: t.Array(t.String(), { description: "What it gives by itself" }),
  includes: t.Array(t.String(), { description: "Roles that it gives everything of as well" }),
  built_in: t.Boolean({ description: "Came with primer: never deleted, and admin never changed" }),
  created_at: t.String({ format: "date-time" }),
  updated_at: t.String({ format: "date-time" }),
};

export const RoleAnswer = t.Object(role, { description: "The role" });

export const RolePage = t.Object(
  { data: t.Array(t.Object(role)), next_cursor: t.Nullable(t.String()) },
  { description: "The newest roles first" },
);

export const PermissionList = t.Object(
  {
    data: t.Array(
      t.Object({
        permission: t.String(),
        description: t.Nullable(t.String({ description: "Null for those of other services" })),
      }),
    ),
    next_cursor: t.Null(),
  },
  { description: "What primer asks for, and what roles give" },
);
