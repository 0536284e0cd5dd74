import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { loadSettings } from "../../config/load.ts";
import type { Database } from "../../db/database.ts";
import { openPostgres } from "../../db/postgres.ts";
import { openPostgresAt } from "../support/database.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import { canRun, initHome, login, scratchFolder, send, serve, waitFor } from "./processes.ts";
import { tableRow } from "./table.ts";

const possible = canRun(whyNoPostgres(), "drill of a replica");
const MAX_LAG_MS = 2000;
/** Until it is seen that a replica is too far behind, or is not any more: the lag, and the time between two looks. */
const SEEN_WITHIN_MS = MAX_LAG_MS + 2500;

const scratch = scratchFolder();
let primary: OwnPostgres;
let replica: OwnPostgres;
let db: Database;
beforeAll(async () => {
  if (!possible) return;
  primary = await ownPostgres();
  replica = await primary.replica();
  const variables = {
    DATABASE_URL: primary.url,
    PRIMER_DATABASE__REPLICA_URLS: replica.url,
    PRIMER_DATABASE__REPLICA_MAX_LAG: `${MAX_LAG_MS}ms`,
  };
  db = await openPostgres(loadSettings("/nonexistent", variables).settings.database);
  await db.query("CREATE TABLE notes (text text)");
}, 60_000);
afterAll(async () => {
  if (!possible) return;
  await db.close();
  await replica.remove();
  await primary.remove();
  scratch.remove();
});

/** Who answers a read that may lag. */
async function reader(): Promise<"replica" | "primary"> {
  const [row] = await db.replica.select({ isReplica: sql<boolean>`pg_is_in_recovery()` }).from(sql`(SELECT 1) AS one`);
  return row?.isReplica ? "replica" : "primary";
}

const untilRead = (from: "replica" | "primary", withinMs = SEEN_WITHIN_MS) =>
  waitFor(`reads from the ${from}`, async () => (await reader()) === from, withinMs);

const row = (fault: string, seen: string) =>
  tableRow(`A replica that ${fault}`, "every read is answered, and none with what is older than it may be", seen);

// Lists for administrators take nothing from the database that logins need; and whatever becomes of a replica, those who
// read neither see what is long over nor hear of it.
describe.if(possible)("a replica", () => {
  beforeEach(() => untilRead("replica", 10_000).then(() => {}));

  test("is read from, and has what was written a moment ago", async () => {
    await db.query("INSERT INTO notes VALUES ('here')");
    const seen = await waitFor(
      "the row",
      async () => (await db.replica.select({ text: sql`text` }).from(sql`notes`)).length === 1,
    );
    row("works", `a row was there after ${Math.round(seen)} ms`);
    expect(await reader()).toBe("replica");
    expect(db.replicas[0]?.lagMs()).toBeWithin(0, MAX_LAG_MS);
    expect(await db.orm.select({ isReplica: sql`pg_is_in_recovery()` }).from(sql`(SELECT 1) AS one`)).toEqual([
      { isReplica: false },
    ]);
  });

  test("stays in use while nothing is written", async () => {
    const began = performance.now();
    while (performance.now() - began < MAX_LAG_MS * 1.25) {
      expect(await reader()).toBe("replica");
      await Bun.sleep(100);
    }
  });

  test("falls behind: it is not read from until it has caught up", async () => {
    const behind = await openPostgresAt(replica.url);
    await behind.query("SELECT pg_wal_replay_pause()");
    await db.query("INSERT INTO notes VALUES ('late')");
    const took = await untilRead("primary");
    row("falls behind", `not read from after ${Math.round(took)} ms, at ${MAX_LAG_MS} ms of lag`);
    expect(db.replicas[0]?.lagMs()).toBeGreaterThan(MAX_LAG_MS);
    await behind.query("SELECT pg_wal_replay_resume()");
    await behind.close();
    await untilRead("replica");
  });

  test("crashes: every read is answered all the same, and it is used again once it is back", async () => {
    await replica.crash();
    for (let count = 0; count < 20; count++) expect(await reader()).toBe("primary");
    await replica.start();
    await untilRead("replica", 10_000);
  });

  test("hangs: no read waits for it for long, and soon none does", async () => {
    await replica.freeze();
    let slowest = 0;
    try {
      for (let count = 0; count < 8; count++) {
        const began = performance.now();
        expect(await reader()).toBe("primary");
        slowest = Math.max(slowest, performance.now() - began);
      }
      const began = performance.now();
      for (let count = 0; count < 10; count++) expect(await reader()).toBe("primary");
      row(
        "hangs",
        `a read took ${Math.round(slowest)} ms at most, ten later ones ${Math.round(performance.now() - began)} ms`,
      );
    } finally {
      await replica.thaw();
    }
    expect(slowest).toBeLessThan(2000);
    await untilRead("replica", 10_000);
  });

  test("that is the database itself by mistake is no replica", async () => {
    const variables = { DATABASE_URL: primary.url, PRIMER_DATABASE__REPLICA_URLS: `${primary.url},${primary.url}` };
    const twice = await openPostgres(loadSettings("/nonexistent", variables).settings.database);
    const [row] = await twice.replica.select({ one: sql`1` }).from(sql`(SELECT 1) AS one`);
    expect([row, twice.replicas.map((one) => one.lagMs())]).toEqual([{ one: 1 }, [null, null]]);
    await twice.close();
  });

  // Only what may be a little old is read from it. Whoever looks at their own sees what they have just done.
  test("lists for administrators are read from it, logins and sessions are not", async () => {
    const home = join(scratch.path, "home");
    const variables = {
      DATABASE_URL: primary.url,
      PRIMER_DATABASE__REPLICA_URLS: replica.url,
      PRIMER_DATABASE__REPLICA_MAX_LAG: `${MAX_LAG_MS}ms`,
    };
    await initHome(home, variables);
    const server = await serve(home, variables);
    const behind = await openPostgresAt(replica.url);
    try {
      const before = (await login(server.url)).body;
      const headers = { authorization: `Bearer ${before.access_token}`, "content-type": "application/json" };
      const get = async (path: string) => (await send(`${server.url}/api/v1${path}`, { headers })).body;
      await waitFor("a replica that has it all", async () => (await get("/clients")).data?.length === 0);
      const health = (await get("/monitoring/health")).dependencies.replica_1;
      expect([health.status, health.circuit_breaker]).toEqual(["healthy", "closed"]);
      expect(health.lag_ms).toBeWithin(0, MAX_LAG_MS);

      await behind.query("SELECT pg_wal_replay_pause()");
      const body = JSON.stringify({ name: "orders" });
      expect((await send(`${server.url}/api/v1/clients`, { method: "POST", headers, body })).status).toBe(201);
      expect((await login(server.url)).status).toBe(200);
      expect((await get("/clients")).data).toEqual([]);
      expect((await get("/users/me/sessions")).data).toHaveLength(2);
      await waitFor(
        "the client, by the database itself",
        async () => (await get("/clients")).data.length === 1,
        SEEN_WITHIN_MS,
      );
    } finally {
      await behind.query("SELECT pg_wal_replay_resume()");
      await behind.close();
      await server.kill();
    }
  });

  // What decides who may do what is never read from a copy: without its primary nobody is let in.
  test("stands in for nothing else while the database is away", async () => {
    await primary.crash();
    try {
      await expect(db.query("SELECT 1")).rejects.toThrow();
      await expect(db.transaction((tx) => tx.execute(sql`SELECT 1`))).rejects.toThrow();
    } finally {
      await primary.start();
    }
    await waitFor("an answer", async () => (await db.query("SELECT 1").catch(() => [])).length === 1, 10_000);
  });
});
