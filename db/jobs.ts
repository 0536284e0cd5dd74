import { sql } from "drizzle-orm";
import { type DrizzleTransactionLike, fromDrizzle, PgBoss, type SendOptions } from "pg-boss";
import bossPackage from "pg-boss/package.json";
import type { Database, Tx } from "./database.ts";

const SCHEMA = "jobs";
const DAY_SECONDS = 86_400;

/** What a mail needs that nobody may read in the queue: sealed there, and gone once the mail is. */
export type SealedMail = {
  /** Of a link. */
  readonly token?: string;
  /** Where it goes, unless to the user's own address. */
  readonly to?: string;
};

/** What happened to a second factor. */
export type FactorChange =
  | "totp_added"
  | "totp_removed"
  | "passkey_added"
  | "passkey_removed"
  | "recovery_codes_made"
  | "recovery_code_used";

/** The sign-ins of one day. */
export interface SignInFigures {
  readonly sign_ins: number;
  readonly failures: number;
  readonly new_users: number;
  readonly locked_accounts: number;
}

/** A mail: which one, to which user, and what about. What else it needs is looked up when it is sent. */
export type MailPayload = {
  readonly user_id: string;
  readonly request_id: string | null;
  /** Whether it stands for several that would have come within a short time. */
  readonly several?: boolean;
  readonly sealed?: SealedMail;
} & (
  | {
      readonly template: "verify_email" | "password_reset";
      readonly sealed: { readonly token: string; readonly to?: string };
    }
  | { readonly template: "already_registered" | "password_changed" | "account_locked" }
  | { readonly template: "email_changed"; readonly sealed: { readonly to: string } }
  | { readonly template: "new_sign_in" | "refresh_reused"; readonly session_id: string }
  | { readonly template: "suspicious_sign_in"; readonly session_id: string; readonly signals: readonly string[] }
  | { readonly template: "second_factor_changed"; readonly change: FactorChange }
  | {
      readonly template: "daily_report";
      /** The day that it is about, such as "2026-03-01". */
      readonly day: string;
      readonly figures: SignInFigures;
      readonly week_before: SignInFigures;
      readonly top_failing: readonly { readonly address: string; readonly failures: number }[];
    }
  | { readonly template: "operator_alert"; readonly what: string; readonly why: string; readonly mend: string }
);

/** What each queue's jobs carry. `request_id` is the request that caused the job. */
export interface JobPayloads {
  "send-mail": MailPayload;
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

type Connection = Pick<Database, "query">;

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

/** Makes or upgrades the queue's own tables and the queues. */
export async function installJobTables(connection: Connection): Promise<void> {
  const boss = createBoss(connection, true);
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
