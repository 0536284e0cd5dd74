import { describe, expect, test } from "bun:test";
import { availableParallelism, loadavg } from "node:os";
import { generateLoad, homeWithUsers, type Kind, percentile, type Report, type Seen } from "./load.ts";
import { whyNoPostgres } from "./own-postgres.ts";
import { canRun, FULL, inShort, login, logLines, residentMiB, type Server, serve } from "./processes.ts";
import { tableRow } from "./table.ts";

const SECONDS = FULL ? 60 : 5;
inShort(
  "ten times the logins for 5 s on PostgreSQL with an elliptic key, 60 s with TEST_FULL, on both databases and with RSA of 4096 bits; its times are only held against each other",
);
const MULTIPLE = 10;
const USERS = 200;
const SLOTS = availableParallelism();
const HASH_MIB = 19;
/** The process's memory of tokens that it verified and sessions that it read, which are bounded and fill as time goes by. */
const CACHES_MIB = 32;
/** Enough at a time to keep the slots busy while each login also waits for the database and a signature. */
const AT_CAPACITY = SLOTS * 4;
/** Nobody waits longer for anything. */
const ANSWERS_WITHIN_MS = FULL ? 5000 : 10_000;

const SHORT_RATES = { refresh: 20, verify: 40, livez: 20 };

const PROMISE = {
  goodput: 0.85,
  refusedWithinMs: 100,
  slowerTimes: 2,
  livezMs: 50,
  /** What all hashes at once take, and a fifth of what the process had before; besides, what was issued fills caches. */
  grownMiB: (before: number) => Math.ceil(SLOTS * HASH_MIB * 1.2 + before * 0.2 + CACHES_MIB),
};

interface Installation {
  readonly server: Server;
  readonly usernames: string[];
  /** How many accounts and names have a failure counted against them. */
  counted(): Promise<number>;
  remove(): Promise<void>;
}

async function install(kind: "PostgreSQL" | "the embedded database"): Promise<Installation> {
  const filled = await homeWithUsers(kind, USERS, FULL ? "RS256" : "ES256");
  const server = await serve(filled.home, filled.variables);
  return {
    server,
    usernames: filled.usernames,
    async counted() {
      server.signal("SIGTERM");
      await server.finished;
      const after = await filled.open();
      const [row] = await after.query<{ count: number }>("SELECT count(*)::int AS count FROM failure_counters");
      await after.close();
      return row?.count ?? 0;
    },
    async remove() {
      await server.kill();
      await filled.remove();
    },
  };
}

const withStatus = (seen: Seen, status: number) => seen.latencies[status] ?? [];
const p50 = (values: readonly number[]) => Math.round(percentile(values, 50));
const p99 = (values: readonly number[]) => Math.round(percentile(values, 99));
const perSecond = (seen: Seen, status: number, { tookMs }: Report) => withStatus(seen, status).length / (tookMs / 1000);

/** How many logins a second were really sent: less than wanted where the generator itself could not keep up. */
const reached = ({ kinds: { login: logins }, tookMs }: Report) =>
  logins.scheduled / ((tookMs + Math.max(...logins.lateness)) / 1000);

/** Only its normal answer or 503 that says when to come again, and that soon: whatever else is going on. */
function expectAnswered({ kinds }: Report): void {
  for (const [kind, seen] of Object.entries(kinds)) {
    expect([kind, seen.failures, seen.withoutRetryAfter]).toEqual([kind, [], 0]);
    const statuses = Object.keys(seen.latencies).filter((status) => status !== "200" && status !== "503");
    expect([kind, statuses]).toEqual([kind, []]);
    expect(Math.max(0, ...Object.values(seen.latencies).flat())).toBeLessThan(ANSWERS_WITHIN_MS);
  }
}

/** The most that a process takes while something else goes on. */
async function mostMemory<T>(pid: number, work: Promise<T>): Promise<[T, number]> {
  let most = 0;
  let done = false;
  const looking = (async () => {
    while (!done) {
      most = Math.max(most, await residentMiB(pid));
      await Bun.sleep(250);
    }
  })();
  const result = await work.finally(() => {
    done = true;
  });
  await looking;
  return [result, most];
}

// Ten times as many want to log in as this machine can let in: as many as ever are let in, the others hear at once that
// they have to come again, which counts against nobody; and whoever is logged in already hardly notices.
describe("overload", () => {
  const forms = [
    [
      "PostgreSQL",
      FULL ? { refresh: 50, verify: 100, livez: 20 } : SHORT_RATES,
      canRun(whyNoPostgres(), "drill of an overload"),
    ],
    ["the embedded database", { refresh: 20, verify: 100, livez: 20 }, FULL],
  ] as const;
  for (const [kind, normal, possible] of forms) {
    test.if(possible)(`${MULTIPLE} times the logins that can be served, for ${SECONDS} s, on ${kind}`, async () => {
      const installation = await install(kind);
      const { server, usernames } = installation;
      try {
        const load = { url: server.url, usernames };
        // Sessions enough that each has its answer before its next refresh is due.
        const warm = {
          durationMs: FULL ? 10_000 : 2500,
          sessions: [],
          keepSessions: true,
          perSecond: {},
          loginsAtATime: AT_CAPACITY,
        };
        let { sessions } = await generateLoad({ ...load, ...warm });
        const send = async (more: { login?: number; loginsAtATime?: number }, seconds: number) => {
          const { login: logins, loginsAtATime = 0 } = more;
          const rates = { ...normal, ...(logins === undefined ? {} : { login: logins }) };
          const durationMs = seconds * 1000;
          const report = await generateLoad({ ...load, durationMs, sessions, perSecond: rates, loginsAtATime });
          sessions = report.sessions;
          expectAnswered(report);
          return report;
        };
        const capacityRun = await send({ loginsAtATime: AT_CAPACITY }, FULL ? 15 : 3);
        const capacity = perSecond(capacityRun.kinds.login, 200, capacityRun);
        const base = await send({ login: capacity }, FULL ? 30 : 4);
        const before = await residentMiB(server.pid);
        const [over, most] = await mostMemory(server.pid, send({ login: MULTIPLE * capacity }, SECONDS));
        const began = performance.now();
        expect((await login(server.url)).status).toBe(200);
        const backMs = performance.now() - began;
        await send({ login: capacity / 2 }, FULL ? 10 : 1);

        const outcome = outcomeOf({ capacity, base, over, before, grownMiB: most - before, backMs });
        tableRow(`D24 overload on ${kind}`, PROMISE_IN_WORDS, outcome.text);
        expectKept(outcome);
        expect(logLines(server.out()).some(({ event }) => event === "request.unavailable")).toBe(true);
        expect(await installation.counted()).toBe(0);
      } finally {
        await installation.remove();
      }
    });
  }
});

const PROMISE_IN_WORDS = `logins served at ${PROMISE.goodput * 100} % of capacity or more; the others 503 in ${PROMISE.refusedWithinMs} ms (p99), counted as no failure; refresh and verify p99 at most ${PROMISE.slowerTimes} times that at capacity; livez p99 ${PROMISE.livezMs} ms; memory grows by no more than hashes and caches take and 20 %; back in 5 s`;

interface Measured {
  readonly capacity: number;
  readonly base: Report;
  readonly over: Report;
  /** Resident memory before the overload, and by how much it grew (MiB). */
  readonly before: number;
  readonly grownMiB: number;
  readonly backMs: number;
}

function outcomeOf({ capacity, base, over, before, grownMiB, backMs }: Measured) {
  const latencies = (report: Report, kind: Kind) => withStatus(report.kinds[kind], 200);
  const served = perSecond(over.kinds.login, 200, over);
  const refused = withStatus(over.kinds.login, 503);
  const pair = (kind: Kind) => `${p99(latencies(over, kind))} after ${p99(latencies(base, kind))} ms`;
  const text = [
    `capacity ${capacity.toFixed(0)}/s, sent ${(reached(over) / capacity).toFixed(1)} times that`,
    `served ${served.toFixed(0)}/s (${Math.round((served / capacity) * 100)} %) in ${p50(latencies(over, "login"))} ms (p50)`,
    `${refused.length} refused in ${p50(refused)}/${p99(refused)} ms (p50/p99)`,
    `p99 of refresh ${pair("refresh")}, verify ${pair("verify")}, livez ${p99(latencies(over, "livez"))} ms`,
    `${grownMiB} MiB more than ${before}`,
    `next login in ${Math.round(backMs)} ms`,
    `generator late by ${p99(over.kinds.login.lateness)} ms (p99)`,
    `load average ${loadavg()[0]?.toFixed(1)} on ${SLOTS} cores`,
  ].join("; ");
  return { text, capacity, served, refused, base, over, before, grownMiB, backMs, latencies };
}

function expectKept(outcome: ReturnType<typeof outcomeOf>): void {
  const { capacity, served, refused, base, over, before, grownMiB, backMs, latencies } = outcome;
  expect(refused.length).toBeGreaterThan(latencies(over, "login").length);
  expect(backMs).toBeLessThan(5000);
  if (!FULL) {
    // Whatever else this machine is doing: a good part is served, whoever is refused waits for no hash, and whoever needs
    // none is answered before those who do.
    expect(served).toBeGreaterThan(capacity * 0.4);
    expect(p50(refused)).toBeLessThan(p50(latencies(over, "login")) / 2);
    for (const kind of ["refresh", "verify", "livez"] as const) {
      expect(latencies(over, kind).length).toBeGreaterThan(over.kinds[kind].scheduled * 0.8);
      expect(p50(latencies(over, kind))).toBeLessThan(p50(latencies(over, "login")));
    }
    expect(grownMiB).toBeLessThan(2 * PROMISE.grownMiB(before));
    return;
  }
  expect(served).toBeGreaterThan(capacity * PROMISE.goodput);
  expect(p99(refused)).toBeLessThanOrEqual(PROMISE.refusedWithinMs);
  for (const kind of ["refresh", "verify"] as const) {
    expect(withStatus(over.kinds[kind], 503)).toEqual([]);
    expect(p99(latencies(over, kind))).toBeLessThanOrEqual(PROMISE.slowerTimes * p99(latencies(base, kind)));
  }
  expect(p99(latencies(over, "livez"))).toBeLessThanOrEqual(PROMISE.livezMs);
  expect(grownMiB).toBeLessThanOrEqual(PROMISE.grownMiB(before));
}
