import { createHash } from "node:crypto";
import { codeOf, failed, textOf } from "../config/errors.ts";
import type { Connection, Database } from "./database.ts";
import { isLostTransaction } from "./errors.ts";
import { installJobTables, jobTablesCurrent } from "./jobs.ts";
import { MIGRATIONS, type Migration } from "./migrations/index.ts";

export interface MigrationStatus {
  readonly name: string;
  readonly state: "applied" | "pending";
  readonly applied_at: string | null;
}

const LOCK = "primer migrations";
/** What the queue's own tables are called beside the migrations. */
export const JOB_TABLES = "job queue tables";
/** SQLSTATE of a write for which there was no room. */
const DISK_FULL = "53100";
/** SQLSTATE of a wait for a lock that took too long. */
const LOCK_NOT_AVAILABLE = "55P03";
/** A statement that waits for a table makes everybody wait who comes after it, so it waits no longer than this. */
export const MIGRATION_LOCK_TIMEOUT_MS = 300;
/** For how long a table that others hold is tried for, and the pause in which they get on. */
const TRY_FOR_MS = 60_000;
const RETRY_AFTER_MS = 1000;

const hashOf = (migration: Migration) => createHash("sha256").update(migration.sql).digest("hex");

/** The statements of a migration, in order. */
export const statementsOf = (migration: Migration): string[] => migration.sql.split("--> statement-breakpoint");

/**
 * A migration with this line takes something away that versions without it still use: they may not serve on what it leaves.
 * All others only add, so that the version before goes on serving, and may be gone back to.
 */
const CONTRACTS = /^-- contracts\r?$/m;

/** What records that a migration was applied. */
export const recordOf = (migration: Migration, now: Date): string =>
  `INSERT INTO schema_migrations (name, hash, applied_at, contracts)
   VALUES ('${migration.name}', '${hashOf(migration)}', '${now.toISOString()}', ${CONTRACTS.test(migration.sql)})`;

export const CREATE_RECORDS = `CREATE TABLE IF NOT EXISTS schema_migrations
    (name text PRIMARY KEY, hash text NOT NULL, applied_at timestamptz NOT NULL);
  DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'schema_migrations'::regclass AND attname = 'contracts') THEN
      ALTER TABLE schema_migrations ADD COLUMN contracts boolean NOT NULL DEFAULT false;
    END IF;
  END $$`;

/**
 * Brings the schema up to date. One process at a time does it, the others wait; each migration is one transaction
 * together with its record, so one cut off at any statement is as if it had not begun, and the next run goes on there.
 *
 * @returns the names applied now; none where the schema was up to date
 * @throws OperatorError (exit 1) where the database was written by a newer primer, or an applied migration differs
 */
export async function migrate(database: Database, now: () => Date): Promise<string[]> {
  return database.exclusively(LOCK, async (connection) => {
    await connection.query(CREATE_RECORDS);
    const pending = await pendingMigrations(connection);
    for (const migration of pending) await apply(connection, migration, now());
    if (await jobTablesCurrent(connection)) return pending.map((migration) => migration.name);
    await connection.query(`SET lock_timeout = ${MIGRATION_LOCK_TIMEOUT_MS}`);
    await inTurns(connection, JOB_TABLES, () => installJobTables(connection));
    return [...pending.map((migration) => migration.name), JOB_TABLES];
  });
}

async function apply(connection: Connection, migration: Migration, now: Date): Promise<void> {
  const text = `${statementsOf(migration).join("\n")};\n${recordOf(migration, now)};`;
  await inTurns(connection, migration.name, () =>
    connection.query(`BEGIN;\nSET LOCAL lock_timeout = ${MIGRATION_LOCK_TIMEOUT_MS};\n${text}\nCOMMIT;`),
  );
}

/** Tries again for a while where somebody holds a table that is to be changed, or each waits for the other. */
async function inTurns(connection: Connection, name: string, change: () => Promise<unknown>): Promise<void> {
  for (const deadline = performance.now() + TRY_FOR_MS; ; await Bun.sleep(RETRY_AFTER_MS)) {
    try {
      await change();
      return;
    } catch (error) {
      await connection.query("ROLLBACK").catch(() => {});
      const isHeld = codeOf(error) === LOCK_NOT_AVAILABLE || isLostTransaction(error);
      if (!isHeld || performance.now() > deadline) throw rolledBack(name, error);
    }
  }
}

const HELD_BY_OTHERS = [
  "other transactions have held the tables that it changes for a minute",
  "See pg_stat_activity for what has been running for long, end it or wait; then run the command again. It also goes through while nothing serves.",
] as const;
const MENDED_BY: Readonly<Record<string, readonly [why: string, hint: string]>> = {
  [DISK_FULL]: ["the disk is full", "Free some space, then run the command again: it goes on where it stopped."],
  [LOCK_NOT_AVAILABLE]: HELD_BY_OTHERS,
  "40P01": HELD_BY_OTHERS, // a deadlock
};

function rolledBack(name: string, error: unknown) {
  const [why, hint] = MENDED_BY[codeOf(error) ?? ""] ?? [textOf(error), undefined];
  return failed(`Migration ${name} failed and was rolled back: ${why}`, hint, error);
}

type Applied = {
  readonly name: string;
  readonly hash: string;
  readonly applied_at: Date | string;
  readonly contracts: boolean;
};

/** What was applied to this database, in order; nothing where nothing was. */
export async function appliedMigrations(connection: Connection): Promise<Applied[]> {
  const tables = await connection.query<{ found: string | null }>(
    "SELECT to_regclass('schema_migrations')::text AS found",
  );
  if (!tables[0]?.found) return [];
  return connection.query<Applied>(
    `SELECT name, hash, applied_at, coalesce((to_jsonb(m) ->> 'contracts')::boolean, false) AS contracts
     FROM schema_migrations m ORDER BY name`, // the first versions have no such column
  );
}

/**
 * What this primer carries and the database has not.
 *
 * @throws OperatorError (exit 1) where the database was written by a newer primer, or an applied migration differs
 */
export async function pendingMigrations(connection: Connection): Promise<Migration[]> {
  return missingFrom(await appliedMigrations(connection), "The database");
}

/**
 * The migrations that this primer carries beyond those that were applied.
 *
 * @param what what they were applied to, for messages
 * @throws OperatorError (exit 1) where a newer primer has applied others, or one differs
 */
export function missingFrom(applied: readonly { name: string; hash: string }[], what: string): Migration[] {
  for (const record of applied) {
    const known = MIGRATIONS.find((migration) => migration.name === record.name);
    if (!known) {
      throw failed(
        `${what} was migrated by a newer primer: it has ${record.name}, which this one does not know.`,
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
  return statusAfter(await appliedMigrations(database), database);
}

async function statusAfter(records: readonly Applied[], database: Database): Promise<MigrationStatus[]> {
  const applied = new Map(records.map((record) => [record.name, record.applied_at]));
  const tables = MIGRATIONS.map(({ name }) => statusOf(name, applied.get(name)));
  const jobs: MigrationStatus = {
    name: JOB_TABLES,
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

/**
 * Whether the schema has everything that this primer was made for. What a later one added beside it does no harm.
 *
 * @throws OperatorError (exit 1) where a later one took something away that this one uses
 */
export async function isMigrated(database: Database): Promise<boolean> {
  const applied = await appliedMigrations(database);
  const carried = new Set(MIGRATIONS.map(({ name }) => name));
  const contracted = applied.find(({ name, contracts }) => contracts && !carried.has(name));
  if (contracted) {
    throw failed(
      `A newer primer has taken away what this one uses in the database (${contracted.name}).`,
      "Run the newer version of primer here too, or restore a backup from before the upgrade.",
    );
  }
  return (await statusAfter(applied, database)).every((migration) => migration.state === "applied");
}
