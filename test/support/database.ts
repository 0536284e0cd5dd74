import { loadSettings } from "../../config/load.ts";
import type { Database } from "../../db/database.ts";
import { migrate } from "../../db/migrate.ts";
import { openPgliteInMemory } from "../../db/pglite.ts";
import { openPostgres } from "../../db/postgres.ts";
import { migratedDump } from "./fixtures.ts";

/** Which database the suites run on: TEST_DATABASE=pglite (default) or postgres (then TEST_DATABASE_URL says where). */
export const TEST_DATABASE = process.env.TEST_DATABASE === "postgres" ? "postgres" : "pglite";

/** The address of the PostgreSQL that tests may make databases on. */
export function postgresUrl(): string {
  const url = process.env.TEST_DATABASE_URL;
  if (!url)
    throw new Error("TEST_DATABASE=postgres needs TEST_DATABASE_URL; `bun run test` starts a server and sets it");
  return url;
}

/** A database of its own on the PostgreSQL of the tests, empty or a copy of another one; `drop` removes it. */
export async function createPostgresDatabase(template?: string): Promise<{ url: string; drop(): Promise<void> }> {
  const name = `primer_test_${crypto.randomUUID().replaceAll("-", "")}`;
  const admin = await openPostgresAt(postgresUrl());
  await admin.query(`CREATE DATABASE ${name}${template ? ` TEMPLATE ${template} STRATEGY FILE_COPY` : ""}`);
  return {
    url: databaseUrl(name),
    async drop() {
      await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
      await admin.close();
    },
  };
}

function databaseUrl(name: string): string {
  const url = new URL(postgresUrl());
  url.pathname = `/${name}`;
  return url.href;
}

/**
 * A migrated database that others can be copied from, which takes a quarter of the time. A run makes one and tells its
 * name to all by TEST_DATABASE_TEMPLATE.
 */
export async function createPostgresTemplate(): Promise<{ name: string; drop(): Promise<void> }> {
  const { url, drop } = await createPostgresDatabase();
  const database = await openPostgresAt(url);
  await migrate(database, () => new Date());
  await database.close(); // one that somebody is connected to cannot be copied
  return { name: new URL(url).pathname.slice(1), drop };
}

export const openPostgresAt = (url: string): Promise<Database> =>
  openPostgres(loadSettings("/nonexistent", { DATABASE_URL: url }).settings.database);

export interface TestDatabase extends Database {
  /** The same database for another node: over connections of its own where there can be any. Closed with the first. */
  again(): Promise<Database>;
}

/** An empty, migrated database of the kind that this run is about. Close it when done: then it is gone. */
export async function openTestDatabase(): Promise<TestDatabase> {
  if (TEST_DATABASE === "pglite") {
    const database = await openPgliteInMemory(await migratedDump());
    return { ...database, again: async () => database };
  }
  const template = process.env.TEST_DATABASE_TEMPLATE;
  const { url, drop } = await createPostgresDatabase(template);
  const database = await openPostgresAt(url);
  if (!template) await migrate(database, () => new Date());
  const others: Database[] = [];
  return {
    ...database,
    async again() {
      const other = await openPostgresAt(url);
      others.push(other);
      return other;
    },
    async close() {
      await Promise.all([database, ...others].map((one) => one.close()));
      await drop();
    },
  };
}
