import { afterAll } from "bun:test";
import { openTestDatabase, TEST_DATABASE, type TestDatabase } from "./database.ts";

/** What a database has when it is new: the shape of its tables, and the rows that come with them. */
interface Pristine {
  readonly shape: string;
  readonly tables: readonly string[];
  readonly rows: readonly { readonly table: string; readonly rows: unknown }[];
}

/**
 * Embedded databases that a test file has done with and may use again, emptied: to open one takes longer than most tests.
 * On a server a new one is quick.
 */
const free: TestDatabase[] = [];
let pristine: Pristine | undefined;
const QUEUES = "jobs.queue";
afterAll(async () => {
  for (const database of free.splice(0)) await database.close();
});

/** An empty, migrated database that goes back to the others when it is closed. */
export async function takeTestDatabase(): Promise<TestDatabase> {
  if (TEST_DATABASE !== "pglite") return openTestDatabase();
  const database = free.pop() ?? (await openTestDatabase());
  pristine ??= await lookAt(database);
  const giveBack = async () => {
    if (await emptied(database).catch(() => false)) free.push(database);
    else await database.close();
  };
  let closing: Promise<void> | undefined;
  return {
    ...database,
    close() {
      closing ??= giveBack();
      return closing;
    },
  };
}

/** By which is seen whether a test has changed more than rows. */
async function shapeOf(database: TestDatabase): Promise<string> {
  const [row] = await database.query<{ shape: string }>(`
    SELECT (SELECT md5(string_agg(c.oid::text || c.relname::text, ',' ORDER BY c.oid)) FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'jobs'))
      || (SELECT md5(string_agg(t.oid::text || t.tgenabled::text, ',' ORDER BY t.oid)) FROM pg_trigger t)
      || (SELECT md5(string_agg(a.attrelid::text || a.attname::text || a.attnotnull::text, ',' ORDER BY a.attrelid, a.attnum))
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'jobs'))
      || (SELECT md5(string_agg(c.oid::text, ',' ORDER BY c.oid)) FROM pg_constraint c)
      || (SELECT md5(string_agg(p.oid::text || p.prosrc, ',' ORDER BY p.oid)) FROM pg_proc p
        JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('public', 'jobs')) AS shape
  `);
  return row?.shape ?? "";
}

async function lookAt(database: TestDatabase): Promise<Pristine> {
  const names = await database.query<{ name: string }>(
    "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migrations' ORDER BY 1",
  );
  const tables = [...names.map(({ name }) => name), QUEUES];
  const rows = [];
  for (const table of tables) {
    const [found] = await database.query<{ rows: unknown }>(`SELECT json_agg(t) AS rows FROM ${table} t`);
    if (found?.rows) rows.push({ table, rows: found.rows });
  }
  return { shape: await shapeOf(database), tables, rows };
}

/** @returns whether it is as it was when it was new */
async function emptied(database: TestDatabase): Promise<boolean> {
  if (!pristine || (await shapeOf(database)) !== pristine.shape) return false;
  const text = (value: unknown) => `'${JSON.stringify(value).replaceAll("'", "''")}'`;
  const restored = pristine.rows.map(
    ({ table, rows }) => `INSERT INTO ${table} SELECT * FROM json_populate_recordset(NULL::${table}, ${text(rows)});`,
  );
  const emptiable = pristine.tables.filter((table) => table !== QUEUES);
  // As a replica does, without looking at references: they come in any order.
  await database.query(`BEGIN; SET LOCAL session_replication_role = replica;
    TRUNCATE ${emptiable.join(", ")} RESTART IDENTITY; DELETE FROM jobs.job; DELETE FROM jobs.queue; ${restored.join(" ")} COMMIT;`);
  await database.query("DISCARD ALL");
  return true;
}
