import { sql } from "drizzle-orm";
import { type DrizzleTransactionLike, fromDrizzle, type JobWithMetadata, PgBoss, type SendOptions } from "pg-boss";
import bossPackage from "pg-boss/package.json";
import { type Keyring, type RandomBytes, seal, unseal } from "../config/secrets.ts";
import { isTracing, type TraceCarrier, traceCarrier } from "../config/trace.ts";
import type { Connection, Database, Statement, Tx, WithCommit } from "./database.ts";

const SCHEMA = "jobs";
const MINUTE_SECONDS = 60;
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

/**
 * A mail: which one, to which user, and what about; an invitation is of the user who invites. What else it needs is looked
 * up when it is sent.
 */
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
  | { readonly template: "invitation"; readonly sealed: { readonly token: string; readonly to: string } }
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
      /** What was most unlike what is usual, with the score of its worst hour; not in a report that an earlier version has queued. */
      readonly unusual_networks?: readonly { readonly network: string; readonly score: number }[];
      readonly unusual_accounts?: readonly { readonly user_id: string; readonly score: number }[];
    }
  | { readonly template: "operator_alert"; readonly what: string; readonly why: string; readonly mend: string }
);

/**
 * What each queue's jobs carry. `request_id` is the request that caused the job. What nobody but the handler may read
 * belongs into `sealed`: it is encrypted in the database, and erased there once the job is done or given up.
 */
export interface JobPayloads {
  "send-mail": MailPayload;
}
export type QueueName = keyof JobPayloads;

type SecretName = `${string}${"token" | "secret" | "password" | "link" | "url" | "code" | "key"}`;
/** A payload with a field beside `sealed` that is named like a secret is no payload: it does not compile. */
export type WithoutSecrets<T> = T extends unknown ? (Extract<keyof T, SecretName> extends never ? T : never) : never;

interface QueuePolicy {
  /** How many times a job is tried once more after it has failed. */
  readonly retries: number;
  /** The pause after the first failure; each further one is twice as long, up to the longest (milliseconds). */
  readonly firstPauseMs: number;
  readonly longestPauseMs: number;
}

export const QUEUES: Readonly<Record<QueueName, QueuePolicy>> = {
  // Nine pauses that double and eleven of two hours: the last try is 24 to 36 hours after the first.
  "send-mail": { retries: 20, firstPauseMs: 15_000, longestPauseMs: 2 * 3_600_000 },
};

/**
 * How long a job waits after it has failed for the nth time in a row: twice as long as the time before, and up to half
 * of that longer, so that jobs that failed together are not tried together.
 *
 * @param chance from 0 to 1
 */
export function pauseAfterFailure(queue: QueueName, nth: number, chance: number): number {
  const { firstPauseMs, longestPauseMs } = QUEUES[queue];
  return Math.min(longestPauseMs, firstPauseMs * 2 ** (nth - 1)) * (1 + chance / 2);
}

/** A job runs no longer than this, whatever it does (milliseconds). */
export const JOB_DEADLINE_MS = 300_000;
/** The library removes a job that waits without a trace, so it never gets to: what waits for too long is declared dead before. */
const KEEP_WAITING_SECONDS = 3650 * DAY_SECONDS;
export const KEEP_DONE_SECONDS = 7 * DAY_SECONDS;
export const KEEP_DEAD_SECONDS = 90 * DAY_SECONDS;

/** What a job's secrets are sealed with, and what its id is made by. */
export interface JobSealing {
  ring(): Keyring;
  readonly bytes: RandomBytes;
  /** An id in the order of time (UUIDv7). */
  id(): string;
}

/** A job that this process has claimed: as long as it says so often enough, nobody else runs it. */
export interface Claim {
  readonly queue: QueueName;
  readonly id: string;
  /** How many times it was claimed before. With the id it names this claim: a later one counts further. */
  readonly claimedBefore: number;
  /** Where it was claimed so many times before, this is the last try. */
  readonly retryLimit: number;
  readonly isSuspect: boolean;
  /** How many processes died while they ran it. */
  readonly deaths: number;
  readonly createdAt: Date;
  /** The trace of what caused it. */
  readonly trace: TraceCarrier;
  /** As the row has it: what is sealed is sealed. */
  readonly row: Readonly<Record<string, unknown>>;
}

/**
 * A job whose process died is a suspect. Each process runs one of those at a time, so that one that kills its process
 * takes the others with it only once.
 */
export const SUSPECT_PRIORITY = -1;

export interface EnqueueOptions extends Pick<SendOptions, "startAfter"> {
  /** Of the same transaction: the job goes with the commit and is not waited for by itself. */
  readonly withCommit?: WithCommit;
}

/** Puts jobs into the queue, always inside the transaction of what causes them, and takes them out. */
export interface JobQueue {
  /** The job exists exactly if `tx` commits. @returns the job's id */
  enqueue<Q extends QueueName>(
    tx: Tx,
    queue: Q,
    payload: WithoutSecrets<JobPayloads[Q]>,
    options?: EnqueueOptions,
  ): Promise<string>;
  /** Claims the oldest jobs of a queue that are due; never one that somebody else has. */
  claim(queue: QueueName, which: { limit: number; suspects: boolean }): Promise<Claim[]>;
  /** What a claimed job carries, opened. @throws OperatorError where its secrets cannot be opened here */
  open<Q extends QueueName>(claim: Claim & { readonly queue: Q }): JobPayloads[Q];
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

/**
 * What this product adds to the library's tables: indexes for what is looked up here, and the erasing of secrets, which
 * happens in the very statement that ends a job, whoever sends it. The trigger comes last: where it is, all of it is.
 */
export const JOB_TABLE_ADDITIONS = `
CREATE INDEX IF NOT EXISTS job_id ON ${SCHEMA}.job (id);
CREATE INDEX IF NOT EXISTS job_unfinished ON ${SCHEMA}.job (name, state, id) WHERE state <> 'completed';
CREATE INDEX IF NOT EXISTS job_due ON ${SCHEMA}.job (name, priority, start_after) WHERE state < 'active' AND NOT blocked;
CREATE INDEX IF NOT EXISTS job_sealed ON ${SCHEMA}.job (split_part(data ->> 'sealed', '.', 2)) WHERE (data ->> 'sealed') IS NOT NULL;
CREATE OR REPLACE FUNCTION ${SCHEMA}.erase_secrets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.data := jsonb_set(NEW.data, '{sealed}', 'null');
  RETURN NEW;
END $$;
DROP TRIGGER IF EXISTS erase_secrets ON ${SCHEMA}.job;
CREATE TRIGGER erase_secrets BEFORE INSERT OR UPDATE ON ${SCHEMA}.job FOR EACH ROW
  WHEN (NEW.state > 'active' AND (NEW.data ->> 'sealed') IS NOT NULL) EXECUTE FUNCTION ${SCHEMA}.erase_secrets();
`;

/** Whether the queue's own tables are there in the version that the library needs, with what is added to them. */
export async function jobTablesCurrent(connection: Connection): Promise<boolean> {
  const found = await connection.query<{ found: string | null }>(
    `SELECT to_regclass('${SCHEMA}.version')::text AS found`,
  );
  if (!found[0]?.found) return false;
  const [row] = await connection.query<{ version: number }>(`SELECT version FROM ${SCHEMA}.version`);
  const queues = await connection.query<{ name: string }>(`SELECT name FROM ${SCHEMA}.queue`);
  const missing = Object.keys(QUEUES).filter((name) => !queues.some((queue) => queue.name === name));
  const added = await connection.query(
    `SELECT 1 FROM pg_trigger WHERE tgname = 'erase_secrets' AND tgrelid = to_regclass('${SCHEMA}.job')`,
  );
  return row?.version === bossPackage.pgboss.schema && missing.length === 0 && added.length > 0;
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
  for (const name of Object.keys(QUEUES)) await boss.createQueue(name);
  await boss.stop({ close: false, graceful: false });
  await connection.query(JOB_TABLE_ADDITIONS);
}

/** The queue, ready before the first transaction: on the embedded database nothing may be looked up inside one. */
export async function openJobQueue(database: Database, sealing: JobSealing): Promise<JobQueue> {
  const boss = createBoss(database, false);
  await boss.start();
  return {
    async enqueue(tx, queue, payload, { withCommit, ...options } = {}) {
      const id = sealing.id();
      const traced = isTracing() ? { trace: traceCarrier() } : {};
      const sent = await boss.send(
        queue,
        { ...sealedRow(payload, id, sealing), ...traced },
        {
          ...options,
          id,
          retryLimit: QUEUES[queue].retries,
          // Only for a worker that does not keep to the deadline by itself.
          expireInSeconds: JOB_DEADLINE_MS / 1000 + MINUTE_SECONDS,
          retentionSeconds: KEEP_WAITING_SECONDS,
          deleteAfterSeconds: KEEP_DEAD_SECONDS,
          db: withCommit ? sendingLater(tx, withCommit, id) : fromDrizzle(tx as DrizzleTransactionLike, sql),
        },
      );
      if (sent === null) throw new Error(`A job for ${queue} was not accepted.`);
      return sent;
    },
    async claim(queue, { limit, suspects }) {
      const which = suspects ? { maxPriority: SUSPECT_PRIORITY } : { minPriority: SUSPECT_PRIORITY + 1 };
      const jobs = await boss.fetch<object>(queue, { batchSize: limit, includeMetadata: true, ...which });
      return jobs.map((job) => claimOf(queue, job));
    },
    open<Q extends QueueName>({ row, id }: Claim & { readonly queue: Q }) {
      const { sealed } = row;
      if (typeof sealed !== "string") return row as unknown as JobPayloads[Q];
      const opened = JSON.parse(unseal(sealing.ring(), sealed, id).toString());
      return { ...row, sealed: opened } as unknown as JobPayloads[Q];
    },
    close: () => boss.stop({ close: false, graceful: false }),
  };
}

/** What the library inserts a job by where that goes with the commit. It asks for the id, which it was given. */
const sendingLater = (tx: Tx, withCommit: WithCommit, id: string) => ({
  async executeSql(text: string, values: unknown[] = []) {
    withCommit(statementOf(tx, text, values));
    return { rows: [{ id }] };
  },
});

/** A statement as the query builder makes them: sent by whoever waits for it, or from its text. */
const statementOf = (tx: Tx, text: string, params: unknown[]): Statement => ({
  toSQL: () => ({ sql: text, params }),
  // biome-ignore lint/suspicious/noThenProperty: it is what makes a statement one that is sent by waiting for it
  then: (...settled) =>
    fromDrizzle(tx as DrizzleTransactionLike, sql)
      .executeSql(text, params)
      .then(...settled),
});

/** Sealed for this job alone: in another job's row it does not open. */
function sealedRow(payload: { readonly sealed?: unknown }, id: string, { ring, bytes }: JobSealing): object {
  if (payload.sealed === undefined) return payload;
  const plain = Buffer.from(JSON.stringify(payload.sealed));
  return { ...payload, sealed: seal(ring(), plain, id, bytes) };
}

function claimOf(queue: QueueName, job: JobWithMetadata<object>): Claim {
  return {
    queue,
    id: job.id,
    claimedBefore: job.retryCount,
    retryLimit: job.retryLimit,
    isSuspect: job.priority <= SUSPECT_PRIORITY,
    deaths: (job.output as { deaths?: number } | null)?.deaths ?? 0,
    createdAt: new Date(job.createdOn),
    trace: (job.data as { trace?: TraceCarrier }).trace ?? {},
    row: job.data as Claim["row"],
  };
}

/** One process at a time looks after the queue, on a connection of its own: it begins and ends transactions itself. */
const SUPERVISION_LOCK = "primer job supervision";
/** The longest that one statement of that may take (milliseconds). */
const SUPERVISION_STATEMENT_MS = 60_000;

/**
 * Removes what was kept long enough, and whatever else the library does from time to time.
 *
 * @param signal ends it at once: what it was about to do is done the next time
 */
export async function superviseJobs(database: Database, signal?: AbortSignal): Promise<void> {
  const bounds = { statementMs: SUPERVISION_STATEMENT_MS, ...(signal ? { signal } : {}) };
  await database.exclusively(SUPERVISION_LOCK, supervise, bounds);
}

async function supervise(connection: Connection): Promise<void> {
  const boss = createBoss(connection, false);
  await boss.start();
  try {
    await boss.supervise();
  } finally {
    await boss.stop({ close: false, graceful: false });
  }
}
