import type { Database } from "./database.ts";

/** While a table is at it nothing else is done, for two or three seconds at this size (bytes, with its indexes). */
const LARGEST_BYTES = 256 * 1024 * 1024;

/**
 * Makes the room of deleted and replaced rows free again on the embedded database, where nothing does that by itself.
 * One table after another, each in one statement.
 *
 * @param signal ends it after the table that it is at
 * @returns the tables that were left out, since they are too large for that
 */
export async function vacuumTables(database: Pick<Database, "query">, signal: AbortSignal): Promise<string[]> {
  const tables = await database.query<{ name: string; large: boolean }>(
    `SELECT format('%I.%I', schemaname, relname) AS name, pg_total_relation_size(relid) > $1::bigint AS large
     FROM pg_stat_user_tables ORDER BY 1`,
    [LARGEST_BYTES],
  );
  for (const { name, large } of tables) {
    signal.throwIfAborted();
    if (!large) await database.query(`VACUUM ${name}`);
  }
  return tables.filter(({ large }) => large).map(({ name }) => name);
}
