import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createServer, connect as open, type Server } from "node:net";
import { sql } from "drizzle-orm";
import { integer, pgTable } from "drizzle-orm/pg-core";
import { loadSettings } from "../../config/load.ts";
import type { Database } from "../../db/database.ts";
import { openPostgres } from "../../db/postgres.ts";
import { createPostgresDatabase, TEST_DATABASE } from "../support/database.ts";

const onPostgres = TEST_DATABASE === "postgres";
if (!onPostgres) console.log("Left out: connections of a pool, which the embedded database has none of");

const countedTable = pgTable("counted", { id: integer("id").primaryKey(), value: integer("value").notNull() });

let db: Database;
let url: string;
const closing: (() => unknown)[] = [];
beforeAll(async () => {
  if (!onPostgres) return;
  const database = await createPostgresDatabase();
  closing.push(database.drop);
  url = database.url;
  db = await openPool(url);
  await db.query("CREATE TABLE counted (id int PRIMARY KEY, value int NOT NULL); INSERT INTO counted VALUES (1, 0)");
});
afterAll(async () => {
  for (const close of closing.reverse()) await close();
});

async function openPool(at: string, more: Record<string, string> = {}): Promise<Database> {
  const { settings } = loadSettings("/nonexistent", { DATABASE_URL: at, ...more });
  const pool = await openPostgres(settings.database);
  closing.push(() => pool.close());
  return pool;
}

const counted = async () => (await db.query<{ value: number }>("SELECT value FROM counted"))[0]?.value;

/** Longer than the first statement waits, and shorter than the driver waits for a connection (milliseconds). */
const LATE_MS = 3700;

/** A way to the server on which its first word on connections that are made while `holds` is set comes late. */
async function slowWay(target: URL) {
  const way = { holds: false, url: "", spoken: Promise.withResolvers<void>() };
  const server: Server = createServer((client) => {
    const isHeld = way.holds;
    const upstream = open(Number(target.port), target.hostname);
    upstream.once("data", (bytes) => {
      upstream.pause();
      const speak = () => {
        client.write(bytes);
        upstream.on("data", (further) => client.write(further));
        upstream.resume();
        if (isHeld) way.spoken.resolve();
      };
      if (isHeld) setTimeout(speak, LATE_MS);
      else speak();
    });
    client.on("data", (bytes) => upstream.write(bytes));
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on("close", () => other.destroy());
      one.on("error", () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closing.push(() => server.close());
  const { port } = server.address() as { port: number };
  way.url = Object.assign(new URL(target), { host: `127.0.0.1:${port}` }).href;
  return way;
}

describe.if(onPostgres)("a pool of connections", () => {
  // What the server has forgotten is never sent again behind the COMMIT: there it would count by itself, after an error.
  test("a statement that the server does not know any more is part of its transaction, or of none", async () => {
    const pool = await openPool(url, { PRIMER_DATABASE__POOL_SIZE: "1" });
    const increase = () =>
      pool.transaction(async (tx, withCommit) => {
        await tx.execute(sql`SELECT value FROM counted WHERE id = ${1}`);
        withCommit(tx.update(countedTable).set({ value: sql`value + 1` }).where(sql`id = ${1}`));
      });
    await increase();
    await increase();
    expect(await counted()).toBe(2);
    await pool.query("DISCARD ALL");
    await increase();
    expect(await counted()).toBe(3);
    await pool.query("DEALLOCATE ALL");
    await increase();
    expect(await counted()).toBe(4);
  });

  // A connection that took too long to be made is not handed out again: nothing would ever be answered on it.
  test("one whose making took longer than its first statement waits leaves room for the next", async () => {
    const way = await slowWay(new URL(url));
    const pool = await openPool(way.url, { PRIMER_DATABASE__POOL_SIZE: "2" });
    await pool.query("SELECT 1");
    const held = pool.transaction(async (tx) => {
      await tx.execute(sql`SELECT 1`);
      way.holds = true; // the other connection has still to be made
      const late = await pool.query("SELECT 2").then(
        () => "answered",
        (error) => error.code,
      );
      way.holds = false;
      return late;
    });
    expect(await held.catch((error) => error.code)).toBe("QUERY_DEADLINE");
    await way.spoken.promise;
    await db.query("SELECT 1"); // whatever the driver does with it, it has done
    const answers = await Promise.all([
      pool.query<{ value: number }>("SELECT 3 AS value"),
      pool.transaction((tx) => tx.execute(sql`SELECT 4 AS value`)),
    ]);
    expect(answers.map((rows) => Number((rows as unknown as { value: number }[])[0]?.value))).toEqual([3, 4]);
    expect(pool.poolUse?.()).toMatchObject({ in_use: 0, waiting: 0 });
  }, 20_000);
});
