import type { Settings } from "../config/schema.ts";
import type { Database } from "./database.ts";

/**
 * Opens the database that the settings name: PostgreSQL where there is a URL, else the embedded one in the home.
 * Each driver is loaded only where it is used.
 *
 * @throws OperatorError (exit 3) where it is not to be had
 */
export async function openDatabase(settings: Settings, home: string): Promise<Database> {
  if (settings.database.url !== "") return (await import("./postgres.ts")).openPostgres(settings.database);
  return (await import("./pglite.ts")).openPglite(home);
}

/** Whether these settings mean the embedded database, which one process owns. */
export const isEmbedded = (settings: Settings): boolean => settings.database.url === "";
