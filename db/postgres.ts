import { drizzle } from "drizzle-orm/postgres-js";
import postgres from "postgres";
import { codeOf, type OperatorError, textOf, unreachable } from "../config/errors.ts";
import { redactText } from "../config/log.ts";
import type { Settings } from "../config/schema.ts";
import { boundedPool } from "./bounded-pool.ts";
import type { ChangeFeed, Connection, Database, ExclusiveBounds, Orm, Row, Statement, Tx } from "./database.ts";
import { withinDeadline } from "./deadline.ts";
import { isConnectionError, isLostTransaction } from "./errors.ts";
import { watchPostgres } from "./postgres-changes.ts";
import { postgresTls, TLS_HINTS } from "./postgres-tls.ts";
import { openReplicas } from "./replicas.ts";

/** How many times a connection is tried when a process starts, and how long it waits before each further try. */
const START_RETRY_MS = [250, 1000];
/** While the server is away, a new connection is tried this often (seconds); queries wait no longer for one. */
const RECONNECT_SECONDS = 0.1;
/** How long an answer may take beyond the statement timeout before the server counts as hanging (milliseconds). */
const ANSWER_MARGIN_MS = 1000;
const OLDEST_VERSION = 150_000;
/** At once it would take the lock that the other transaction was about to get, and they would block each other again. */
const WINNER_GOES_FIRST_MS = 50;
/** No statement waits longer than this for a lock that another transaction holds. */
const LOCK_TIMEOUT_MS = 2000;

/** The wait for another process that migrates or initialises; both take seconds. */
const EXCLUSIVE_TIMEOUT_MS = 60_000;
/** The longest that one statement under a lock may take where nobody says: those of a migration take their time. */
const EXCLUSIVE_STATEMENT_MS = 30 * 60_000;
/** How long a long transaction may pause between two statements, such as while a disk is slow. */
const LONGEST_PAUSE_MS = 10 * 60_000;
/** In seconds: the server gives up who has not answered for 25 s, and with them the lock that they held. */
const KEEPALIVES = { tcp_keepalives_idle: 10, tcp_keepalives_interval: 5, tcp_keepalives_count: 3 };
/** SQLSTATE of a wait for a lock that took too long. */
const LOCK_NOT_AVAILABLE = "55P03";

/**
 * Connects to PostgreSQL and checks that it answers.
 *
 * @param settings with an absolute path as `tls_ca`, where there is one
 * @throws OperatorError (exit 3) after three tries, naming the address and what to try
 */
export async function openPostgres(settings: Settings["database"]): Promise<Database> {
  const options = connectionOptions(settings);
  const deadlineMs = settings.statement_timeout + ANSWER_MARGIN_MS;
  const pool = boundedPool("PostgreSQL", settings.url, options, deadlineMs);
  const replicaPools = settings.replica_urls.map((url) =>
    boundedPool("A replica of PostgreSQL", url, connectionOptions({ ...settings, url }), deadlineMs),
  );
  const { client } = pool;
  const { protocol, host, pathname } = new URL(settings.url);
  const address = `${protocol}//${host}${pathname}`;
  const orm = drizzle(client) as unknown as Orm; // sets how connections read and write values, so before the first
  await answering(client, address).catch(async (error) => {
    await pool.close().catch(() => {});
    throw error;
  });

  const transaction: Database["transaction"] = (work) =>
    onceMoreIfLost(async () => {
      const last: Statement[] = [];
      const finish = async (tx: Tx) => ({ result: await work(tx, (...statements) => last.push(...statements)), last });
      return (await orm.transaction(finish)).result;
    });
  const replicas = openReplicas(pool, replicaPools, settings.replica_max_lag);
  const feeds = new Set<ChangeFeed>();
  return {
    kind: "postgres",
    address,
    breaker: pool.breaker,
    onQuery(listener) {
      for (const each of [pool, ...replicaPools]) each.onQuery = listener;
    },
    poolUse: pool.use,
    orm,
    replica: replicas.list.length > 0 ? replicas.orm : orm,
    replicas: replicas.list,
    transaction,
    async change(work) {
      const result = await transaction(work);
      await Promise.all([...feeds].map((feed) => feed.settled()));
      return result;
    },
    query: (statement, values = []) => run(client, statement, values),
    exclusively: (lock, work, bounds) => onLockedConnection(settings.url, options, lock, work, bounds),
    snapshot: (work) => inLongTransaction(settings.url, options, "ISOLATION LEVEL REPEATABLE READ READ ONLY", work),
    longTransaction: (work) => inLongTransaction(settings.url, options, "", work),
    watch(listener) {
      const feed = watchPostgres(settings.url, options, listener);
      feeds.add(feed);
      return feed;
    },
    close: async () => void (await Promise.all([pool.close(), replicas.close()])),
  };
}

/** A transaction that lost against another one was undone whole, so it may be run again; once, since it is waited for. */
async function onceMoreIfLost<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!isLostTransaction(error)) throw error;
    await Bun.sleep(WINNER_GOES_FIRST_MS);
    return run();
  }
}

function connectionOptions(settings: Settings["database"]) {
  const tls = postgresTls(settings);
  return {
    ...(tls ? { ssl: tls } : {}),
    max: settings.pool_size,
    connect_timeout: settings.connect_timeout / 1000,
    idle_timeout: 60,
    max_lifetime: 30 * 60,
    backoff: () => RECONNECT_SECONDS,
    onnotice: () => {},
    connection: {
      application_name: "primer",
      TimeZone: "UTC",
      statement_timeout: settings.statement_timeout,
      lock_timeout: LOCK_TIMEOUT_MS,
      idle_in_transaction_session_timeout: 30_000,
    },
  } satisfies postgres.Options<Record<string, never>>;
}

/**
 * A connection that no request waits for. The driver would go on with another one where it is lost, outside of the
 * transaction and without the lock that it had: so its loss ends the work.
 */
function ownConnection(
  url: string,
  options: ReturnType<typeof connectionOptions>,
  settings: Readonly<Record<string, number>>,
  { deadlineMs, signal }: { readonly deadlineMs: number; readonly signal?: AbortSignal | undefined },
) {
  let opened = false;
  let lost = false;
  const client = postgres(url, {
    ...options,
    max: 1,
    idle_timeout: 0,
    max_lifetime: null,
    connection: { ...options.connection, ...settings },
    onclose: () => {
      lost = opened;
    },
  });
  const query: Connection["query"] = (statement, values = []) => {
    if (lost)
      throw unreachable("The connection to PostgreSQL was lost; its transaction is undone.", "Run the command again.");
    signal?.throwIfAborted();
    return withinDeadline(run(client, statement, values), deadlineMs);
  };
  return {
    client,
    query,
    /** One that is still being made is not cut off. @throws the driver's error where there is none in time */
    async open() {
      await withinDeadline(run(client, "SELECT 1", []), EXCLUSIVE_TIMEOUT_MS);
      opened = true;
    },
    giveUp: () => void client.end({ timeout: 0 }).catch(() => {}),
    close: () => client.end({ timeout: 5 }),
  };
}

/** A transaction that may take as long as it needs. Undone whole where it fails, or its connection is lost. */
async function inLongTransaction<T>(
  url: string,
  options: ReturnType<typeof connectionOptions>,
  mode: string,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  const settings = { statement_timeout: 0, idle_in_transaction_session_timeout: LONGEST_PAUSE_MS };
  const alone = ownConnection(url, options, settings, { deadlineMs: EXCLUSIVE_STATEMENT_MS });
  try {
    await alone.open();
    await alone.query(`BEGIN ${mode}`);
    const result = await work(alone);
    await alone.query("COMMIT");
    return result;
  } finally {
    await alone.close(); // what was not committed is undone with the connection
  }
}

/** An advisory lock lives as long as its connection, so this one is never given back. */
async function onLockedConnection<T>(
  url: string,
  options: ReturnType<typeof connectionOptions>,
  lock: string,
  work: (connection: Connection) => Promise<T>,
  { statementMs = EXCLUSIVE_STATEMENT_MS, idleMs = 0, signal }: ExclusiveBounds = {},
): Promise<T> {
  signal?.throwIfAborted();
  const settings = {
    statement_timeout: statementMs,
    lock_timeout: EXCLUSIVE_TIMEOUT_MS,
    idle_session_timeout: idleMs,
    ...KEEPALIVES,
  };
  const alone = ownConnection(url, options, settings, { deadlineMs: statementMs + ANSWER_MARGIN_MS, signal });
  try {
    await alone.open();
    signal?.throwIfAborted();
    signal?.addEventListener("abort", alone.giveUp);
    await takeLock(alone.client, lock);
    return await work(alone);
  } finally {
    signal?.removeEventListener("abort", alone.giveUp);
    await alone.close();
  }
}

async function takeLock(client: postgres.Sql, lock: string): Promise<void> {
  const taken = client.unsafe("SELECT pg_advisory_lock(hashtext($1))", [lock]);
  try {
    await withinDeadline(Promise.resolve(taken), EXCLUSIVE_TIMEOUT_MS + ANSWER_MARGIN_MS);
  } catch (error) {
    if (codeOf(error) !== LOCK_NOT_AVAILABLE) throw error;
    const waited = `${EXCLUSIVE_TIMEOUT_MS / 1000} s`;
    throw unreachable(
      `Another process has held the lock "${lock}" on this database for ${waited}.`,
      "Another primer is migrating or initialising it: wait for that one, or end it; then run the command again.",
      error,
    );
  }
}

async function run<R extends Row>(client: postgres.Sql, statement: string, values: readonly unknown[]): Promise<R[]> {
  const rows = values.length > 0 ? client.unsafe(statement, [...values] as never[]) : client.unsafe(statement);
  return (await rows) as unknown as R[];
}

async function answering(client: postgres.Sql, address: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      const [row] = await client.unsafe("SELECT current_setting('server_version_num')::int AS version");
      if (row?.version >= OLDEST_VERSION) return;
      throw unreachable(`${address} is PostgreSQL ${row?.version}; primer needs version 15 or later.`);
    } catch (error) {
      const pause = isConnectionError(error) ? START_RETRY_MS[attempt] : undefined;
      if (pause !== undefined) {
        await Bun.sleep(pause);
        continue;
      }
      throw explain(error, address);
    }
  }
}

function explain(error: unknown, address: string): OperatorError | Error {
  if (error instanceof Error && error.name === "OperatorError") return error;
  const hints: Record<string, string> = {
    ECONNREFUSED: "Nothing listens there. Is PostgreSQL running, and are host and port right?",
    ENOTFOUND: "The host name is not known. Is it spelt right, and does DNS answer from here?",
    "28P01": "The password is wrong. Check the user and the password in DATABASE_URL.",
    "28000": "The server refuses this user from here. See its pg_hba.conf.",
    "3D000": "The database does not exist yet. Create it: createdb NAME.",
    ...TLS_HINTS,
  };
  const hint = hints[codeOf(error) ?? ""] ?? "Check DATABASE_URL, the network and whether PostgreSQL is up.";
  return unreachable(`PostgreSQL at ${address} does not answer: ${redactText(textOf(error))}`, hint, error);
}
