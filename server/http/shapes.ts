import { t } from "elysia";
import { USER_STATUSES } from "../../db/schema/users.ts";

/** Shapes that several features answer or take. */
const strict = { additionalProperties: false } as const;

/** How many a page holds where nobody says, and at most. */
export const DEFAULT_LIMIT = 50;
const MAX_LIMIT = 200;

const page = {
  limit: t.Optional(
    t.Integer({ minimum: 1, maximum: MAX_LIMIT, default: DEFAULT_LIMIT, description: "How many at most" }),
  ),
  cursor: t.Optional(t.String({ description: "The next_cursor of the page before" })),
};

/** What every list is asked with. */
export const PageQuery = t.Object(page, strict);

/** The same, for users. */
export const UserQuery = t.Object(
  { ...page, q: t.Optional(t.String({ minLength: 1, maxLength: 254, description: "In the user name or address" })) },
  strict,
);

/** Whatever is no id of anything is a missing one: 404, never 422, so that nothing is told apart. */
export const IdParams = t.Object({ id: t.String({ description: "A UUID" }) });

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
