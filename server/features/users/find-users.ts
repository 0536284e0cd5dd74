import { listLogins } from "../../../db/queries/logins.ts";
import { findUser, listGrants, listUsers, type UserWithRights } from "../../../db/queries/users.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { isId } from "../../ports/random.ts";
import { parseEmail, parseUsername } from "./names.ts";
import { invalidField, type UserDeps, type UserView, viewOf } from "./user.ts";

async function userAt({ db }: UserDeps, cursor: string): Promise<UserWithRights> {
  const found = isId(cursor) ? await findUser(db.orm, { id: cursor }) : undefined;
  if (!found) throw invalidField("cursor", "Expected the next_cursor of a page");
  return found;
}

/** Newest first. `after` is the id of the last user of the page before. @throws AppError VALIDATION_FAILED */
export async function listUserPage(deps: UserDeps, page: { limit: number; search?: string; after?: string }) {
  const last = page.after === undefined ? undefined : await userAt(deps, page.after);
  const rows = await listUsers(deps.db.replica, {
    limit: page.limit + 1,
    ...(page.search === undefined ? {} : { search: page.search.toLowerCase() }),
    ...(last ? { after: last.user } : {}),
  });
  const shown = rows.slice(0, page.limit).map(viewOf);
  return { data: shown, next_cursor: rows.length > page.limit ? (shown.at(-1)?.id ?? null) : null };
}

/** The user that somebody names by id, user name or e-mail address. @throws AppError NOT_FOUND */
export async function findUserByAny(deps: UserDeps, text: string): Promise<UserView> {
  const email = parseEmail(text);
  const username = parseUsername(text);
  const by = isId(text.toLowerCase())
    ? { id: text.toLowerCase() }
    : email
      ? { emailKey: email.emailKey }
      : { username: username ?? "" };
  const found = await findUser(deps.db.orm, by);
  if (!found) throw new AppError("NOT_FOUND");
  return viewOf(found);
}

/** @throws AppError NOT_FOUND */
export async function getUser(deps: Pick<Deps, "db">, id: string): Promise<UserView> {
  const found = isId(id) ? await findUser(deps.db.orm, { id }) : undefined;
  if (!found) throw new AppError("NOT_FOUND");
  return viewOf(found);
}

/** Everything that a user may do: everywhere, and on single things. @throws AppError NOT_FOUND */
export async function rightsOf(deps: Pick<Deps, "db">, id: string) {
  const found = isId(id) ? await findUser(deps.db.orm, { id }) : undefined;
  if (!found) throw new AppError("NOT_FOUND");
  return { permissions: found.permissions, grants: await listGrants(deps.db.orm, id) };
}

/** A user's attempts to log in, newest first. @throws AppError VALIDATION_FAILED for a wrong cursor, NOT_FOUND */
export async function listLoginPage(
  deps: Pick<Deps, "db">,
  userId: string,
  { limit, cursor }: { limit: number; cursor?: string },
) {
  if (cursor !== undefined && !isId(cursor)) throw invalidField("cursor", "Expected the next_cursor of a page");
  await getUser(deps, userId);
  const rows = await listLogins(deps.db.replica, userId, {
    limit: limit + 1,
    ...(cursor === undefined ? {} : { before: cursor }),
  });
  const data = rows.slice(0, limit).map((row) => ({
    id: row.id,
    time: row.createdAt.toISOString(),
    outcome: row.outcome,
    reason: row.reason,
    session_id: row.sessionId,
    ip: row.ip,
    user_agent: row.userAgent,
  }));
  return { data, next_cursor: rows.length > limit ? (data.at(-1)?.id ?? null) : null };
}
