import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect, createServer, type Socket } from "node:net";
import { sql } from "drizzle-orm";
import { loadSettings } from "../../config/load.ts";
import type { Database } from "../../db/database.ts";
import { openPostgres } from "../../db/postgres.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import { canRun, waitFor } from "./processes.ts";
import { tableRow } from "./table.ts";

const possible = canRun(whyNoPostgres(), "drill of a PostgreSQL that does not answer");
const STATEMENT_TIMEOUT_MS = 500;
/** The statement timeout, and what the pool adds to it. */
const DEADLINE_MS = STATEMENT_TIMEOUT_MS + 1000;
const POOL = 2;

let postgres: OwnPostgres;
beforeAll(async () => {
  if (possible) postgres = await ownPostgres();
}, 60_000);
afterAll(async () => {
  if (possible) await postgres.remove();
});

const open = (url: string): Promise<Database> =>
  openPostgres(
    loadSettings("/nonexistent", {
      DATABASE_URL: url,
      PRIMER_DATABASE__POOL_SIZE: String(POOL),
      PRIMER_DATABASE__STATEMENT_TIMEOUT: `${STATEMENT_TIMEOUT_MS}ms`,
    }).settings.database,
  );

/** Stands between a pool and PostgreSQL, and can lose what is on its connections without closing them. */
async function wire(port: number) {
  const dark = new Set<Socket>();
  const open = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    near.on("data", (bytes) => dark.has(near) || far.write(bytes));
    far.on("data", (bytes) => dark.has(near) || near.write(bytes));
    for (const socket of [near, far]) socket.on("error", () => {});
    near.on("close", () => far.destroy());
    far.on("close", () => dark.has(near) || near.destroy());
    open.add(near);
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port: own } = server.address() as { port: number };
  return {
    url: `postgres://primer@127.0.0.1:${own}/postgres`,
    cut: () => {
      for (const socket of open) dark.add(socket);
    },
    close: () => {
      for (const socket of open) socket.destroy();
      server.close();
    },
  };
}

// Every wait for the database ends, and what was answered as failed does not happen later.
describe("a PostgreSQL that does not answer", () => {
  test.if(possible)("transactions that were refused are not begun and committed once it goes on", async () => {
    const db = await open(postgres.url);
    await db.query("CREATE TABLE refused (i int)");
    await postgres.freeze();
    let begun = 0;
    const began = performance.now();
    const outcomes = await Promise.allSettled(
      Array.from({ length: 300 }, () =>
        db.transaction(async (tx) => {
          begun++;
          await tx.execute(sql`INSERT INTO refused VALUES (1)`);
        }),
      ),
    ).finally(postgres.thaw);
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toEqual([]);
    const tookMs = performance.now() - began;
    expect(tookMs).toBeLessThan(DEADLINE_MS + 2000);
    // The first of the pool may have been sent; those behind them never are.
    await waitFor("an answer", async () => (await db.query("SELECT 1").catch(() => [])).length === 1);
    await Bun.sleep(500);
    expect(begun).toBeLessThanOrEqual(POOL);
    expect(await db.query("SELECT count(*)::int AS count FROM refused")).toEqual([{ count: 0 }]);
    await db.close();
    tableRow(
      "PostgreSQL frozen under 300 transactions",
      "all are refused in time, and none is done later",
      `refused in ${Math.round(tookMs)} ms, ${begun} begun, none committed`,
    );
  });

  test.if(possible)("connections that went dead without a word are given up, and new ones made", async () => {
    const way = await wire(Number(new URL(postgres.url).port));
    const db = await open(way.url);
    try {
      await Promise.all([1, 2].map(() => db.query("SELECT pg_sleep(0.1)")));
      way.cut();
      const lost = await Promise.allSettled([1, 2, 3].map(() => db.query("SELECT 1")));
      expect(lost.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
      const back = await waitFor("an answer", async () => (await db.query("SELECT 1").catch(() => [])).length === 1);
      expect(back).toBeLessThan(DEADLINE_MS + 1000);
      expect(await db.orm.execute(sql`SELECT now() AS now`)).toHaveLength(1);
      tableRow(
        "Connections to PostgreSQL that went dead without a word",
        "given up after a deadline, and made anew",
        `answered again after ${Math.round(back)} ms`,
      );
    } finally {
      await db.close();
      way.close();
    }
  });
});
