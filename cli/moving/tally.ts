import type { ImportOutcome, ImportRecord } from "../../server/features/moving/service.ts";
import { printable } from "../io.ts";

type Counts = Record<string, number>;

/** Roles whose names are kept in the report; an export may have any number of them, of any length. */
const MAX_NAMES = 100;
const MAX_NAME_LENGTH = 100;

const shownRole = (name: string) => printable(name.slice(0, MAX_NAME_LENGTH)).toWellFormed();

/** What became of the users of an export, in numbers. */
export interface Tally {
  read: number;
  imported: number;
  existing: number;
  left_out: number;
  rejected: number;
  renamed: number;
  names_made: number;
  without_password: number;
  readonly by_hash: Counts;
  readonly rejected_by: Counts;
  readonly left_out_by: Counts;
  readonly roles_ignored: Counts;
}

export const newTally = (): Tally => ({
  read: 0,
  imported: 0,
  existing: 0,
  left_out: 0,
  rejected: 0,
  renamed: 0,
  names_made: 0,
  without_password: 0,
  by_hash: {},
  rejected_by: {},
  left_out_by: {},
  roles_ignored: {},
});

function countIn(counts: Counts, name: string): void {
  const isNew = !Object.hasOwn(counts, name);
  if (isNew && Object.keys(counts).length >= MAX_NAMES) return;
  Object.defineProperty(counts, name, {
    value: isNew ? 1 : (counts[name] ?? 0) + 1,
    enumerable: true,
    configurable: true,
    writable: true,
  });
}

export function countLeftOut(tally: Tally, why: string): void {
  tally.left_out++;
  countIn(tally.left_out_by, why);
}

export function countOutcome(tally: Tally, outcome: ImportOutcome): void {
  if (outcome.outcome === "existing") tally.existing++;
  else if (outcome.outcome === "rejected") {
    tally.rejected++;
    countIn(tally.rejected_by, outcome.code);
  } else {
    tally.imported++;
    if (outcome.naming === "renamed") tally.renamed++;
    if (outcome.naming === "made") tally.names_made++;
    if (outcome.hash === null) tally.without_password++;
    else countIn(tally.by_hash, outcome.hash);
    for (const role of outcome.rolesIgnored) countIn(tally.roles_ignored, shownRole(role));
  }
}

/** What the audit log keeps of it. */
export const recordOf = (tally: Tally): ImportRecord => ({ ...tally });

const list = (counts: Counts) =>
  Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => `${name} ${count}`)
    .join(", ");

/** The report for people: a line for each kind of outcome that there was. */
export function textOf(tally: Tally, options: { dryRun: boolean; rejectsFile: string | null; rule: string }): string {
  const lines: readonly (readonly [count: number, line: string])[] = [
    [1, `${options.dryRun ? "Would import" : "Imported"} ${tally.imported} of ${tally.read} users.`],
    [Object.keys(tally.by_hash).length, `Hashes: ${list(tally.by_hash)}.`],
    [
      tally.without_password,
      `${tally.without_password} of them without a password: they cannot log in until they have one.`,
    ],
    [tally.names_made, `${tally.names_made} had no user name of their own; it was made from the e-mail address.`],
    [tally.renamed, `${tally.renamed} were renamed.`],
    [tally.names_made + tally.renamed, `The rule for names: ${options.rule}.`],
    [tally.existing, `${tally.existing} are here already and were left alone.`],
    [tally.left_out, `${tally.left_out} entries are nobody who logs in: ${list(tally.left_out_by)}.`],
    [
      Object.keys(tally.roles_ignored).length,
      `Roles that nobody got: ${list(tally.roles_ignored)}. --role-map says what they are here.`,
    ],
    [tally.rejected, `${tally.rejected} were rejected: ${list(tally.rejected_by)}. Each is in ${options.rejectsFile}.`],
  ];
  return lines.flatMap(([count, line]) => (count > 0 ? [`${line}\n`] : [])).join("");
}
