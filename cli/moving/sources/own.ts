import { USER_STATUSES } from "../../../db/schema/users.ts";
import type { Draft } from "../../../server/features/moving/service.ts";
import { draft, type Source } from "../source.ts";
import { type Fields, flagIn, listIn, RecordFault, textIn, textsIn, timeIn } from "../values.ts";

/** What `primer users export` writes; of files made by hand only the e-mail address has to be there. */
function draftOf(user: Fields): Draft {
  const verifiedAt = timeIn(user, "email_verified_at");
  return draft({
    id: textIn(user, "id"),
    username: textIn(user, "username"),
    email: textIn(user, "email"),
    emailVerified: flagIn(user, "email_verified") ?? verifiedAt !== undefined,
    emailVerifiedAt: verifiedAt,
    status: statusOf(user),
    passwordHash: textIn(user, "password_hash"),
    pepperId: textIn(user, "password_pepper_id"),
    passwordChangedAt: timeIn(user, "password_changed_at"),
    passwordChangeRequired: flagIn(user, "password_change_required"),
    roles: rolesOf(user),
    grants: grantsOf(user),
    createdAt: timeIn(user, "created_at"),
    updatedAt: timeIn(user, "updated_at"),
    lastLoginAt: timeIn(user, "last_login_at"),
    deactivatedAt: timeIn(user, "deactivated_at"),
  });
}

function statusOf(user: Fields): Draft["status"] {
  const status = textIn(user, "status") ?? (flagIn(user, "disabled") ? "disabled" : "active");
  const known = USER_STATUSES.find((one) => one === status);
  if (!known) throw new RecordFault(`status is none of ${USER_STATUSES.join(", ")}`);
  return known;
}

/** A list, or in a cell of CSV names with spaces between them; undefined where nothing was said of roles. */
function rolesOf(user: Fields): readonly string[] | undefined {
  if (user.roles === undefined || user.roles === null) return undefined;
  return typeof user.roles === "string" ? user.roles.split(/[\s,;]+/).filter(Boolean) : textsIn(user, "roles");
}

/** A list of `{role, resource}`, in CSV as JSON. */
function grantsOf(user: Fields): Draft["grants"] {
  return listIn(user, "grants").map((grant) => {
    const [role, resource] = [textIn(grant, "role"), textIn(grant, "resource")];
    if (role === undefined || resource === undefined) throw new RecordFault("grants are not of roles and resources");
    return { role, resource };
  });
}

const ndjson: Source = { ownRoles: true, reader: () => draftOf };

/**
 * Spreadsheets take cells that begin like this for formulas, so the export writes an apostrophe before them, and before
 * an apostrophe, so that the import takes none away that was there.
 */
export const FORMULA = /^['=+\-@\t\r]/;

const withoutApostrophe = (cell: unknown) =>
  typeof cell === "string" && cell.startsWith("'") && FORMULA.test(cell.slice(1)) ? cell.slice(1) : cell;

const csv: Source = {
  ownRoles: true,
  csv: "always",
  reader: () => (row) =>
    draftOf(Object.fromEntries(Object.entries(row).map(([name, cell]) => [name, withoutApostrophe(cell)]))),
};

export { csv, ndjson };
