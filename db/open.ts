import { resolve } from "node:path";
import { misused } from "../config/errors.ts";
import type { Settings } from "../config/schema.ts";
import type { Database } from "./database.ts";

/**
 * Opens the database that the settings name: PostgreSQL where there is a URL, else the embedded one in the home.
 * Each driver is loaded only where it is used.
 *
 * @param create whether an embedded database may come into being; else a mistyped home would get one
 * @throws OperatorError: exit 3 where it is not to be had, exit 2 where there is none in this home
 */
export async function openDatabase(settings: Settings, home: string, create: boolean): Promise<Database> {
  if (!isEmbedded(settings)) {
    const { tls_ca } = settings.database;
    const { openPostgres } = await import("./postgres.ts");
    return openPostgres({ ...settings.database, tls_ca: tls_ca === "" ? "" : resolve(home, tls_ca) });
  }
  const { hasPglite, openPglite } = await import("./pglite.ts");
  if (!create && !hasPglite(home)) {
    throw misused(`${home} is not initialised yet.`, "Run `primer init` first, or name another home with --dir.");
  }
  return openPglite(home);
}

/** The database as the role that owns its tables. */
export interface Owner {
  readonly database: Database;
  /** Whether that is another role than everybody else's. */
  readonly isOther: boolean;
  close(): Promise<void>;
}

/**
 * For what only the owner of the tables may do: a connection by `database.admin_url` where it is set, else the one given.
 *
 * @throws OperatorError exit 3 where it is not to be had, exit 2 for the URL of another database
 */
export async function openOwner(settings: Settings, home: string, database: Database): Promise<Owner> {
  const { admin_url: url } = settings.database;
  if (url === "" || database.kind === "pglite") return { database, isOther: false, close: async () => {} };
  const own = { ...settings, database: { ...settings.database, url, replica_urls: [] } };
  const opened = await openDatabase(own, home, false);
  try {
    await assertSame(database, opened);
  } catch (error) {
    await opened.close();
    throw error;
  }
  return { database: opened, isOther: true, close: () => opened.close() };
}

/** Two connections to one database of one server, whatever they call it. */
async function assertSame(one: Database, other: Database): Promise<void> {
  const identity = (on: Database) =>
    on.query<{ identity: string }>(
      "SELECT current_database() || ' ' || (SELECT oid FROM pg_database WHERE datname = current_database()) || ' ' || pg_postmaster_start_time() AS identity",
    );
  const [[first], [second]] = await Promise.all([identity(one), identity(other)]);
  if (first?.identity === second?.identity) return;
  throw misused(
    `DATABASE_ADMIN_URL (${other.address}) is another database than DATABASE_URL (${one.address}).`,
    "Both must name the same database of the same server, each with its own role.",
  );
}

/** Whether these settings mean the embedded database, which one process owns. */
export const isEmbedded = (settings: Settings): boolean => settings.database.url === "";
