import type { Database } from "./database.ts";

/** A larger table would hold up everything else for too long (bytes, with its indexes). */
const LARGEST_BYTES = 512 * 1024 * 1024;

/**
 * Makes the room of deleted and replaced rows free again on the embedded database, where nothing does that by itself.
 * One table after another, each in one statement; those that are too large are left out.
 *
 * @param signal ends it after the table that it is at
 */
export async function vacuumTables(database: Pick<Database, "query">, signal: AbortSignal): Promise<void> {
  const tables = await database.query<{ name: string }>(
    `SELECT format('%I.%I', schemaname, relname) AS name FROM pg_stat_user_tables
     WHERE pg_total_relation_size(relid) <= $1::bigint ORDER BY 1`,
    [LARGEST_BYTES],
  );
  for (const { name } of tables) {
    signal.throwIfAborted();
    await database.query(`VACUUM ${name}`);
  }
}
