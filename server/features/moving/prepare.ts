import { createHash } from "node:crypto";
import type { ImportedRow } from "../../../db/queries/moving.ts";
import type { Deps } from "../../deps.ts";
import { isId } from "../../ports/random.ts";
import { readHash } from "../passwords/service.ts";
import { isResource } from "../rights/service.ts";
import { parseEmail, parseUsername } from "../users/service.ts";
import type { Draft, ImportOptions, RejectCode, Rejected } from "./draft.ts";
import { namesFor } from "./names.ts";

/** A draft that has been checked by itself; whether there is a place for it depends on who is there. */
export interface Prepared {
  /** Everything but the name. */
  readonly row: Omit<ImportedRow, "username">;
  /** The names it may get, the best one first. */
  readonly names: readonly string[];
  /** What the first of them is when compared with what the export has. */
  readonly naming: "kept" | "renamed" | "made";
  readonly hash: string | null;
  readonly rolesIgnored: readonly string[];
}

export type PrepareDeps = Pick<Deps, "clock" | "random" | "secrets">;

export const rejected = (code: RejectCode, reason: string): Rejected => ({ outcome: "rejected", code, reason });

/** Checks a draft by itself. @param knownRoles the roles that there are here */
export function prepare(
  deps: PrepareDeps,
  draft: Draft,
  options: ImportOptions,
  knownRoles: readonly string[],
): Prepared | Rejected {
  const email = emailOf(draft.email);
  if ("outcome" in email) return email;
  const names = nameOf(draft.username, email.emailKey, options.rename);
  if ("outcome" in names) return names;
  const password = passwordOf(deps, draft, options);
  if ("outcome" in password) return password;
  const now = deps.clock.now();
  const createdAt = instantOf(draft.createdAt) ?? now;
  const changedAt = instantOf(draft.passwordChangedAt) ?? createdAt;
  const given = rolesOf(draft, options, knownRoles);
  const row = {
    id: idOf(deps, draft, options.product, createdAt),
    ...email,
    emailVerifiedAt: draft.emailVerified ? (instantOf(draft.emailVerifiedAt) ?? now) : null,
    status: draft.status ?? "active",
    passwordChangeRequired: draft.passwordChangeRequired ?? false,
    createdAt,
    updatedAt: instantOf(draft.updatedAt) ?? now,
    lastLoginAt: instantOf(draft.lastLoginAt) ?? null,
    deactivatedAt: draft.status === "deactivated" ? (instantOf(draft.deactivatedAt) ?? now) : null,
    credential:
      password.secret === null
        ? null
        : { id: deps.random.id(now), secret: password.secret, pepperId: password.pepperId, changedAt },
    roles: given.roles,
    grants: given.grants,
  };
  return { row, ...names, hash: password.format, rolesIgnored: given.ignored };
}

function emailOf(text: string | undefined): { email: string; emailKey: string } | Rejected {
  if (text === undefined || text.trim() === "") return rejected("email_missing", "There is no e-mail address");
  const parsed = text.isWellFormed() ? parseEmail(text) : undefined;
  return parsed ?? rejected("email_invalid", "This is no e-mail address that mail can be sent to");
}

/** Where there is no name, or it is only the address, one is made; where it does not fit, only if renaming was asked for. */
function nameOf(
  given: string | undefined,
  emailKey: string,
  rename: boolean,
): Pick<Prepared, "names" | "naming"> | Rejected {
  const username = given?.trim().normalize("NFKC").toLowerCase() ?? "";
  if (username === "" || username === emailKey) return { names: namesFor(emailKey, emailKey), naming: "made" };
  const fitting = parseUsername(username);
  const others = rename ? namesFor(username, emailKey) : [];
  if (fitting) return { names: [...new Set([fitting, ...others])], naming: "kept" };
  if (rename) return { names: others, naming: "renamed" };
  return rejected(
    "username_invalid",
    "The user name is not 2 to 64 of a-z, 0-9, dot, underscore and hyphen, starting with a letter or digit; --rename gives another one",
  );
}

interface Password {
  readonly secret: string | null;
  readonly pepperId: string | null;
  readonly format: string | null;
}

const NO_PASSWORD: Password = { secret: null, pepperId: null, format: null };

function passwordOf(deps: PrepareDeps, draft: Draft, options: ImportOptions): Password | Rejected {
  const { passwordHash: secret = "", passwordFault, pepperId = null } = draft;
  if (secret === "" && passwordFault === undefined) return NO_PASSWORD;
  const format = passwordFault === undefined ? formatFor(deps, secret, pepperId) : refusedHash(passwordFault);
  if (typeof format === "string") return { secret, pepperId, format };
  return options.withoutPassword ? NO_PASSWORD : format;
}

/** @returns the name of the hash's format, or why it is of no use here */
function formatFor(deps: PrepareDeps, secret: string, pepperId: string | null): string | Rejected {
  if (pepperId !== null && !deps.secrets.pepper.some(({ id }) => id === pepperId)) {
    return rejected(
      "pepper_unknown",
      "The hash was made with a pepper that this installation does not have, such as PRIMER_PEPPER in the secrets.env of the one that made it",
    );
  }
  const hash = readHash(secret);
  return "refused" in hash ? refusedHash(hash.refused) : hash.format;
}

const refusedHash = (why: string) => rejected("password_hash_refused", `The password's hash is not taken: ${why}`);

const DEFAULT_ROLE = "user";

function rolesOf(draft: Draft, { roleMap }: ImportOptions, known: readonly string[]) {
  const named = draft.roles ?? [];
  const here = (role: string) => (roleMap ? (Object.hasOwn(roleMap, role) ? roleMap[role] : undefined) : role);
  const isKnown = (role: string | undefined) => role !== undefined && known.includes(role);
  const taken = named.map(here).filter((role) => role !== undefined && isKnown(role)) as string[];
  // Only who says which roles a user has here can leave out the one that everybody has.
  const everybody = roleMap || !draft.roles ? [DEFAULT_ROLE] : [];
  // Those of other products are not known by things that are called as here.
  const grants = roleMap
    ? []
    : (draft.grants ?? []).filter(({ role, resource }) => isKnown(role) && isResource(resource));
  const unknown = [...named.map((role) => [role, here(role)]), ...(draft.grants ?? []).map(({ role }) => [role, role])];
  return {
    roles: [...new Set([...everybody, ...taken])].sort(),
    grants,
    ignored: [...new Set(unknown.flatMap(([there = "", role]) => (isKnown(role) ? [] : [there])))],
  };
}

const [EARLIEST, LATEST] = [0, Date.UTC(2999, 0)];

/** A time that the database can keep; undefined for anything else. */
function instantOf(text: string | undefined): Date | undefined {
  const time = text === undefined ? Number.NaN : Date.parse(text);
  return time >= EARLIEST && time <= LATEST ? new Date(time) : undefined;
}

/**
 * The id of a user from elsewhere follows from what they are there, so that a second run finds them whatever they changed
 * in between: a UUIDv7 (RFC 9562) of the time they were made there, with a digest where random bits would be.
 */
function idOf(deps: PrepareDeps, draft: Draft, product: string, createdAt: Date): string {
  if (isId(draft.id)) return draft.id;
  if (draft.externalId === undefined || instantOf(draft.createdAt) === undefined)
    return deps.random.id(deps.clock.now());
  const bytes = createHash("sha256").update(`${product}\0${draft.externalId}`).digest().subarray(0, 16);
  bytes.writeUIntBE(createdAt.getTime(), 0, 6);
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
  const hex = bytes.toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
