import { drizzle } from "drizzle-orm/postgres-js";
import postgres from "postgres";
import { codeOf, type OperatorError, textOf, unreachable } from "../config/errors.ts";
import { redactText } from "../config/log.ts";
import type { Settings } from "../config/schema.ts";
import type { Database, Orm, Row } from "./database.ts";
import { isConnectionError } from "./errors.ts";

/** How many times a connection is tried when a process starts, and how long it waits before each further try. */
const START_RETRY_MS = [250, 1000];
const OLDEST_VERSION = 150_000;
/** No statement waits longer than this for a lock that another transaction holds. */
const LOCK_TIMEOUT_MS = 2000;

/**
 * Connects to PostgreSQL and checks that it answers.
 *
 * @throws OperatorError (exit 3) after three tries, naming the address and what to try
 */
export async function openPostgres(settings: Settings["database"]): Promise<Database> {
  const connect = (connections: number, statementTimeoutMs: number) =>
    postgres(settings.url, {
      max: connections,
      connect_timeout: settings.connect_timeout / 1000,
      idle_timeout: 60,
      max_lifetime: 30 * 60,
      onnotice: () => {},
      connection: {
        application_name: "primer",
        TimeZone: "UTC",
        statement_timeout: statementTimeoutMs,
        lock_timeout: LOCK_TIMEOUT_MS,
        idle_in_transaction_session_timeout: 30_000,
      },
    });
  const client = connect(settings.pool_size, settings.statement_timeout);
  const address = redactText(settings.url);
  await answering(client, address);

  const orm = drizzle(client) as unknown as Orm;
  return {
    kind: "postgres",
    address,
    orm,
    transaction: (work) => orm.transaction(work),
    query: <R extends Row>(statement: string, values: readonly unknown[] = []) => run<R>(client, statement, values),
    async exclusively(lock, work) {
      const alone = connect(1, 0);
      try {
        await alone.unsafe("SET lock_timeout = 0");
        await alone.unsafe("SELECT pg_advisory_lock(hashtext($1))", [lock]);
        return await work({ query: (statement, values = []) => run(alone, statement, values) });
      } finally {
        await alone.end({ timeout: 5 });
      }
    },
    close: () => client.end({ timeout: 5 }),
  };
}

async function run<R extends Row>(client: postgres.Sql, statement: string, values: readonly unknown[]): Promise<R[]> {
  const rows = values.length > 0 ? client.unsafe(statement, [...values] as never[]) : client.unsafe(statement);
  return (await rows) as unknown as R[];
}

async function answering(client: postgres.Sql, address: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      const [row] = await client`SELECT current_setting('server_version_num')::int AS version`;
      if (row?.version >= OLDEST_VERSION) return;
      throw unreachable(`${address} is PostgreSQL ${row?.version}; primer needs version 15 or later.`);
    } catch (error) {
      const pause = isConnectionError(error) ? START_RETRY_MS[attempt] : undefined;
      if (pause !== undefined) {
        await Bun.sleep(pause);
        continue;
      }
      await client.end({ timeout: 1 }).catch(() => {});
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
  };
  const hint = hints[codeOf(error) ?? ""] ?? "Check DATABASE_URL, the network and whether PostgreSQL is up.";
  return unreachable(`PostgreSQL at ${address} does not answer: ${redactText(textOf(error))}`, hint, error);
}
