import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import connect from "postgres";
import { openPostgresAt } from "../support/database.ts";
import { addUsers, type Generator, type Report, startLoad } from "./load.ts";
import { whyNoPostgres } from "./own-postgres.ts";
import { canRun, expectAuditWhole, FULL, inShort, login, refresh, type Server, serve, waitFor } from "./processes.ts";
import { type ReverseProxy, startProxy } from "./proxy.ts";
import { tableRow } from "./table.ts";
import { serveTwoNodes, type TwoNodes } from "./two-nodes.ts";

const possible = canRun(whyNoPostgres(), "drill of a rolling restart");
const DRAIN_MS = FULL ? 5000 : 1000;
const ROUNDS = FULL ? 3 : 1;
/** What is sent in a second, or less where that is more than a part of what two nodes can do here just now. */
const PER_SECOND = FULL ? { login: 20, refresh: 50, verify: 100 } : { login: 5, refresh: 20, verify: 40 };
/** One node alone has to be able to do it, while the other one starts on the same machine. */
const SHARE_OF_CAPACITY = 0.2;
inShort(
  `both nodes are restarted ${ROUNDS} time and drain for ${DRAIN_MS / 1000} s; 3 times and 5 s with TEST_FULL, under more load`,
);
const STOPS_WITHIN_MS = 20_000;
/** A login that waits is begun so long before the listener closes, and goes on for as long after. */
const AROUND_CLOSE_MS = 400;

let installation: TwoNodes;
let proxy: ReverseProxy;
let usernames: string[];
beforeAll(async () => {
  if (!possible) return;
  installation = await serveTwoNodes({ PRIMER_SERVER__DRAIN_DELAY: `${DRAIN_MS}ms` });
  const db = await openPostgresAt(installation.postgres.url);
  usernames = await addUsers(db, 50);
  await db.close();
  proxy = startProxy(installation.nodes.map(({ url }) => url));
}, 60_000);
afterAll(async () => {
  if (!possible) return;
  proxy.stop();
  await installation.remove();
});

/** On a connection of its own, as a balancer asks. */
const statusOf = async (server: Server, path: string) =>
  (await fetch(server.url + path, { headers: { connection: "close" } })).status;

const isListening = (server: Server) =>
  statusOf(server, "/livez").then(
    () => true,
    () => false,
  );

/** Logs the administrator in on a node that is about to stop, and has that wait until the listener is closed. */
async function loginAcrossTheEnd(server: Server): Promise<number> {
  const holder = connect(installation.postgres.url, { max: 1 });
  const held = await holder.reserve();
  try {
    await held.unsafe("BEGIN");
    await held.unsafe("SELECT 1 FROM users WHERE username = 'admin' FOR UPDATE");
    const answer = login(server.url);
    await waitFor("the end of the listener", async () => !(await isListening(server)), 2 * AROUND_CLOSE_MS + 5000);
    await Bun.sleep(AROUND_CLOSE_MS);
    await held.unsafe("ROLLBACK");
    return (await answer).status;
  } finally {
    held.release();
    await holder.end({ timeout: 1 });
  }
}

/** Ends a node as its supervisor would. @returns how long it took from SIGTERM on */
async function stop(server: Server): Promise<{ notReadyMs: number; tookMs: number }> {
  const began = performance.now();
  server.signal("SIGTERM");
  const notReadyMs = await waitFor("no readiness", async () => (await statusOf(server, "/readyz")) === 503, DRAIN_MS);
  while (performance.now() - began < DRAIN_MS - AROUND_CLOSE_MS) {
    expect([await statusOf(server, "/readyz"), await statusOf(server, "/livez")]).toEqual([503, 200]);
    await Bun.sleep(50);
  }
  expect(await loginAcrossTheEnd(server)).toBe(200);
  const { exitCode } = await server.finished;
  expect(exitCode).toBe(0);
  return { notReadyMs, tookMs: performance.now() - began };
}

async function replace(index: number): Promise<{ notReadyMs: number; tookMs: number }> {
  const old = installation.nodes[index];
  if (!old) throw new Error("There is no such node");
  const stopped = await stop(old);
  const fresh = await serve(installation.home, installation.variables);
  installation.nodes[index] = fresh;
  const before = proxy.nodes;
  proxy.nodes = before.map((url) => (url === old.url ? fresh.url : url));
  await waitFor("the new node behind the proxy", () => proxy.ready().includes(fresh.url));
  return stopped;
}

/** Whatever was not 200, by kind of request. */
const failuresIn = ({ kinds }: Report) =>
  Object.entries(kinds).flatMap(([kind, seen]) => [
    ...seen.failures.map((failure) => `${kind}: ${failure}`),
    ...Object.entries(seen.latencies).flatMap(([status, all]) =>
      status === "200" ? [] : `${kind}: ${status} ${all.length} times`,
    ),
  ]);

const answersIn = ({ kinds }: Report) =>
  Object.values(kinds).reduce((total, seen) => total + Object.values(seen.latencies).flat().length, 0);

// A new version, or a new setting, takes effect without anybody noticing: whoever was being answered is, whoever comes is
// sent to another node, and nobody's session is lost.
describe("a rolling restart of two nodes behind a proxy", () => {
  test.if(possible)(`SIGTERM under load, ${ROUNDS} time(s) each: not one request fails`, async () => {
    await waitFor("both nodes behind the proxy", () => proxy.ready().length === 2);
    const load = { url: proxy.url, usernames, sessions: [] };
    const usual = { ...load, durationMs: 3000, keepSessions: true, perSecond: {}, loginsAtATime: 8 };
    const { sessions, kinds, tookMs } = await startLoad(usual).report;
    const capacity = (kinds.login.latencies[200]?.length ?? 0) / (tookMs / 1000);
    const scale = Math.min(1, (capacity * SHARE_OF_CAPACITY) / PER_SECOND.login);
    const perSecond = Object.fromEntries(Object.entries(PER_SECOND).map(([kind, rate]) => [kind, rate * scale]));
    const generator: Generator = startLoad({ ...load, sessions, durationMs: 10 * 60_000, perSecond });
    const stops: { notReadyMs: number; tookMs: number }[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      for (const index of [0, 1]) stops.push(await replace(index));
    }
    generator.stop();
    const report = await generator.report;
    const reasons = Object.fromEntries(proxy.failures.map((why) => [why, "502"]));
    expect({ failures: failuresIn(report), reasons }).toEqual({ failures: [], reasons: {} });

    // Each session is where its client believes it to be: its newest token is the current one.
    const last = await Promise.all(report.sessions.map(({ refresh_token }) => refresh(proxy.url, refresh_token)));
    expect(last.filter(({ status }) => status !== 200)).toEqual([]);
    await expectAuditWhole(installation.home, installation.variables);
    const slowest = Math.max(...stops.map(({ tookMs }) => tookMs)) - DRAIN_MS;
    expect(slowest).toBeLessThan(STOPS_WITHIN_MS);
    const refreshes = report.kinds.refresh.latencies[200]?.length ?? 0;
    expect(refreshes).toBeGreaterThan(20);
    tableRow(
      "D2 SIGTERM under load, rolling restart of 2 nodes behind a proxy",
      "readyz 503 at once, livez 200 and the listener open for the drain delay, work under way finished in 20 s, exit 0; through the proxy no request fails and no refresh is lost",
      `${stops.length} restarts, ${answersIn(report)} requests (${(PER_SECOND.login * scale).toFixed(0)} logins a second), none failed, ${proxy.retried()} sent again; ${refreshes} refreshes, ${report.sessions.length} sessions kept; not ready after ${Math.round(Math.max(...stops.map(({ notReadyMs }) => notReadyMs)))} ms, ended ${Math.round(slowest)} ms after the drain`,
    );
  });
});
