import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Database } from "../../../db/database.ts";
import type { Deps } from "../../../server/deps.ts";
import { openDeps, type RunningServer, startServer } from "../../../server/start.ts";
import { openPostgresAt, postgresUrl, TEST_DATABASE } from "../../support/database.ts";
import { type FreezableWay, freezableWay } from "../../support/frozen-feed.ts";
import { type Following, follow, verifyList } from "../../support/revocations.ts";
import { freePort } from "../../support/services.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";

const ON_POSTGRES = TEST_DATABASE === "postgres";
if (!ON_POSTGRES) console.log("Left out: two nodes share a PostgreSQL, and this run is on the embedded database");

let nodeA: HttpApp;
let way: FreezableWay;
let database: Database;
let nodeB: Awaited<ReturnType<typeof openDeps>>;
let server: RunningServer;

/** A second node: its own connections, its own listener; keys, settings and clock are those of the first. */
async function openNode(deps: Deps, db: Database) {
  const { settings, secrets, log, clock, random } = deps;
  const listening = { ...settings, server: { ...settings.server, port: await freePort() } };
  return openDeps({ home: "/nonexistent", settings: listening, secrets, db, log, clock, random });
}

describe.if(ON_POSTGRES)("two nodes", () => {
  beforeAll(async () => {
    nodeA = await openHttpApp();
    await nodeA.createUser({ username: "ada" });
    const url = new URL(postgresUrl());
    url.pathname = new URL(nodeA.db.address).pathname;
    way = await freezableWay(url.href);
    database = await openPostgresAt(way.url);
    nodeB = await openNode(nodeA.deps, database);
    server = startServer(nodeB);
  });
  afterAll(async () => {
    await server.stop();
    await nodeB.close();
    await database.close();
    way.close();
    await nodeA.close();
  });

  const logout = (tokens: { access_token: string }) =>
    nodeA.request("POST", "/api/v1/auth/logout", { token: tokens.access_token });

  /** Logs out on A. @returns when B's stream told of it (milliseconds later) */
  async function toldAfterLogout(following: Following): Promise<number> {
    const tokens = await nodeA.login("ada");
    const began = performance.now();
    expect((await logout(tokens)).status).toBe(204);
    await following.untilTold(tokens.session_id);
    return performance.now() - began;
  }

  // A logout on one node is heard by whoever listens to another one, within two seconds: by word of the database at once,
  // and where no word comes any more, though nothing says so, by looking.
  test("a logout on one is heard on the other, also while its feed stands still", async () => {
    const following = await follow(fetch(`${server.url}/api/v1/revocations/stream`));
    await following.untilEvents(1);
    for (let round = 0; round < 3; round++) expect(await toldAfterLogout(following)).toBeLessThan(2000);

    way.freeze();
    const frozenAt = nodeB.changes.now();
    // Past three seconds the feed is opened anew, and stands still again.
    const began = performance.now();
    while (performance.now() - began < 4500) expect(await toldAfterLogout(following)).toBeLessThan(2000);
    expect(nodeB.changes.age(frozenAt + 500)).toBeGreaterThan(3500);
    expect(following.events.length).toBeGreaterThan(4);
    await following.leave();
  });

  // Both nodes say the same, under one ETag, so that it does not matter which of them answers.
  test("both have the same list", async () => {
    nodeA.clock.advance(2000);
    const one = await nodeA.request("GET", "/api/v1/revocations");
    const two = await fetch(`${server.url}/api/v1/revocations`);
    expect(two.headers.get("etag")).toBe(one.headers.get("etag"));
    const keys = (await nodeA.request("GET", "/.well-known/jwks.json")).body;
    const lists = [one.body.revocations, (await two.json()).revocations];
    const [mine, theirs] = await Promise.all(lists.map((jwt) => verifyList(jwt, keys, "http://primer.test")));
    expect(mine?.revoked).toEqual(theirs?.revoked ?? {});
    expect(Object.keys(mine?.revoked ?? {}).length).toBeGreaterThan(3);
  });
});
