import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Connection } from "../../db/database.ts";
import { openTestDatabase, TEST_DATABASE, type TestDatabase } from "../support/database.ts";

const onPostgres = TEST_DATABASE === "postgres";
if (!onPostgres) console.log("Left out: connections that are lost, which the embedded database has none of");

let db: TestDatabase;
beforeAll(async () => {
  db = await openTestDatabase();
  await db.query("CREATE TABLE kept (value int)");
});
afterAll(() => db.close());

/** Ends a connection from the server's side while nothing is under way on it, and waits until that has arrived. */
async function cutOff(connection: Connection): Promise<void> {
  const [own] = await connection.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  await db.query("SELECT pg_terminate_backend($1)", [own?.pid]);
  const isThere = async () => (await db.query("SELECT 1 FROM pg_stat_activity WHERE pid = $1", [own?.pid])).length > 0;
  while (await isThere()) await Bun.sleep(5);
  await Bun.sleep(50);
}

/** The exit code that something ends with that does not succeed. */
const endOf = (work: Promise<unknown>) =>
  work.then(
    () => "done",
    (error) => error.exitCode,
  );

const kept = () => db.query<{ value: number }>("SELECT value FROM kept ORDER BY 1");

// The driver would go on with another connection, outside of what was begun: a torn backup, a restore that is half there.
describe.if(onPostgres)("a connection that is lost between two statements ends the work", () => {
  test("a long transaction is undone whole", async () => {
    const work = db.longTransaction(async (connection) => {
      await connection.query("INSERT INTO kept VALUES (1)");
      await cutOff(connection);
      await connection.query("INSERT INTO kept VALUES (2)");
    });
    expect(await endOf(work)).toBe(3);
    expect(await kept()).toEqual([]);
  });

  test("also where the loss comes before the commit", async () => {
    const work = db.longTransaction(async (connection) => {
      await connection.query("INSERT INTO kept VALUES (3)");
      await cutOff(connection);
    });
    expect(await endOf(work)).toBe(3);
    expect(await kept()).toEqual([]);
  });

  test("a snapshot does not go on with what came later", async () => {
    const work = db.snapshot(async (connection) => {
      await connection.query("SELECT count(*) FROM kept");
      await cutOff(connection);
      await db.query("INSERT INTO kept VALUES (4)");
      return connection.query("SELECT count(*) FROM kept");
    });
    expect(await endOf(work)).toBe(3);
    await db.query("TRUNCATE kept");
  });

  test("whoever had a lock has it no more, and does nothing without it", async () => {
    const work = db.exclusively("a lock of these tests", async (connection) => {
      await cutOff(connection);
      await connection.query("INSERT INTO kept VALUES (5)");
    });
    expect(await endOf(work)).toBe(3);
    expect(await kept()).toEqual([]);
  });
});
