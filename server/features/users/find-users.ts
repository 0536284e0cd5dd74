import { listLogins } from "../../../db/queries/logins.ts";
import { hasSearchIndex, listUsers, searchUsers } from "../../../db/queries/user-search.ts";
import { findUser, listGrants, type UserWithRights } from "../../../db/queries/users.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { badCursor, type Page, type PageAsked, pageOf, rowsAsked } from "../../page.ts";
import { isId } from "../../ports/random.ts";
import { parseEmail, parseSearch, parseUsername } from "./names.ts";
import { type UserDeps, type UserView, viewOf } from "./user.ts";

async function userAt({ db }: UserDeps, cursor: string): Promise<UserWithRights> {
  const found = isId(cursor) ? await findUser(db.orm, { id: cursor }) : undefined;
  if (!found) throw badCursor();
  return found;
}

/** So many characters are looked for anywhere in a name; fewer are in too many of them. */
const LEAST_ANYWHERE = 3;

/**
 * Newest first. The cursor is the id of the last user of the page before.
 *
 * @param text what the user name or the address of all has in it, or begins with: where it is short, and where the
 * database has no index for the other
 * @throws AppError VALIDATION_FAILED
 */
export async function listUserPage(deps: UserDeps, { limit, cursor }: PageAsked, text = ""): Promise<Page<UserView>> {
  const { replica } = deps.db;
  const last = cursor === undefined ? undefined : await userAt(deps, cursor);
  const asked = { limit: limit + 1, ...(last ? { after: last.user } : {}) };
  const piece = parseSearch(text);
  const anywhere = [...piece].length >= LEAST_ANYWHERE && (await hasSearchIndex(replica));
  const rows =
    piece === ""
      ? await listUsers(replica, asked)
      : await searchUsers(replica, asked, { text: piece, where: anywhere ? "anywhere" : "beginning" });
  return pageOf(rows.map(viewOf), limit, ({ id }) => id);
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
export async function listLoginPage(deps: Pick<Deps, "db">, userId: string, page: PageAsked) {
  const asked = rowsAsked(page);
  await getUser(deps, userId);
  const rows = await listLogins(deps.db.replica, userId, asked);
  const views = rows.map((row) => ({
    id: row.id,
    time: row.createdAt.toISOString(),
    outcome: row.outcome,
    reason: row.reason,
    session_id: row.sessionId,
    ip: row.ip,
    user_agent: row.userAgent,
  }));
  return pageOf(views, page.limit, ({ id }) => id);
}
