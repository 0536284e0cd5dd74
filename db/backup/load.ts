import { failed } from "../../config/errors.ts";
import type { Connection } from "../database.ts";
import { installJobTablesWithin } from "../jobs.ts";
import { CREATE_RECORDS, missingFrom, recordOf, statementsOf } from "../migrate.ts";
import { MIGRATIONS } from "../migrations/index.ts";
import { GONE_AFTER_MS } from "../queries/processes.ts";
import { type Line, type Manifest, quoted, quotedTable, type TableHead, type TableSum } from "./format.ts";
import { ownTables, sumOf } from "./read.ts";

/**
 * Brings a backup's rows into a database, in one transaction: what is there of ours makes room, the schema is made as it
 * was when the backup was taken, the rows are put in and summed up, and the schema is brought up to date. A process of
 * primer that starts meanwhile waits for the end.
 *
 * @param lines of a backup that was read to its end before
 * @param afterwards the last that happens in the transaction, on the schema of this primer
 * @throws OperatorError (exit 1) where the rows are not what was backed up, or processes are at work on the database
 */
export async function loadBackup(
  connection: Connection,
  lines: AsyncIterable<Line>,
  now: Date,
  told: (rows: number) => void,
  afterwards: (connection: Connection, manifest: Manifest) => Promise<void>,
): Promise<Record<string, TableSum>> {
  await connection.query("SET LOCAL TimeZone TO 'UTC'");
  let manifest: Manifest | undefined;
  let head: TableHead | undefined;
  const heads: TableHead[] = [];
  let total = 0;
  for await (const line of lines) {
    if (line.kind === "manifest") {
      manifest = line.manifest;
      await makeSchema(connection, manifest);
    } else if (line.kind === "table") {
      head = line.head;
      heads.push(head);
    } else if (line.kind === "rows" && head) {
      total += await insertRows(connection, head, line.json);
      told(total);
      await Bun.sleep(0); // a server goes on meanwhile
    } else if (line.kind === "end") {
      await compare(connection, heads, line.sums);
      for (const migration of pendingOf(manifest)) {
        for (const statement of statementsOf(migration)) await connection.query(statement);
        await connection.query(recordOf(migration, now));
      }
      if (manifest) await afterwards(connection, manifest);
      await setTriggers(connection, "ENABLE");
      return line.sums;
    }
  }
  throw new Error("A backup without an end was not refused before");
}

/** @throws OperatorError (exit 1) where the backup was taken by a newer primer */
export const pendingOf = (manifest: Manifest | undefined) => missingFrom(manifest?.migrations ?? [], "The backup");

/**
 * Processes that run on a database would go on with what they have in memory, were it replaced under them.
 *
 * @throws OperatorError (exit 1) where there are any
 */
export async function assertNobodyServes(connection: Connection): Promise<void> {
  if (!(await hasProcesses(connection))) return;
  const [row] = await connection.query<{ count: number }>(
    `SELECT count(*)::int AS count FROM processes WHERE seen_at > now() - ${GONE_AFTER_MS / 1000} * interval '1 second'`,
  );
  if (!row?.count) return;
  throw failed(
    `There are ${row.count} processes of primer at work on this database (serve or worker). Nothing was changed.`,
    `Stop them first; one that was killed counts for ${GONE_AFTER_MS / 1000} seconds more.`,
  );
}

async function hasProcesses(connection: Connection): Promise<boolean> {
  const [row] = await connection.query<{ found: string | null }>(
    "SELECT to_regclass('public.processes')::text AS found",
  );
  return Boolean(row?.found);
}

/** A process says that it is there before it reads anything. Until the restore's end none can, so none is in between. */
async function keepOthersOut(connection: Connection): Promise<void> {
  if (await hasProcesses(connection)) await connection.query("LOCK TABLE processes IN ACCESS EXCLUSIVE MODE");
  await assertNobodyServes(connection);
}

async function makeSchema(connection: Connection, manifest: Manifest): Promise<void> {
  await keepOthersOut(connection);
  await dropOwn(connection);
  await connection.query(CREATE_RECORDS);
  const pending = pendingOf(manifest);
  for (const migration of MIGRATIONS.filter((known) => !pending.includes(known))) {
    for (const statement of statementsOf(migration)) await connection.query(statement);
    const applied = manifest.migrations.find(({ name }) => name === migration.name);
    await connection.query(recordOf(migration, new Date(applied?.applied_at ?? manifest.taken_at)));
  }
  await installJobTablesWithin(connection);
  await setTriggers(connection, "DISABLE");
  await connection.query(`TRUNCATE ${(await presentTables(connection)).map(quotedTable).join(", ")}`);
}

/** Whatever else is in this database stays. */
async function dropOwn(connection: Connection): Promise<void> {
  const tables = await presentTables(connection);
  const functions = await connection.query<{ name: string }>(
    `SELECT DISTINCT tgfoid::regprocedure::text AS name FROM pg_trigger
     WHERE NOT tgisinternal AND tgrelid = ANY($1::text[]::regclass[])`,
    [`{${tables.join(",")}}`],
  );
  const all = [...tables, "public.schema_migrations"].map(quotedTable).join(", ");
  await connection.query(`DROP TABLE IF EXISTS ${all}`);
  for (const { name } of functions) await connection.query(`DROP FUNCTION ${name}`);
  await connection.query("DROP SCHEMA IF EXISTS jobs CASCADE");
}

async function presentTables(connection: Connection): Promise<string[]> {
  const rows = await connection.query<{ name: string }>(
    "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL",
    [`{${ownTables().join(",")}}`],
  );
  return rows.map(({ name }) => name);
}

/** Triggers tell processes of changes; there are none that could hear, and the rows are no news. */
async function setTriggers(connection: Connection, state: "ENABLE" | "DISABLE"): Promise<void> {
  for (const table of await presentTables(connection)) {
    await connection.query(`ALTER TABLE ${quotedTable(table)} ${state} TRIGGER USER`);
  }
}

async function insertRows(connection: Connection, { table, columns }: TableHead, json: string): Promise<number> {
  const [name, list] = [quotedTable(table), columns.map(quoted).join(", ")];
  const [inserted] = await connection.query<{ rows: number }>(
    `WITH inserted AS (INSERT INTO ${name} (${list})
       SELECT ${list} FROM json_populate_recordset(NULL::${name}, $1::text::json) RETURNING 1)
     SELECT count(*)::int AS rows FROM inserted`,
    [json],
  );
  return inserted?.rows ?? 0;
}

async function compare(connection: Connection, heads: readonly TableHead[], sums: Readonly<Record<string, TableSum>>) {
  for (const head of heads) {
    const [expected, found] = [sums[head.table], await sumOf(connection, head)];
    if (expected?.rows === found.rows && expected.checksum === found.checksum) continue;
    throw failed(
      `The rows of ${head.table} are not what was backed up: ${found.rows} with the sum ${found.checksum}, expected ${expected?.rows} with ${expected?.checksum}.`,
      "Nothing was changed. Use another backup, and report this.",
    );
  }
}
