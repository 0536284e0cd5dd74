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

/** Whether these settings mean the embedded database, which one process owns. */
export const isEmbedded = (settings: Settings): boolean => settings.database.url === "";
