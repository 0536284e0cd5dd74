import { sql } from "drizzle-orm";
import { type DrizzleTransactionLike, fromDrizzle, PgBoss, type SendOptions } from "pg-boss";
import bossPackage from "pg-boss/package.json";
import type { Connection, Database, Tx } from "./database.ts";

const SCHEMA = "jobs";
const DAY_SECONDS = 86_400;

/** What each queue's jobs carry. `request_id` is the request that caused the job. */
export interface JobPayloads {
  "send-mail": { readonly user_id: string; readonly request_id: string | null } & (
    | { readonly template: "password_changed" | "account_locked" }
    | { readonly template: "new_sign_in"; readonly session_id: string }
    | { readonly template: "suspicious_sign_in"; readonly session_id: string; readonly signals: readonly string[] }
    | { readonly template: "refresh_reused"; readonly session_id: string }
  );
}
export type QueueName = keyof JobPayloads;

/** How each queue treats its jobs. A job waits for its consumer for ten years: it is kept until one exists. */
const QUEUES: Record<QueueName, { retryLimit: number; retryBackoff: boolean; expireInSeconds: number }> = {
  "send-mail": { retryLimit: 12, retryBackoff: true, expireInSeconds: 300 },
};
const RETENTION_SECONDS = 3650 * DAY_SECONDS;

/** Puts jobs into the queue, always inside the transaction of what causes them. */
export interface JobQueue {
  /** The job exists exactly if `tx` commits. @returns the job's id */
  enqueue<Q extends QueueName>(tx: Tx, queue: Q, payload: JobPayloads[Q], options?: SendOptions): Promise<string>;
  close(): Promise<void>;
}

const driver = (connection: Connection) => ({
  executeSql: async (statement: string, values?: unknown[]) => ({
    rows: await connection.query(statement, values ?? []),
  }),
});

function createBoss(connection: Connection, migrate: boolean): PgBoss {
  const boss = new PgBoss({ db: driver(connection), schema: SCHEMA, migrate, supervise: false, schedule: false });
  boss.on("error", () => {}); // every call that fails also rejects; without a listener the process would die of it
  return boss;
}

/** Whether the queue's own tables are there in the version that the library needs. */
export async function jobTablesCurrent(connection: Connection): Promise<boolean> {
  const found = await connection.query<{ found: string | null }>(
    `SELECT to_regclass('${SCHEMA}.version')::text AS found`,
  );
  if (!found[0]?.found) return false;
  const [row] = await connection.query<{ version: number }>(`SELECT version FROM ${SCHEMA}.version`);
  const queues = await connection.query<{ name: string }>(`SELECT name FROM ${SCHEMA}.queue`);
  const missing = Object.keys(QUEUES).filter((name) => !queues.some((queue) => queue.name === name));
  return row?.version === bossPackage.pgboss.schema && missing.length === 0;
}

/** The library's texts are transactions of their own; here they are part of the one that is under way. */
const withinTransaction = (connection: Connection): Connection => ({
  query: (statement, values) =>
    connection.query(statement.replace(/^\s*BEGIN;(\s*SET LOCAL \w+ = \d+;)*/, "").replace(/COMMIT;\s*$/, ""), values),
});

/** The same in a transaction that is under way. */
export const installJobTablesWithin = (connection: Connection): Promise<void> =>
  installJobTables(withinTransaction(connection));

/** Makes or upgrades the queue's own tables and the queues, waiting for each no longer than the connection does. */
export async function installJobTables(connection: Connection): Promise<void> {
  const impatient: Connection = {
    query: (statement, values) => connection.query(statement.replace(/SET LOCAL lock_timeout = \d+;/, ""), values),
  };
  const boss = createBoss(impatient, true);
  await boss.start();
  for (const [name, options] of Object.entries(QUEUES)) {
    await boss.createQueue(name, { ...options, retentionSeconds: RETENTION_SECONDS });
  }
  await boss.stop({ close: false, graceful: false });
}

/** The queue, ready before the first transaction: on the embedded database nothing may be looked up inside one. */
export async function openJobQueue(database: Database): Promise<JobQueue> {
  const boss = createBoss(database, false);
  await boss.start();
  return {
    async enqueue(tx, queue, payload, options = {}) {
      const id = await boss.send(queue, payload, { ...options, db: fromDrizzle(tx as DrizzleTransactionLike, sql) });
      if (id === null) throw new Error(`A job for ${queue} was not accepted.`);
      return id;
    },
    close: () => boss.stop({ close: false, graceful: false }),
  };
}

/** One process at a time looks after the queue, on a connection of its own: it begins and ends transactions itself. */
const SUPERVISION_LOCK = "primer job supervision";

/** Lets jobs of dead workers be tried again, and removes what was kept long enough. */
export async function superviseJobs(database: Database): Promise<void> {
  await database.exclusively(SUPERVISION_LOCK, async (connection) => {
    const boss = createBoss(connection, false);
    await boss.start();
    try {
      await boss.supervise();
    } finally {
      await boss.stop({ close: false, graceful: false });
    }
  });
}
