import { createHash } from "node:crypto";
import { codeOf, failed, textOf } from "../config/errors.ts";
import type { Database } from "./database.ts";
import { installJobTables, jobTablesCurrent } from "./jobs.ts";
import { MIGRATIONS, type Migration } from "./migrations/index.ts";

export interface MigrationStatus {
  readonly name: string;
  readonly state: "applied" | "pending";
  readonly applied_at: string | null;
}

const LOCK = "primer migrations";
/** SQLSTATE of a write for which there was no room. */
const DISK_FULL = "53100";
const hashOf = (migration: Migration) => createHash("sha256").update(migration.sql).digest("hex");

type Connection = Pick<Database, "query">;

/**
 * Brings the schema up to date. One process at a time does it, the others wait; each migration is one transaction
 * together with its record, so one cut off at any statement is as if it had not begun, and the next run goes on there.
 *
 * @returns the names applied now; none where the schema was up to date
 * @throws OperatorError (exit 1) where the database was written by a newer primer, or an applied migration differs
 */
export async function migrate(database: Database, now: () => Date): Promise<string[]> {
  return database.exclusively(LOCK, async (connection) => {
    await connection.query(
      "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, hash text NOT NULL, applied_at timestamptz NOT NULL)",
    );
    const pending = await pendingMigrations(connection);
    for (const migration of pending) await apply(connection, migration, now());
    const jobs = (await jobTablesCurrent(connection)) ? [] : ["job queue tables"];
    if (jobs.length > 0) await installJobTables(connection);
    return [...pending.map((migration) => migration.name), ...jobs];
  });
}

async function apply(connection: Connection, migration: Migration, now: Date): Promise<void> {
  const record = `INSERT INTO schema_migrations VALUES ('${migration.name}', '${hashOf(migration)}', '${now.toISOString()}')`;
  const statements = migration.sql.replaceAll("--> statement-breakpoint", "");
  try {
    await connection.query(`BEGIN;\n${statements};\n${record};\nCOMMIT;`);
  } catch (error) {
    await connection.query("ROLLBACK").catch(() => {});
    const isFull = codeOf(error) === DISK_FULL;
    throw failed(
      `Migration ${migration.name} failed and was rolled back: ${isFull ? "the disk is full" : textOf(error)}`,
      isFull ? "Free some space, then run the command again: it goes on where it stopped." : undefined,
      error,
    );
  }
}

async function appliedMigrations(connection: Connection) {
  const tables = await connection.query<{ found: string | null }>(
    "SELECT to_regclass('schema_migrations')::text AS found",
  );
  if (!tables[0]?.found) return [];
  return connection.query<{ name: string; hash: string; applied_at: Date | string }>(
    "SELECT name, hash, applied_at FROM schema_migrations ORDER BY name",
  );
}

async function pendingMigrations(connection: Connection): Promise<Migration[]> {
  const applied = await appliedMigrations(connection);
  for (const record of applied) {
    const known = MIGRATIONS.find((migration) => migration.name === record.name);
    if (!known) {
      throw failed(
        `The database was migrated by a newer primer: it has ${record.name}, which this one does not know.`,
        "Run the newer version of primer, or restore a backup from before the upgrade.",
      );
    }
    if (hashOf(known) !== record.hash) {
      throw failed(`Migration ${record.name} was applied in another form than this primer carries.`);
    }
  }
  return MIGRATIONS.filter((migration) => !applied.some((record) => record.name === migration.name));
}

/** Every migration with its state, in order. Changes nothing. */
export async function migrationStatus(database: Database): Promise<MigrationStatus[]> {
  const applied = new Map((await appliedMigrations(database)).map((record) => [record.name, record.applied_at]));
  const tables = MIGRATIONS.map(({ name }) => statusOf(name, applied.get(name)));
  const jobs: MigrationStatus = {
    name: "job queue tables",
    state: (await jobTablesCurrent(database)) ? "applied" : "pending",
    applied_at: null,
  };
  return [...tables, jobs];
}

const statusOf = (name: string, appliedAt: Date | string | undefined): MigrationStatus => ({
  name,
  state: appliedAt ? "applied" : "pending",
  applied_at: appliedAt ? new Date(appliedAt).toISOString() : null,
});

/** Whether the schema is the one that this primer was made for. */
export async function isMigrated(database: Database): Promise<boolean> {
  return (await migrationStatus(database)).every((migration) => migration.state === "applied");
}
