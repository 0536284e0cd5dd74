import { codeOf, textOf } from "../config/errors.ts";
import type { Connection, Database } from "./database.ts";
import { installJobTablesWithin, jobTablesCurrent } from "./jobs.ts";
import { CREATE_RECORDS, JOB_TABLES, MIGRATION_LOCK_TIMEOUT_MS, pendingMigrations, statementsOf } from "./migrate.ts";
import type { Migration } from "./migrations/index.ts";

/**
 * A lock on a table that was there before, which keeps others waiting until the migration's end. Of several migrations
 * that take the same one, it is told of the first.
 */
export interface BlockingLock {
  readonly table: string;
  readonly mode: string;
  /** What has to wait for it (the manual of PostgreSQL, "Table-Level Locks"). */
  readonly blocks: "writes" | "reads and writes";
  /** From when it was taken to the end of the migration, in milliseconds. */
  readonly held_ms: number;
}

export interface RehearsedMigration {
  readonly name: string;
  readonly ms: number;
  readonly locks: readonly BlockingLock[];
  /** Why it would not go through; null where it would. */
  readonly problem: string | null;
}

const BLOCKS: Readonly<Record<string, BlockingLock["blocks"]>> = {
  ShareLock: "writes",
  ShareRowExclusiveLock: "writes",
  ExclusiveLock: "writes",
  AccessExclusiveLock: "reads and writes",
};

/**
 * While it rehearses, whoever needs a table that it changes is kept waiting, until all of it is undone. So it holds such
 * tables for no longer than this altogether, and no statement takes longer before it holds any.
 */
const HOLD_MS = 2000;
const TOO_LONG = `the rehearsal would keep others waiting for longer than ${HOLD_MS / 1000} s; restore a backup to another database and run it there`;
const PROBLEMS: Readonly<Record<string, string>> = {
  "57014": TOO_LONG,
  "55P03": "another transaction holds a table that it changes; the migration itself would try again",
};

/** Undoes the rehearsal and carries what was seen. */
class Undone extends Error {
  constructor(readonly seen: readonly RehearsedMigration[]) {
    super("The rehearsal is undone");
  }
}

/**
 * Applies what is pending in a transaction that is undone, and tells of each migration how long it took and whom it
 * would keep waiting. Ends at the first that does not go through, or when it has kept anybody waiting for two seconds.
 * Nothing is changed.
 *
 * @throws OperatorError (exit 1) where the database was written by a newer primer
 */
export async function rehearseMigrations(
  database: Database,
  pending?: readonly Migration[],
): Promise<readonly RehearsedMigration[]> {
  try {
    return await database.longTransaction(async (connection) => {
      await connection.query(`SET LOCAL lock_timeout = ${MIGRATION_LOCK_TIMEOUT_MS}`);
      await connection.query(`SET LOCAL statement_timeout = ${HOLD_MS}`);
      await connection.query(`SET LOCAL idle_in_transaction_session_timeout = ${HOLD_MS}`);
      const before = await tablesIn(connection);
      const steps = await stepsOf(connection, pending ?? (await pendingMigrations(connection)));
      const holding: Holding = { before, known: new Set(), since: undefined };
      const seen: RehearsedMigration[] = [];
      for (const { name, statements } of steps) {
        seen.push(await rehearse(connection, name, statements, holding));
        if (seen.at(-1)?.problem) break;
      }
      throw new Undone(seen);
    });
  } catch (error) {
    if (error instanceof Undone) return error.seen;
    throw error;
  }
}

interface Step {
  readonly name: string;
  readonly statements: readonly ((connection: Connection) => Promise<unknown>)[];
}

async function stepsOf(connection: Connection, pending: readonly Migration[]): Promise<Step[]> {
  const steps: Step[] = pending.map((migration) => ({
    name: migration.name,
    statements: statementsOf(migration).map((statement) => (on) => on.query(statement)),
  }));
  const jobs = { name: JOB_TABLES, statements: [installJobTablesWithin] };
  const all = (await jobTablesCurrent(connection)) ? steps : [...steps, jobs];
  await connection.query(CREATE_RECORDS);
  return all;
}

const tablesIn = async (connection: Connection): Promise<Set<number>> => {
  const rows = await connection.query<{ oid: number }>("SELECT oid::int FROM pg_class WHERE relkind IN ('r', 'p')");
  return new Set(rows.map(({ oid }) => oid));
};

/** What a rehearsal holds of others' tables. */
interface Holding {
  /** The tables that there were before. */
  readonly before: ReadonlySet<number>;
  /** Each lock that was seen. */
  readonly known: Set<string>;
  /** From when on somebody is kept waiting. */
  since: number | undefined;
}

async function rehearse(
  connection: Connection,
  name: string,
  statements: Step["statements"],
  holding: Holding,
): Promise<RehearsedMigration> {
  const { before, known } = holding;
  const began = performance.now();
  const takenAt = new Map<string, { lock: LockRow; at: number }>();
  let problem: string | null = null;
  for (const run of statements) {
    const at = performance.now();
    try {
      if (holding.since !== undefined && !(await limitTo(connection, holding.since + HOLD_MS - at))) {
        problem = TOO_LONG;
        break;
      }
      await run(connection);
    } catch (error) {
      problem = PROBLEMS[codeOf(error) ?? ""] ?? textOf(error);
      break;
    }
    for (const lock of await ownLocks(connection)) {
      const key = `${lock.table} ${lock.mode}`;
      if (before.has(lock.oid) && !known.has(key)) {
        takenAt.set(key, { lock, at });
        if (BLOCKS[lock.mode]) holding.since ??= at;
      }
      known.add(key);
    }
  }
  const end = performance.now();
  const locks = [...takenAt.values()].flatMap(({ lock: { table, mode }, at }) => {
    const blocks = BLOCKS[mode];
    return blocks ? [{ table, mode, blocks, held_ms: Math.ceil(end - at) }] : [];
  });
  return { name, ms: Math.ceil(end - began), locks, problem };
}

/** Lets the next statement take so long and no longer. @returns false where no time is left for it */
async function limitTo(connection: Connection, ms: number): Promise<boolean> {
  if (ms < 1) return false;
  await connection.query(`SET LOCAL statement_timeout = ${Math.ceil(ms)}`);
  return true;
}

interface LockRow {
  readonly oid: number;
  readonly table: string;
  readonly mode: string;
}

const ownLocks = (connection: Connection) =>
  connection.query<Row<LockRow>>(
    `SELECT relation::int AS oid, relation::regclass::text AS table, mode FROM pg_locks
     WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND relation::regclass::text NOT LIKE 'pg\\_%'`,
  );

type Row<T> = { [K in keyof T]: T[K] };
