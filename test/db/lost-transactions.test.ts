import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import type { Database, Tx } from "../../db/database.ts";
import { isLostTransaction } from "../../db/errors.ts";
import { openTestDatabase, TEST_DATABASE } from "../support/database.ts";

let db: Database;
beforeAll(async () => {
  db = await openTestDatabase();
  await db.query("CREATE TABLE counters (id int PRIMARY KEY, count int NOT NULL)");
});
afterAll(() => db.close());

const counts = async () =>
  (await db.query<{ count: number }>("SELECT count FROM counters ORDER BY id")).map((row) => row.count);
const add = (tx: Tx, id: number) => tx.execute(sql`UPDATE counters SET count = count + 1 WHERE id = ${id}`);

// Of transactions that block each other the server undoes one. That one is run again, once, and nobody notices. The
// embedded database has one connection and runs them one after the other.
describe.if(TEST_DATABASE === "postgres")("a transaction that lost against another", () => {
  for (const kind of ["transaction", "change"] as const) {
    test(`${kind}: a deadlock is resolved, and nothing is done twice`, async () => {
      await db.query("TRUNCATE counters");
      await db.query("INSERT INTO counters VALUES (1, 0), (2, 0)");
      let runs = 0;
      const bothHold = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const crossing = (first: number, second: number) =>
        db[kind](async (tx) => {
          runs++;
          await add(tx, first);
          bothHold[first - 1]?.resolve();
          await Promise.all(bothHold.map(({ promise }) => promise));
          await add(tx, second);
        });
      await Promise.all([crossing(1, 2), crossing(2, 1)]);
      expect(await counts()).toEqual([2, 2]);
      expect(runs).toBe(3);
    });
  }

  test("one that loses again fails, and leaves nothing", async () => {
    await db.query("TRUNCATE counters");
    await db.query("INSERT INTO counters VALUES (1, 0)");
    let runs = 0;
    const losing = db.transaction(async (tx) => {
      runs++;
      await add(tx, 1);
      await tx.execute(sql`DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '40001'; END $$`);
    });
    expect(isLostTransaction(await losing.catch((error) => error))).toBe(true);
    expect([runs, await counts()]).toEqual([2, [0]]);
  });

  test("one that fails for another reason is not run again", async () => {
    let runs = 0;
    const failing = db.transaction(async (tx) => {
      runs++;
      await tx.execute(sql`SELECT 1 / 0`);
    });
    await expect(failing).rejects.toThrow();
    expect(runs).toBe(1);
  });
});
