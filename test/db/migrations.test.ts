import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import type { Database } from "../../db/database.ts";
import { isMigrated, migrate, migrationStatus } from "../../db/migrate.ts";
import { MIGRATIONS } from "../../db/migrations/index.ts";
import { openPgliteInMemory } from "../../db/pglite.ts";
import { createPostgresDatabase, openPostgresAt, TEST_DATABASE } from "../support/database.ts";

const now = () => new Date("2026-03-01T12:00:00.000Z");
const ALL = [...MIGRATIONS.map((migration) => migration.name), "job queue tables"];

let db: Database;
/** A further way into the same database, as another node or, on the embedded one, another command would have it. */
let openAgain: () => Promise<Database>;
let remove = async () => {};

beforeAll(async () => {
  if (TEST_DATABASE === "pglite") {
    db = await openPgliteInMemory();
    openAgain = async () => ({ ...db, close: async () => {} });
    return;
  }
  const { url, drop } = await createPostgresDatabase();
  db = await openPostgresAt(url);
  openAgain = () => openPostgresAt(url);
  remove = drop;
});
beforeEach(() => db.query("DROP SCHEMA IF EXISTS jobs CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public"));
afterAll(async () => {
  await db.close();
  await remove();
});

const tablesNow = async () =>
  (
    await db.query<{ name: string }>(
      "SELECT schemaname || '.' || tablename AS name FROM pg_tables WHERE schemaname IN ('public', 'jobs') ORDER BY 1",
    )
  ).map((row) => row.name);

const recordsNow = () => db.query("SELECT name, hash, applied_at FROM schema_migrations ORDER BY name");

const thrownBy = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );

describe("migrate", () => {
  test("brings an empty database up to date, and then finds nothing to do", async () => {
    expect(await isMigrated(db)).toBe(false);
    expect(await migrate(db, now)).toEqual(ALL);
    expect(await isMigrated(db)).toBe(true);
    const tables = await tablesNow();
    const records = await recordsNow();
    expect(await migrate(db, now)).toEqual([]);
    expect(await tablesNow()).toEqual(tables);
    expect(await recordsNow()).toEqual(records);
  });

  // Several nodes may start at once: one of them migrates, the others wait and find nothing to do.
  test("several at once: one applies, the others find nothing", async () => {
    const nodes = await Promise.all(Array.from({ length: 4 }, () => openAgain()));
    const outcomes = await Promise.all(nodes.map((node) => migrate(node, now)));
    expect(outcomes.filter((applied) => applied.length > 0)).toEqual([ALL]);
    expect(await isMigrated(db)).toBe(true);
    for (const node of nodes) await node.close();
  });

  // A migration is whole or has not happened: one that fails half-way leaves nothing behind.
  test("one that fails is rolled back whole, and works once the obstacle is gone", async () => {
    await db.query("CREATE TABLE users (obstacle integer)");
    expect(await thrownBy(migrate(db, now))).toMatchObject({ name: "OperatorError", exitCode: 1 });
    expect(await tablesNow()).toEqual(["public.schema_migrations", "public.users"]);
    expect(await recordsNow()).toEqual([]);
    expect(await db.query("SELECT obstacle FROM users")).toEqual([]);
    await db.query("DROP TABLE users");
    expect(await migrate(db, now)).toEqual(ALL);
  });

  // An older program does not touch what a newer one has made.
  test("a migration that only a newer primer knows is refused, and nothing is changed", async () => {
    await migrate(db, now);
    await db.query("INSERT INTO schema_migrations VALUES ('9999_from_the_future', 'hash', now(), false)");
    const [tables, records] = [await tablesNow(), await recordsNow()];
    const error = await thrownBy(migrate(db, now));
    expect(error).toMatchObject({ name: "OperatorError", exitCode: 1, hint: expect.any(String) });
    expect([await tablesNow(), await recordsNow()]).toEqual([tables, records]);
  });

  // What a later version adds does no harm. Where it takes something away, this one would fail at every turn.
  test.each([
    [false, true],
    [true, undefined],
  ])("a later version's migration that contracts: %p", async (contracts, isUsable) => {
    await migrate(db, now);
    await db.query(`INSERT INTO schema_migrations VALUES ('9999_from_the_future', 'hash', now(), ${contracts})`);
    const looked = isMigrated(db);
    if (isUsable) expect(await looked).toBe(true);
    else expect(await thrownBy(looked)).toMatchObject({ exitCode: 1, hint: expect.any(String) });
  });

  // What was applied is what this program carries, to the letter.
  test("an applied migration in another form is refused, and nothing is changed", async () => {
    await migrate(db, now);
    await db.query("UPDATE schema_migrations SET hash = 'another'");
    const [tables, records] = [await tablesNow(), await recordsNow()];
    expect(await thrownBy(migrate(db, now))).toMatchObject({ name: "OperatorError", exitCode: 1 });
    expect([await tablesNow(), await recordsNow()]).toEqual([tables, records]);
  });

  test("what is refused before anything was applied applies nothing", async () => {
    await db.query(
      "CREATE TABLE schema_migrations (name text PRIMARY KEY, hash text NOT NULL, applied_at timestamptz, contracts boolean)",
    );
    await db.query("INSERT INTO schema_migrations VALUES ('9999_from_the_future', 'hash', now(), false)");
    expect(await thrownBy(migrate(db, now))).toMatchObject({ exitCode: 1 });
    expect(await tablesNow()).toEqual(["public.schema_migrations"]);
  });

  test("job tables that are missing are made", async () => {
    await migrate(db, now);
    const tables = await tablesNow();
    await db.query("DROP SCHEMA jobs CASCADE");
    expect(await isMigrated(db)).toBe(false);
    expect(await migrate(db, now)).toEqual(["job queue tables"]);
    expect(await tablesNow()).toEqual(tables);
  });

  test("a queue that is missing is made", async () => {
    await migrate(db, now);
    await db.query("SELECT jobs.delete_queue('send-mail')");
    expect(await isMigrated(db)).toBe(false);
    expect(await migrate(db, now)).toEqual(["job queue tables"]);
    expect(await isMigrated(db)).toBe(true);
  });
});

// Looking changes nothing.
describe("migrationStatus", () => {
  test("on an empty database all is pending, and it stays empty", async () => {
    const status = await migrationStatus(db);
    expect(status).toEqual(ALL.map((name) => ({ name, state: "pending", applied_at: null })));
    expect(await tablesNow()).toEqual([]);
  });

  test("afterwards all is applied, with the time by our clock", async () => {
    await migrate(db, now);
    const status = await migrationStatus(db);
    expect(status.map(({ name, state }) => [name, state])).toEqual(ALL.map((name) => [name, "applied"]));
    expect(status.slice(0, -1).every((migration) => migration.applied_at === now().toISOString())).toBe(true);
  });
});
