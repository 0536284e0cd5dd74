import { and, desc, isNull, like, or, type SQL, sql } from "drizzle-orm";
import type { Reader } from "../database.ts";
import { users } from "../schema/users.ts";
import { rolesOfUser, type UserWithRights } from "./users.ts";

export type ListedUser = Pick<UserWithRights, "user" | "roles">;

/** A page of users, the newest first, from after the one given on. */
export interface UserPageAsked {
  readonly limit: number;
  readonly after?: { readonly createdAt: Date; readonly id: string };
}

/** What a user name or an address has in it, or begins with; in lower case. */
export interface UserSearch {
  readonly text: string;
  readonly where: "anywhere" | "beginning";
}

/**
 * How many users a search looks through one after the other for each that it is to find. Where it does not find them, no
 * more than one in so many fits, as a rule, and those are few enough to be looked up by an index and sorted.
 */
const LOOKED_THROUGH = 100;

/** What makes the index where the migration could not: as that does, but without keeping anybody waiting. */
export const SEARCH_INDEX_STATEMENTS =
  "CREATE EXTENSION IF NOT EXISTS pg_trgm; DROP INDEX IF EXISTS users_search_idx; CREATE INDEX CONCURRENTLY users_search_idx ON users USING gin (username gin_trgm_ops, email_key gin_trgm_ops) WITH (gin_pending_list_limit = 256);";

/** Whether what is anywhere in a name can be looked up: that takes an extension that not every PostgreSQL has. */
export async function hasSearchIndex(tx: Reader): Promise<boolean> {
  const [row] = await tx
    .select({
      found: sql<boolean>`EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('users_search_idx') AND indisvalid)`,
    })
    .from(sql`(SELECT 1) AS one`);
  return row?.found ?? false;
}

/** The pair is compared as one, so that a page far behind is found by the index as fast as the first. */
const isListed = ({ after }: UserPageAsked) =>
  and(
    isNull(users.erasedAt),
    after &&
      sql`(${users.createdAt}, ${users.id}) < (${sql.param(after.createdAt, users.createdAt)}, ${sql.param(after.id, users.id)})`,
  );

const newestFirst = [desc(users.createdAt), desc(users.id)];

const listThose = (tx: Reader, which: SQL | undefined, limit: number): Promise<ListedUser[]> =>
  tx
    .select({ user: users, roles: rolesOfUser })
    .from(users)
    .where(which)
    .orderBy(...newestFirst)
    .limit(limit);

export const listUsers = (tx: Reader, page: UserPageAsked) => listThose(tx, isListed(page), page.limit);

/**
 * The same, of those only that fit a search. What many fit is found among the newest users; what few fit is looked up by
 * an index. The database would have to guess which of both it is, and guesses wrong where the newest users are not like
 * the others. So both ways are bounded, unless many fit and none of them is new: then all that fit are read.
 */
export async function searchUsers(tx: Reader, page: UserPageAsked, search: UserSearch): Promise<ListedUser[]> {
  const { limit } = page;
  const text = search.text.replace(/[\\%_]/g, "\\$&");
  const pattern = search.where === "anywhere" ? `%${text}%` : `${text}%`;
  const fits = or(like(users.username, pattern), like(users.emailKey, pattern));
  const order = sql`ORDER BY created_at DESC, id DESC`;
  const amongNewest = sql`
    SELECT id FROM (SELECT id, created_at, username, email_key FROM users WHERE ${isListed(page)} ${order}
      LIMIT ${limit * LOOKED_THROUGH}) AS users
    WHERE ${fits} ${order} LIMIT ${limit}`;
  const found = await listThose(tx, isOneOf(amongNewest), limit);
  if (found.length === limit) return found;
  // Fenced off: else the order that is asked for might be taken for a way to find them.
  const byIndex = sql`
    WITH fitting AS MATERIALIZED (SELECT id, created_at FROM users WHERE ${isListed(page)} AND ${fits})
    SELECT id FROM fitting ${order} LIMIT ${limit}`;
  return listThose(tx, isOneOf(byIndex), limit);
}

/** Worked out first, so that the rows are fetched by their keys. */
const isOneOf = (ids: SQL) => sql`${users.id} = ANY(ARRAY(${ids}))`;
