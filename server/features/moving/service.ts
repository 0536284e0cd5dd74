import {
  countUsers,
  type ImportedRow,
  insertImportedUsers,
  listStandingUsers,
  listUsersToExport,
  type RoleOnThing,
} from "../../../db/queries/moving.ts";
import { listRoleNames } from "../../../db/queries/users.ts";
import { AppError } from "../../errors.ts";
import { audit } from "../audit/service.ts";
import type { Actor, UserDeps } from "../users/service.ts";
import type { Draft, ImportOptions, ImportOutcome } from "./draft.ts";
import { type Prepared, prepare, rejected } from "./prepare.ts";
import { settle, standingOf } from "./settle.ts";

export type { Draft, ImportOptions, ImportOutcome, RejectCode, Rejected } from "./draft.ts";
export { NAMING_RULE } from "./names.ts";

/** How many users are written in one transaction. */
export const BATCH_SIZE = 200;

/** What is recorded of an import: where it came from, then how it ended. */
export type ImportRecord = Readonly<Record<string, string | number | boolean | Readonly<Record<string, number>>>>;

/**
 * Before the first batch: that somebody imports is on record even if the import never comes to its end.
 *
 * @throws AppError VALIDATION_FAILED where a role is meant that there is not
 */
export async function beginImport(deps: UserDeps, options: ImportOptions, record: ImportRecord, by: Actor) {
  const known = await listRoleNames(deps.db.orm);
  const missing = Object.values(options.roleMap ?? {}).filter((role) => !known.includes(role));
  if (missing.length > 0) {
    const message = `There is no role ${missing.join(", ")}; there are ${known.join(", ")}`;
    throw new AppError("VALIDATION_FAILED", { details: { fields: [{ path: "--role-map", message }] } });
  }
  if (options.dryRun) return;
  await deps.db.transaction((tx) =>
    audit(tx, deps, { action: "users.import_began", outcome: "success", details: record, ...by }),
  );
}

/** After the last batch: how many there were of each kind. `complete` is false where it was broken off. */
export async function finishImport(deps: UserDeps, record: ImportRecord, complete: boolean, by: Actor): Promise<void> {
  const outcome = complete ? "success" : "failure";
  await deps.db.transaction((tx) => audit(tx, deps, { action: "users.imported", outcome, details: record, ...by }));
}

/**
 * Imports users in one transaction: all of them that can be, or none. Users who are there are left alone, so the same
 * batch may be given again. No password policy is asked, and nobody gets a mail.
 *
 * @returns what became of each, in their order
 */
export async function importBatch(
  deps: UserDeps,
  drafts: readonly Draft[],
  options: ImportOptions,
): Promise<ImportOutcome[]> {
  const roles = await listRoleNames(deps.db.orm);
  const prepared = drafts.map((draft) => prepare(deps, draft, options, roles));
  const good = prepared.filter((one): one is Prepared => "row" in one);
  const keys = {
    ids: good.map(({ row }) => row.id),
    usernames: good.flatMap(({ names }) => names),
    emailKeys: good.map(({ row }) => row.emailKey),
  };
  const now = deps.clock.now();
  return deps.db.transaction(async (tx) => {
    const standing = standingOf(await listStandingUsers(tx, keys));
    const settled = prepared.map((one) => ("row" in one ? settle(one, standing) : { outcome: one }));
    if (options.dryRun) return settled.map(({ outcome }) => outcome);
    const rows = settled.flatMap(({ row }) => (row ? [row] : []));
    const written = await insertImportedUsers(tx, rows, now);
    return settled.map(({ row, outcome }) => (row && !written.has(row.id) ? overtaken(row) : outcome));
  });
}

const overtaken = ({ username }: ImportedRow) =>
  rejected("username_taken", `Somebody took the user name ${username} or the address at this moment; import again`);

/** A user with everything that moves with them, as exports have it. */
export interface ExportedUser {
  readonly id: string;
  readonly username: string;
  readonly email: string;
  readonly email_verified_at: string | null;
  readonly status: string;
  readonly roles: readonly string[];
  /** Roles on single things. */
  readonly grants: readonly RoleOnThing[];
  readonly password_hash: string | null;
  readonly password_pepper_id: string | null;
  readonly password_changed_at: string | null;
  readonly password_change_required: boolean;
  readonly created_at: string;
  readonly updated_at: string;
  readonly last_login_at: string | null;
  readonly deactivated_at: string | null;
}

/** Before the first page: that somebody takes every hash with them is on record. @returns how many users there are */
export async function beginExport(deps: UserDeps, record: ImportRecord, by: Actor): Promise<number> {
  return deps.db.transaction(async (tx) => {
    const users = await countUsers(tx);
    await audit(tx, deps, { action: "users.exported", outcome: "success", details: { ...record, users }, ...by });
    return users;
  });
}

/** Users with their hashes, by id, after the one with the id given; fewer than {@link BATCH_SIZE} are the last ones. */
export async function exportPage(deps: UserDeps, after: string | undefined): Promise<ExportedUser[]> {
  const page = { limit: BATCH_SIZE, ...(after === undefined ? {} : { after }) };
  const found = await listUsersToExport(deps.db.orm, page);
  return found.map(({ user, roles, grants, password }) => ({
    id: user.id,
    username: user.username,
    email: user.email,
    email_verified_at: textOf(user.emailVerifiedAt),
    status: user.status,
    roles,
    grants,
    password_hash: password?.secret ?? null,
    password_pepper_id: password?.pepperId ?? null,
    password_changed_at: textOf(password?.updatedAt ?? null),
    password_change_required: user.passwordChangeRequired,
    created_at: user.createdAt.toISOString(),
    updated_at: user.updatedAt.toISOString(),
    last_login_at: textOf(user.lastLoginAt),
    deactivated_at: textOf(user.deactivatedAt),
  }));
}

const textOf = (time: Date | null) => time?.toISOString() ?? null;
