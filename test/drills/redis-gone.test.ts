import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type OwnRedis, ownRedis, whyNoRedis } from "../support/redis.ts";
import {
  type Answer,
  canRun,
  FULL,
  initHome,
  inShort,
  login,
  logLines,
  post,
  refresh,
  type Server,
  scratchFolder,
  serve,
  waitFor,
} from "./processes.ts";

const possible = canRun(whyNoRedis(), "drill of a Redis that goes away");
const AWAY_MS = FULL ? 60_000 : 3000;
inShort(`Redis hangs for ${AWAY_MS / 1000} s, 60 with TEST_FULL`);
/** What a request may take longer while Redis hangs, before and after it is given up (milliseconds). */
const SLOWER_AT_FIRST_MS = 250;

const scratch = scratchFolder();
let redis: OwnRedis;
let server: Server;
beforeAll(async () => {
  if (!possible) return;
  redis = await ownRedis();
  const home = join(scratch.path, "home");
  await initHome(home);
  server = await serve(home, {
    REDIS_URL: `redis://127.0.0.1:${redis.port}`,
    PRIMER_RATE_LIMITS__GENERAL: "100000/1m",
    PRIMER_ACCOUNTS__DELAY_AFTER: "5",
  });
  await waitFor("counting in Redis", async () => {
    await login(server.url);
    return (await redis.command("dbsize")) !== "0";
  });
}, 60_000);
afterAll(async () => {
  if (!possible) return;
  await server.kill();
  await redis.remove();
  scratch.remove();
});

/** Logs in and refreshes for as long. */
async function load(durationMs: number): Promise<Answer[]> {
  const answers: Answer[] = [];
  const began = performance.now();
  const client = async () => {
    while (performance.now() - began < durationMs) {
      const entered = await login(server.url);
      answers.push(entered, await refresh(server.url, entered.body?.refresh_token ?? ""));
      await Bun.sleep(20);
    }
  };
  await Promise.all([client(), client()]);
  return answers;
}

const p99 = (answers: readonly Answer[]) =>
  answers.map(({ tookMs }) => tookMs).sort((a, b) => a - b)[Math.floor(answers.length * 0.99)] ?? 0;

// Redis makes limits common to all processes, and nothing else: while it hangs everybody is served, and no guess is free.
describe("Redis hangs", () => {
  test.if(possible)(
    "nobody is refused and nobody waits; guesses are slowed as before; then it counts again",
    async () => {
      const before = p99(await load(2000));
      redis.freeze();
      let during: Answer[] = [];
      const guesses: number[] = [];
      try {
        during = await load(AWAY_MS);
        for (let count = 0; count < 10; count++) {
          const wrong = { username: "nobody@example.org", password: "not the right horse battery staple" };
          guesses.push((await post(server.url, "/api/v1/auth/login", wrong)).status);
        }
      } finally {
        redis.thaw();
      }
      const statuses = new Set(during.map(({ status }) => status));
      expect([...statuses]).toEqual([200]);
      expect(guesses.filter((status) => status === 401)).toHaveLength(5);
      expect(guesses.filter((status) => status === 429)).toHaveLength(5);
      const slowest = p99(during);
      process.stderr.write(
        `measured: p99 ${Math.round(before)} ms with Redis, ${Math.round(slowest)} ms while it hangs\n`,
      );
      expect(slowest).toBeLessThan(before + SLOWER_AT_FIRST_MS + 200);
      expect(logLines(server.out()).filter(({ event }) => event === "breaker.opened").length).toBeGreaterThanOrEqual(1);
      await redis.command("flushall");
      await waitFor("counting in Redis again", async () => {
        await login(server.url);
        return (await redis.command("dbsize")) !== "0";
      });
      expect(logLines(server.out()).some(({ event }) => event === "breaker.closed")).toBe(true);
    },
  );
});
