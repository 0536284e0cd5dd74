import { failed } from "../../config/errors.ts";

/**
 * The lines of a backup: a manifest; for each table its name and columns, then its rows, some hundreds in a line as a
 * JSON array; an end that says how many rows there were and what they come to.
 */
export interface Manifest {
  readonly format: "primer backup";
  readonly version: 1;
  readonly id: string;
  readonly taken_at: string;
  /** Of the primer that took it. */
  readonly primer: string;
  readonly database: "pglite" | "postgres";
  /** The schema that the rows were in. */
  readonly migrations: readonly { readonly name: string; readonly hash: string; readonly applied_at: string }[];
  /** The master key that seals the keys among the rows, and the peppers that passwords stand on. */
  readonly master_key_id: string;
  readonly pepper_ids: readonly string[];
  /** Where the chain of the audit log ended, as SEQ:HASH; null where it had not begun. */
  readonly audit_head?: string | null;
  /** The text of primer.toml, where there was one. */
  readonly settings: string | null;
}

export interface TableHead {
  readonly table: string;
  readonly columns: readonly string[];
}

/** What the rows of a table come to, in whatever order they are read: both are made by the database. */
export interface TableSum {
  readonly rows: number;
  readonly checksum: string;
}

export interface End {
  readonly end: Readonly<Record<string, TableSum>>;
}

export type Line =
  | { readonly kind: "manifest"; readonly manifest: Manifest }
  | { readonly kind: "table"; readonly head: TableHead }
  /** A JSON array, not looked into. */
  | { readonly kind: "rows"; readonly json: string }
  | { readonly kind: "end"; readonly sums: End["end"] };

/**
 * Reads the lines in the one order in which they make sense.
 *
 * @throws OperatorError (exit 1) for what is no backup of this form, or ends early
 */
export async function* parseLines(lines: AsyncIterable<string>): AsyncGenerator<Line> {
  let last: Line["kind"] | undefined;
  for await (const text of lines) {
    if (last === "end") throw unknownForm();
    const line = parseLine(text, last);
    last = line.kind;
    yield line;
  }
  if (last !== "end") throw unknownForm();
}

function parseLine(text: string, last: Line["kind"] | undefined): Line {
  if (text.startsWith("[")) {
    if (last === "table" || last === "rows") return { kind: "rows", json: text };
    throw unknownForm();
  }
  const value = JSON.parse(text) as Partial<Manifest & TableHead & End>;
  if (last === undefined) {
    if (value.format !== "primer backup" || value.version !== 1) throw unknownForm();
    return { kind: "manifest", manifest: value as Manifest };
  }
  if (value.end) return { kind: "end", sums: value.end };
  if (value.table && value.columns) return { kind: "table", head: value as TableHead };
  throw unknownForm();
}

const unknownForm = () =>
  failed(
    "This is no backup of a form that this primer knows.",
    "See that it is the right file, and that this primer is at least as new as the one that took it.",
  );

/** A name in quotes, as it stands in a statement. */
export const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** A schema and a table in quotes. */
export const quotedTable = (table: string): string => table.split(".").map(quoted).join(".");

/**
 * The expression of what one row comes to, and the aggregate of a table. hashtextextended places rows in hash
 * partitions, so PostgreSQL keeps it the same from version to version.
 */
export const SUM_OF_ROWS =
  "count(*)::int AS rows, coalesce(sum(hashtextextended(row, 0)::numeric), 0)::text AS checksum";
