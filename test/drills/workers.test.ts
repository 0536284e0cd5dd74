import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { workersAsked } from "../../cli/serve-together.ts";
import { freePort } from "../support/services.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import { type Child, canRun, initHome, login, primer, scratchFolder, waitFor } from "./processes.ts";
import { tableRow } from "./table.ts";

const possible = canRun(whyNoPostgres(), "drill of processes that share a port");
const AT_A_TIME = 8;
/** What a process was doing when it died, and the connections that the system had put by for it until then. */
const MOST_LOST = 4 * AT_A_TIME;
const DRAIN_MS = 1000;

const scratch = scratchFolder();
const home = join(scratch.path, "home");
let postgres: OwnPostgres;
let variables: Record<string, string>;
let node: Child;
let url: string;
let token: string;
beforeAll(async () => {
  if (!possible) return;
  postgres = await ownPostgres();
  variables = { DATABASE_URL: postgres.url, PRIMER_SERVER__DRAIN_DELAY: `${DRAIN_MS}ms` };
  await initHome(home, variables);
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  node = primer(home, ["serve", "--port", String(port), "--workers", "2", "--with-worker"], variables);
  await node.until(() => serving().length === 2);
  token = (await login(url)).body.access_token;
}, 60_000);
afterAll(async () => {
  if (!possible) return;
  if (node.running()) node.signal("SIGTERM");
  await node.finished;
  await postgres.remove();
  scratch.remove();
});

/** The processes that have begun to serve, in their order. */
const serving = () => [...node.out().matchAll(/"event":"server.started".*?"pid":(\d+)/g)].map(([, pid]) => Number(pid));

/** Asks again and again, each time on a connection of its own, and answers what became of each. */
function keepAsking() {
  let isOver = false;
  const outcomes: string[] = [];
  const ask = async () => {
    const headers = { authorization: `Bearer ${token}`, connection: "close" };
    while (!isOver) {
      const answer = await fetch(`${url}/api/v1/auth/verify`, { headers, signal: AbortSignal.timeout(5000) }).then(
        ({ status }) => String(status),
        () => "no answer",
      );
      outcomes.push(answer);
    }
  };
  const all = Promise.all(Array.from({ length: AT_A_TIME }, ask));
  return {
    outcomes,
    async stop() {
      isOver = true;
      await all;
      return outcomes;
    },
  };
}

const lost = (outcomes: readonly string[]) => outcomes.filter((outcome) => outcome !== "200").length;

// Whoever is on another process notices nothing of one that dies, and soon there are as many as before.
describe("serve --workers 2", () => {
  test.if(possible)("one that is killed under load costs what it was doing, and is replaced", async () => {
    const [, killed = 0] = serving();
    const asking = keepAsking();
    await waitFor("some answers", () => asking.outcomes.length > 50);
    process.kill(killed, "SIGKILL");
    const backAfter = await waitFor("another process", () => serving().length === 3);
    const then = asking.outcomes.length;
    await waitFor("further answers", () => asking.outcomes.length > then + 50);
    const outcomes = await asking.stop();
    expect(lost(outcomes)).toBeLessThanOrEqual(MOST_LOST);
    expect(lost(outcomes.slice(then))).toBe(0);
    expect(node.running()).toBe(true);
    tableRow(
      "one of two processes of a node killed under load",
      "requests go on; it is replaced",
      `${lost(outcomes)} of ${outcomes.length} requests lost; replaced after ${Math.round(backAfter)} ms`,
    );
  });

  test.if(possible)("one of them alone does the background work, also after one was replaced", () => {
    const wordsOf = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    const alive = serving().filter((pid) => existsSync(`/proc/${pid}`));
    const roles = alive.map((pid) => wordsOf(pid).find((word) => word.endsWith("-worker")));
    expect(roles.sort()).toEqual(["--no-worker", "--with-worker"]);
  });

  test.if(possible)("told to stop, all of them drain: no request is lost", async () => {
    const asking = keepAsking();
    await waitFor("some answers", () => asking.outcomes.length > 50);
    node.signal("SIGTERM");
    await waitFor("readyz to say so", async () => (await fetch(`${url}/readyz`)).status === 503);
    await Bun.sleep(DRAIN_MS / 4); // a balancer has noticed by then
    const outcomes = await asking.stop();
    expect(lost(outcomes)).toBe(0);
    expect((await node.finished).exitCode).toBe(0);
    const pids = serving();
    for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow();
    tableRow("a node of two processes told to stop under load", "no request is lost", `${outcomes.length} answered`);
  });
});

// Nothing serves that nobody can stop or replace.
test.if(possible)("serve --workers 2 killed itself: its processes drain, and the port is free again", async () => {
  const port = await freePort();
  const words = ["serve", "--port", String(port), "--workers", "2"];
  const parent = primer(home, words, variables);
  const pids = await parent.until((out) => {
    const found = [...out.matchAll(/"event":"server.started".*?"pid":(\d+)/g)].map(([, pid]) => Number(pid));
    return found.length === 2 && found;
  });
  await parent.kill();
  await waitFor("the end of both", () => pids.every((pid) => !existsSync(`/proc/${pid}`)));
  Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
});

describe("how many processes", () => {
  test.each<[string | undefined, boolean, unknown]>([
    [undefined, false, 1],
    ["1", true, 1],
    ["4", false, 4],
    ["auto", false, availableParallelism()],
    ["auto", true, 1],
    ["2/4", false, { index: 2, of: 4 }],
  ])("--workers %p, embedded: %p", (workers, embedded, asked) => {
    expect(workersAsked({ workers }, embedded)).toEqual(asked as number);
  });

  test.each([
    ["0", false],
    ["65", false],
    ["many", false],
    ["1.5", false],
    ["2", true],
  ])("--workers %p, embedded: %p: exit 2", (workers, embedded) => {
    expect(() => workersAsked({ workers }, embedded)).toThrow(expect.objectContaining({ exitCode: 2 }));
  });
});
