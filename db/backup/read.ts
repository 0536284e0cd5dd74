import { is } from "drizzle-orm";
import { getTableConfig, PgTable } from "drizzle-orm/pg-core";
import type { Connection } from "../database.ts";
import * as schema from "../schema/index.ts";
import type { PutLine } from "./archive.ts";
import { type End, quoted, quotedTable, SUM_OF_ROWS, type TableHead, type TableSum } from "./format.ts";

/**
 * Which processes run now says nothing about later; what was answered is deleted within a day, and not kept for years; and
 * lists of bad networks are large, old by then, and to be had anew.
 */
const LEFT_OUT = new Set(["processes", "idempotency_keys", "threat_lists"]);

const OWN_TABLES = Object.values(schema as Record<string, unknown>)
  .filter((entry) => is(entry, PgTable))
  .map((table) => getTableConfig(table as PgTable).name);

/** Every table of ours in the database, but for the record of migrations. */
export const ownTables = (): string[] => OWN_TABLES.map((name) => `public.${name}`);

/**
 * Of the queue, the jobs and what waits for what; the queues are made anew, and statistics say nothing about later. The
 * partitions that jobs lie in are the library's business: they are read one by one, and put back through their parent.
 */
const JOB_TABLES = ["jobs.job", "jobs.job_dependency"];

/** Blocks of a table that are read at once: some hundreds of rows, so that a server goes on between two readings. */
const BLOCKS_AT_ONCE = 32;

/**
 * Reads every row that a restore needs, on a connection that sees one moment, and puts it into lines.
 *
 * @param told hears how many rows were read so far
 * @returns what each table comes to
 */
export async function readTables(reader: Connection, put: PutLine, told: (rows: number) => void): Promise<End["end"]> {
  const sums: Record<string, TableSum> = {};
  let total = 0;
  for (const head of await listTables(reader)) {
    await put(JSON.stringify(head));
    let [rows, checksum] = [0, 0n];
    for await (const part of readRows(reader, head)) {
      await put(`[${part.json}]`);
      rows += part.rows;
      checksum += BigInt(part.checksum);
      total += part.rows;
      told(total);
    }
    sums[head.table] = { rows, checksum: String(checksum) };
  }
  await put(JSON.stringify({ end: sums } satisfies End));
  return sums;
}

/** The tables, each after those that its rows refer to. */
async function listTables(reader: Connection): Promise<TableHead[]> {
  const wanted = [...ownTables().filter((table) => !LEFT_OUT.has(table.slice("public.".length))), ...JOB_TABLES];
  const found = await reader.query<{ table: string; columns: string[]; refers_to: string[] }>(
    `SELECT c.relnamespace::regnamespace || '.' || c.relname AS table,
       (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns,
       (SELECT coalesce(json_agg(f.relnamespace::regnamespace || '.' || f.relname), '[]') FROM pg_constraint k
         JOIN pg_class f ON f.oid = k.confrelid WHERE k.conrelid = c.oid AND k.contype = 'f' AND f.oid <> c.oid) AS refers_to
     FROM pg_class c WHERE c.oid = ANY($1::text[]::regclass[]) ORDER BY 1`,
    [`{${wanted.join(",")}}`],
  );
  const ordered: TableHead[] = [];
  while (ordered.length < found.length) {
    const placed = (table: string) => !wanted.includes(table) || ordered.some((head) => head.table === table);
    const next = found.find((candidate) => !placed(candidate.table) && candidate.refers_to.every(placed));
    if (!next) throw new Error("The tables refer to each other in a circle");
    ordered.push({ table: next.table, columns: next.columns });
  }
  return ordered;
}

async function* readRows(reader: Connection, { table, columns }: TableHead) {
  const leaves = await reader.query<{ leaf: string; blocks: number }>(
    `SELECT relid::text AS leaf, (pg_relation_size(relid) / current_setting('block_size')::int)::int AS blocks
     FROM pg_partition_tree($1::text::regclass) WHERE isleaf
     UNION ALL SELECT $1::text, (pg_relation_size($1::text::regclass) / current_setting('block_size')::int)::int
     WHERE NOT EXISTS (SELECT FROM pg_partition_tree($1::text::regclass))`,
    [table],
  );
  const list = columns.map(quoted).join(", ");
  for (const { leaf, blocks } of leaves) {
    // A row stays at its place for as long as anybody may see it there, so ranges of places miss and repeat none.
    for (let block = 0; block < blocks; block += BLOCKS_AT_ONCE) {
      const end = block + BLOCKS_AT_ONCE < blocks ? `AND ctid < '(${block + BLOCKS_AT_ONCE},0)'` : "";
      const rows = `SELECT ${list} FROM ONLY ${leaf} WHERE ctid >= '(${block},0)' ${end}`;
      const [part] = await reader.query<{ json: string | null; rows: number; checksum: string }>(
        `SELECT string_agg(row, ',') AS json, ${SUM_OF_ROWS} FROM ${asTexts(rows)}`,
      );
      if (part?.json) yield { ...part, json: part.json };
    }
  }
}

/** Each row as the text that is kept and summed up; the fence keeps it from being made twice. */
const asTexts = (rows: string) => `(SELECT row_to_json(part)::text AS row FROM (${rows}) part OFFSET 0) AS parts`;

/** What the rows of a table come to now. */
export async function sumOf(connection: Connection, { table, columns }: TableHead): Promise<TableSum> {
  const rows = `SELECT ${columns.map(quoted).join(", ")} FROM ${quotedTable(table)}`;
  const [sum] = await connection.query<{ rows: number; checksum: string }>(
    `SELECT ${SUM_OF_ROWS} FROM ${asTexts(rows)}`,
  );
  return sum ?? { rows: 0, checksum: "0" };
}
