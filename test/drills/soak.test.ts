/** A server that works for long does not grow. */
import { describe, expect, test } from "bun:test";
import { availableParallelism, loadavg } from "node:os";
import { generateLoad, homeWithUsers, type Kind, type Load, type Report, startLoad } from "./load.ts";
import { whyNoPostgres } from "./own-postgres.ts";
import { canRun, FULL, inShort, primer, type Server, serve } from "./processes.ts";
import { tableRow } from "./table.ts";

inShort("5 s on PostgreSQL, 20 minutes on each database with TEST_FULL; memory is looked at, and not judged");
const SOAK_MS = FULL ? 20 * 60_000 : 5000;
const WARM_UP_MS = FULL ? 5 * 60_000 : 0;
const SAMPLE_EVERY_MS = FULL ? 1000 : 250;
const MOST_MIB_A_MINUTE = 1;
const USERS = 200;
const SLOTS = availableParallelism();

/** Of the logins that this machine can do. As many are ended as begin. */
const SHARE: Partial<Record<Kind, number>> = { login: 0.2, logout: 0.2, refresh: 0.4, introspect: 0.4, verify: 2 };
const SHORT_RATES: typeof SHARE = { login: 5, logout: 5, refresh: 10, introspect: 10, verify: 40 };

interface Installation {
  readonly server: Server;
  readonly usernames: string[];
  readonly client: NonNullable<Load["client"]>;
  remove(): Promise<void>;
}

/** One process does all there is to do: requests, jobs and mails. */
async function install(kind: "PostgreSQL" | "the embedded database"): Promise<Installation> {
  const { home, variables, usernames, remove } = await homeWithUsers(kind, USERS);
  const created = await primer(home, ["clients", "create", "orders", "--json"], variables).finished;
  const server = await serve(home, variables, undefined, ["--with-worker"]);
  return {
    server,
    usernames,
    client: JSON.parse(created.out),
    async remove() {
      await server.kill();
      await remove();
    },
  };
}

/** A moment of the process: minutes since the first, its resident memory (MiB) and the processor time it had (seconds). */
interface Sample {
  readonly minute: number;
  readonly mib: number;
  readonly cpuSeconds: number;
}

async function sampleOf(pid: number, began: number): Promise<Sample> {
  const [status, stat] = await Promise.all(["status", "stat"].map((name) => Bun.file(`/proc/${pid}/${name}`).text()));
  const [user, system] = (stat ?? "")
    .slice((stat ?? "").lastIndexOf(")"))
    .split(" ")
    .slice(12, 14)
    .map(Number);
  return {
    minute: (performance.now() - began) / 60_000,
    mib: Number(/VmRSS:\s+(\d+)/.exec(status ?? "")?.[1]) / 1024,
    cpuSeconds: ((user ?? 0) + (system ?? 0)) / 100,
  };
}

/** MiB a minute, by least squares. */
function slopeOf(samples: readonly Sample[]): number {
  const mean = (of: (sample: Sample) => number) => samples.reduce((sum, one) => sum + of(one), 0) / samples.length;
  const [minute, mib] = [mean((one) => one.minute), mean((one) => one.mib)];
  return mean((one) => (one.minute - minute) * (one.mib - mib)) / mean((one) => (one.minute - minute) ** 2);
}

function expectAnswered({ kinds }: Report): void {
  for (const [kind, seen] of Object.entries(kinds)) {
    const others = Object.keys(seen.latencies).filter((status) => status !== "200" && status !== "204");
    expect([kind, others, seen.failures]).toEqual([kind, [], []]);
  }
}

describe("a server under a mixed load for long", () => {
  for (const kind of FULL ? (["PostgreSQL", "the embedded database"] as const) : (["PostgreSQL"] as const)) {
    const possible = canRun(kind === "PostgreSQL" ? whyNoPostgres() : undefined, `soak on ${kind}`);
    test.if(possible)(
      `on ${kind}: its memory does not grow`,
      async () => {
        const installation = await install(kind);
        const { server, usernames, client } = installation;
        try {
          const load = { url: server.url, usernames, keepSessions: true, client };
          const warm = { durationMs: FULL ? 15_000 : 1500, sessions: [], perSecond: {}, loginsAtATime: SLOTS * 4 };
          const first = await generateLoad({ ...load, ...warm });
          const capacity = (first.kinds.login.latencies[200]?.length ?? 0) / (first.tookMs / 1000);
          const perSecond = FULL ? scaled(SHARE, capacity) : SHORT_RATES;

          const began = performance.now();
          const samples: Sample[] = [await sampleOf(server.pid, began)];
          const sending = startLoad({ ...load, durationMs: SOAK_MS, sessions: first.sessions, perSecond });
          const timer = setInterval(async () => samples.push(await sampleOf(server.pid, began)), SAMPLE_EVERY_MS);
          const report = await sending.report.finally(() => clearInterval(timer));
          expect(samples.length).toBeGreaterThan((SOAK_MS / SAMPLE_EVERY_MS) * 0.8);
          expect(samples.every(({ mib }) => mib > 0)).toBe(true);

          const judged = samples.filter(({ minute }) => minute * 60_000 >= WARM_UP_MS);
          const [start, end] = [judged[0], judged.at(-1)];
          const slope = slopeOf(judged);
          const requests = Object.values(report.kinds).reduce((sum, { scheduled }) => sum + scheduled, 0);
          tableRow(
            `${SOAK_MS / 1000} s of a mixed load on ${kind}`,
            `no request fails; after 5 minutes memory grows by less than ${MOST_MIB_A_MINUTE} MiB a minute`,
            [
              `${requests} requests, of ${capacity.toFixed(0)} logins/s that it can do ${rates(perSecond)}`,
              `${samples[0]?.mib.toFixed(0)} MiB at first, then ${start?.mib.toFixed(0)} to ${end?.mib.toFixed(0)}, at most ${Math.max(...samples.map(({ mib }) => mib)).toFixed(0)}`,
              FULL ? `${slope.toFixed(2)} MiB a minute` : "too short to tell how fast",
              `${cpuShare(samples).toFixed(2)} cores for the server, load average ${loadavg()[0]?.toFixed(1)} on ${SLOTS}`,
            ].join("; "),
          );
          expectAnswered(report);
          for (const each of Object.keys(perSecond) as Kind[]) expect(report.kinds[each].scheduled).toBeGreaterThan(0);
          if (FULL) expect(slope).toBeLessThan(MOST_MIB_A_MINUTE);
        } finally {
          await installation.remove();
        }
      },
      SOAK_MS + 180_000,
    );
  }
});

const scaled = (shares: typeof SHARE, capacity: number) =>
  Object.fromEntries(Object.entries(shares).map(([kind, share]) => [kind, share * capacity]));

const rates = (perSecond: typeof SHARE) =>
  Object.entries(perSecond)
    .map(([kind, rate]) => `${rate.toFixed(0)} ${kind}/s`)
    .join(", ");

function cpuShare(samples: readonly Sample[]): number {
  const [from, to] = [samples[0], samples.at(-1)];
  if (!from || !to) return 0;
  return (to.cpuSeconds - from.cpuSeconds) / ((to.minute - from.minute) * 60);
}
