import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { SignJWT } from "jose";
import type { Database, Tx } from "../../db/database.ts";
import { violatedUniqueness } from "../../db/errors.ts";
import { roles } from "../../db/schema/users.ts";
import { openTestApp, PASSWORD, type TestApp, type TestNode } from "../support/app.ts";
import { openPostgresAt, postgresUrl, TEST_DATABASE } from "../support/database.ts";
import { LEGACY_SECRET, LEGACY_SETTINGS } from "../support/legacy.ts";
import { type CountingWay, countingWay } from "../support/round-trips.ts";

const onPostgres = TEST_DATABASE === "postgres";
if (!onPostgres) console.log("Left out: round trips to the database, to which the embedded one has no way");

let app: TestApp;
let way: CountingWay;
let db: Database;
let node: TestNode;
beforeAll(async () => {
  if (!onPostgres) return;
  app = await openTestApp(LEGACY_SETTINGS);
  await app.createUser({ username: "ada" });
  const url = new URL(postgresUrl());
  url.pathname = new URL(app.db.address).pathname;
  way = await countingWay(url.href);
  db = await openPostgresAt(way.url);
  node = await app.otherNode({ db });
});
afterAll(async () => {
  if (!onPostgres) return;
  await app.close();
  await db.close();
  way.close();
});

const post = async (path: string, body: object, status = 200) => {
  const answer = await node.request("POST", `/api/v1/auth/${path}`, { body });
  expect(answer.status).toBe(status);
  return answer.body;
};
const login = (more: object = {}) => post("login", { username: "ada", password: PASSWORD, ...more });

/** The last of several: before, each statement is prepared. */
async function tripsOf(work: () => Promise<unknown>): Promise<number> {
  await work();
  await work();
  return way.count(work);
}

// Every wait for the database is one more network's time in each request, and a connection that nobody else has.
describe.if(onPostgres)("how often a request waits for the database", () => {
  test("a login: to read, to lock, to commit", async () => {
    expect(await tripsOf(login)).toBe(3);
  });

  test("a login from a device that is known, and one that is remembered", async () => {
    const { device_token } = await login({ remember_device: true });
    expect(await tripsOf(() => login({ device_token }))).toBe(3);
    expect(await tripsOf(() => login({ remember_device: true }))).toBe(3);
  });

  test("a login that is told of by mail: to read, to lock, to count the mail, to commit", async () => {
    const { settings } = node.deps;
    Object.assign(node.deps, { settings: { ...settings, mail: { ...settings.mail, notify_login: "every" } } });
    const jobs = () => app.db.query("SELECT id FROM jobs.job");
    const before = await jobs();
    expect(await tripsOf(login)).toBe(4);
    expect(await jobs()).toHaveLength(before.length + 3);
    Object.assign(node.deps, { settings });
  });

  test("a login that is refused: to read, to record it", async () => {
    const wrong = { username: "ada", password: "not the right horse battery staple" };
    expect(await tripsOf(() => post("login", wrong, 401))).toBe(2);
  });

  test("a registration: to hold the name, to read, to count the mail, to commit", async () => {
    const { settings } = node.deps;
    Object.assign(node.deps, {
      settings: { ...settings, rate_limits: { ...settings.rate_limits, register_ip: null } },
    });
    let count = 0;
    const register = () => {
      const username = `new${count++}`;
      return post("register", { username, email: `${username}@example.test`, password: PASSWORD }, 202);
    };
    expect(await tripsOf(register)).toBe(4);
    Object.assign(node.deps, { settings });
  });

  test("a refresh: to lock, to commit", async () => {
    let { refresh_token } = await login();
    const refresh = async () => {
      ({ refresh_token } = await post("refresh", { refresh_token }));
    };
    expect(await tripsOf(refresh)).toBe(2);
  });

  test("a verify of a session that is known: not at all", async () => {
    const { access_token } = await login();
    const verify = async () => {
      const { status } = await node.request("GET", "/api/v1/auth/verify", { token: access_token });
      expect(status).toBe(200);
    };
    expect(await tripsOf(verify)).toBe(0);
  });

  test("a verify of a token of the service before: to read its user once, then not at all", async () => {
    const now = Math.floor(node.deps.clock.now().getTime() / 1000);
    const { PRIMER_TOKENS__LEGACY_ISSUER: iss, PRIMER_TOKENS__LEGACY_AUDIENCE: aud } = LEGACY_SETTINGS;
    const token = await new SignJWT({ iss, aud, sub: "ada", iat: now, exp: now + 3600 })
      .setProtectedHeader({ alg: "HS256" })
      .sign(new TextEncoder().encode(LEGACY_SECRET));
    const verify = async () => {
      const { status } = await node.request("GET", "/api/v1/auth/verify", { token });
      expect(status).toBe(200);
    };
    expect(await tripsOf(verify)).toBe(0);
    const readAgain = async () => {
      node.deps.legacyUsers.forget(undefined);
      await verify();
    };
    expect(await tripsOf(readAgain)).toBe(1);
  });
});

// The driver would run what waits behind a lost connection over the next one: outside of its transaction.
describe.if(onPostgres)("a connection that is lost in a transaction", () => {
  const kept = () => app.db.query<{ count: number }>("SELECT count(*)::int AS count FROM kept");

  test("takes with it what was sent behind it, and the next one starts afresh", async () => {
    await app.db.query("CREATE TABLE kept (value int)");
    for (let round = 0; round < 5; round++) {
      const outcome = await db
        .transaction(async (tx) => {
          const pid = await backendOf(tx);
          const statements = Array.from({ length: 20 }, (_, value) =>
            tx.execute(sql.raw(`INSERT INTO kept SELECT ${value} FROM (SELECT pg_sleep(0.02)) AS slow`)),
          );
          const all = Promise.all(statements);
          await app.db.query("SELECT pg_terminate_backend($1)", [pid]);
          return all;
        })
        .catch((error) => error);
      expect(outcome).toBeInstanceOf(Error);
      expect(await db.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
    }
    expect(await kept()).toEqual([{ count: 0 }]);
  });

  test("a transaction that has ended sends nothing more", async () => {
    let left: Tx | undefined;
    await db.transaction(async (tx) => {
      left = tx;
    });
    expect(await left?.execute(sql`INSERT INTO kept VALUES (1)`).catch(() => "refused")).toBe("refused");
    expect(await kept()).toEqual([{ count: 0 }]);
  });

  test("where a statement that goes with the commit fails, all is undone", async () => {
    const failing = db.transaction(async (tx, withCommit) => {
      await tx.execute(sql`INSERT INTO kept VALUES (1)`);
      const twice = { name: "admin", createdAt: new Date(), updatedAt: new Date() };
      withCommit(tx.insert(roles).values(twice));
    });
    expect(violatedUniqueness(await failing.catch((error) => error))).toBe("roles_pkey");
    expect(await kept()).toEqual([{ count: 0 }]);
  });
});

async function backendOf(tx: Tx): Promise<number | undefined> {
  const [row] = (await tx.execute(sql`SELECT pg_backend_pid() AS pid`)) as unknown as { pid: number }[];
  return row?.pid;
}
