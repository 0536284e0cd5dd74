import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Database } from "../../db/database.ts";
import { migrate, migrationStatus } from "../../db/migrate.ts";
import { MIGRATIONS } from "../../db/migrations/index.ts";
import { openPgliteInMemory } from "../../db/pglite.ts";
import { rehearseMigrations } from "../../db/rehearse.ts";
import { when } from "../cli/support/home.ts";
import { createPostgresDatabase, openPostgresAt, openTestDatabase, TEST_DATABASE } from "../support/database.ts";

/** A migration that this version does not have. */
const LATER = {
  name: "9999_later",
  sql: `ALTER TABLE users ADD COLUMN nickname text;
--> statement-breakpoint
CREATE INDEX users_nickname_idx ON users (nickname);
--> statement-breakpoint
CREATE TABLE badges (id uuid PRIMARY KEY, user_id uuid REFERENCES users (id))`,
};

const onServer = when(TEST_DATABASE === "postgres", "others hold a table only where there are other connections");

let db: Database;
beforeEach(async () => {
  db = await openTestDatabase();
});
afterEach(() => db.close());

const shape = (of: Database) =>
  of.query(
    `SELECT table_schema || '.' || table_name || '.' || column_name AS part FROM information_schema.columns
     WHERE table_schema IN ('public', 'jobs') UNION ALL SELECT indexname FROM pg_indexes ORDER BY 1`,
  );

// A rehearsal tells what an upgrade will do to those who are writing, and does nothing.
describe("rehearseMigrations", () => {
  test("tells how long a migration takes and whom it blocks, and changes nothing", async () => {
    const before = await shape(db);
    const [seen, ...more] = await rehearseMigrations(db, [LATER]);
    expect(more).toEqual([]);
    expect(seen).toMatchObject({ name: "9999_later", problem: null, ms: expect.any(Number) });
    const blocked = seen?.locks.map(({ table, blocks }) => `${table}: ${blocks}`);
    expect(blocked).toContain("users: reads and writes");
    expect(blocked).toContain("users: writes");
    expect(blocked?.filter((text) => text.includes("badges"))).toEqual([]);
    expect(await shape(db)).toEqual(before);
  });

  test("one that does not go through is named with the reason, and nothing is changed", async () => {
    const before = await shape(db);
    const broken = { name: "9999_broken", sql: "ALTER TABLE nobody_has_it ADD COLUMN x text" };
    const seen = await rehearseMigrations(db, [LATER, broken, LATER]);
    expect(seen.map(({ name, problem }) => [name, problem === null])).toEqual([
      ["9999_later", true],
      ["9999_broken", false],
    ]);
    expect(await shape(db)).toEqual(before);
  });

  // However many migrations there are, nobody waits for the rehearsal longer than two seconds.
  test("all of them together hold tables for two seconds at most, and it says what to do instead", async () => {
    const slow = (name: string) => ({ name, sql: `ALTER TABLE users ADD COLUMN "${name}" text; SELECT pg_sleep(0.9)` });
    const before = await shape(db);
    const began = performance.now();
    const seen = await rehearseMigrations(db, ["a", "b", "c", "d", "e"].map(slow));
    expect(performance.now() - began).toBeLessThan(3500);
    expect(seen.length).toBeLessThan(5);
    expect(seen.at(-1)?.problem).toContain("restore a backup");
    expect(seen.slice(0, -1).filter(({ problem }) => problem !== null)).toEqual([]);
    expect(await shape(db)).toEqual(before);
  });

  test("nothing pending: nothing to tell", async () => {
    expect(await rehearseMigrations(db)).toEqual([]);
  });

  test("on an empty database everything goes through, blocks nobody, and it stays empty", async () => {
    const made = TEST_DATABASE === "postgres" ? await createPostgresDatabase() : undefined;
    const empty = made ? await openPostgresAt(made.url) : await openPgliteInMemory();
    try {
      const seen = await rehearseMigrations(empty);
      expect(seen.map(({ name }) => name)).toEqual([...MIGRATIONS.map(({ name }) => name), "job queue tables"]);
      expect(seen.filter(({ problem, locks }) => problem !== null || locks.length > 0)).toEqual([]);
      expect((await migrationStatus(empty)).every(({ state }) => state === "pending")).toBe(true);
      expect(await empty.query("SELECT FROM pg_tables WHERE schemaname IN ('public', 'jobs')")).toEqual([]);
    } finally {
      await empty.close();
      await made?.drop();
    }
  });

  test.if(onServer)("a table that somebody holds is named within half a second", async () => {
    await db.longTransaction(async (connection) => {
      await connection.query("SELECT id FROM users FOR UPDATE; LOCK TABLE users IN ROW EXCLUSIVE MODE");
      const began = performance.now();
      const [seen] = await rehearseMigrations(db, [LATER]);
      expect(seen?.problem).toContain("holds a table");
      expect(performance.now() - began).toBeLessThan(2000);
    });
  });
});

// A migration waits for a table in short turns: whoever comes after it never waits longer than one of them.
test.if(onServer)("a migration tries again until the table is free, and blocks nobody", async () => {
  const made = await createPostgresDatabase();
  const other = await openPostgresAt(made.url);
  try {
    await other.query(
      "CREATE TABLE schema_migrations (name text PRIMARY KEY, hash text NOT NULL, applied_at timestamptz NOT NULL, contracts boolean)",
    );
    let migrated: Promise<unknown> | undefined;
    await other.longTransaction(async (connection) => {
      await connection.query("LOCK TABLE schema_migrations IN SHARE MODE");
      migrated = migrate(other, () => new Date());
      for (const deadline = performance.now() + 3000; performance.now() < deadline; ) {
        const began = performance.now();
        await other.query("SELECT name FROM schema_migrations");
        expect(performance.now() - began).toBeLessThan(1000);
      }
    });
    expect(await migrated).toHaveLength(MIGRATIONS.length + 1);
  } finally {
    await other.close();
    await made.drop();
  }
});
