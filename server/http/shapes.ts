import { t } from "elysia";
import { USER_STATUSES } from "../../db/schema/users.ts";
import { DEFAULT_LIMIT, MAX_LIMIT } from "../page.ts";

/** Shapes that several features answer or take. */
const strict = { additionalProperties: false } as const;

/** What every list is asked with. */
export const page = {
  limit: t.Optional(
    t.Integer({ minimum: 1, maximum: MAX_LIMIT, default: DEFAULT_LIMIT, description: "How many at most" }),
  ),
  cursor: t.Optional(t.String({ description: "The next_cursor of the page before" })),
};

/** The same, where nothing else may be asked. */
export const PageQuery = t.Object(page, strict);

const q = t.String({
  minLength: 1,
  maxLength: 254,
  description: "What the user name or the address has in it; of one or two characters, what it begins with",
});

/** The same, for users. */
export const UserQuery = t.Object({ ...page, q: t.Optional(q) }, strict);

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
