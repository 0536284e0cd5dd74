import type { ImportedRow, StandingUser } from "../../../db/queries/moving.ts";
import type { ImportOutcome, Rejected } from "./draft.ts";
import { type Prepared, rejected } from "./prepare.ts";

/** Who is there, and who is about to be: found by any of what may be theirs alone. */
export interface Standing {
  readonly byId: Map<string, StandingUser>;
  readonly byUsername: Map<string, StandingUser>;
  readonly byEmail: Map<string, StandingUser>;
}

export function standingOf(users: readonly StandingUser[]): Standing {
  const standing: Standing = { byId: new Map(), byUsername: new Map(), byEmail: new Map() };
  for (const user of users) keep(standing, user);
  return standing;
}

function keep({ byId, byUsername, byEmail }: Standing, user: StandingUser): void {
  byId.set(user.id, user);
  byUsername.set(user.username, user);
  byEmail.set(user.emailKey, user);
}

/**
 * Finds a place for a user among those who are there. The same user, by id or by name and address, is left alone; nobody
 * gets into an account by having its name or its address alone.
 *
 * @returns the row to write and what then became of the user; or what becomes of them without one
 */
export function settle(
  prepared: Prepared,
  standing: Standing,
):
  | { readonly row: ImportedRow; readonly outcome: ImportOutcome }
  | { readonly row?: never; readonly outcome: ImportOutcome } {
  const { row, names, naming, hash, rolesIgnored } = prepared;
  const known = findSame(prepared, standing);
  if (known) return { outcome: known };
  const username = names.find((name) => !standing.byUsername.has(name));
  if (username === undefined) return { outcome: takenName(names, standing) };
  const outcome = {
    outcome: "imported",
    username,
    emailKey: row.emailKey,
    hash,
    naming: naming === "kept" && username !== names[0] ? "renamed" : naming,
    rolesIgnored,
  } as const;
  keep(standing, { ...row, username });
  return { row: { ...row, username }, outcome };
}

function findSame({ row, names }: Prepared, { byId, byEmail }: Standing): ImportOutcome | undefined {
  if (byId.has(row.id)) return { outcome: "existing" };
  const owner = byEmail.get(row.emailKey);
  if (!owner) return undefined;
  if (owner.status === "pending") return pending();
  if (names.includes(owner.username)) return { outcome: "existing" };
  return rejected("email_taken", "Another user has this e-mail address");
}

function takenName(names: readonly string[], { byUsername }: Standing): Rejected {
  if (names.some((name) => byUsername.get(name)?.status === "pending")) return pending();
  return rejected("username_taken", "Another user has this user name; --rename gives another one");
}

const pending = () =>
  rejected(
    "registration_pending",
    "Somebody has begun to register with this user name or address and has not confirmed it; wait until that is over, or delete it",
  );
