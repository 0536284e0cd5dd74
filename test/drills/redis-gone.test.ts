import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { openPglite } from "../../db/pglite.ts";
import { type OwnRedis, ownRedis, whyNoRedis } from "../support/redis.ts";
import { addUsers, percentile } from "./load.ts";
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
import { tableRow } from "./table.ts";

const possible = canRun(whyNoRedis(), "drill of a Redis that goes away");
const AWAY_MS = FULL ? 60_000 : 2500;
const USUAL_MS = FULL ? 10_000 : 1500;
inShort(`Redis hangs for ${AWAY_MS / 1000} s, 60 with TEST_FULL`);
/** What a request may take longer while Redis hangs, before it is given up and after (milliseconds). */
const SLOWER_AT_FIRST_MS = 250;
const SLOWER_MS = 50;
/** What a machine that does other things as well adds to that. */
const NOISE_MS = FULL ? 0 : 200;
/** How many wrong passwords are looked at before an account has to wait. */
const GUESSES = 5;

const scratch = scratchFolder();
let redis: OwnRedis;
let server: Server;
beforeAll(async () => {
  if (!possible) return;
  redis = await ownRedis();
  const home = join(scratch.path, "home");
  await initHome(home);
  const db = await openPglite(home);
  await addUsers(db, 2);
  await db.close();
  server = await serve(home, {
    REDIS_URL: `redis://127.0.0.1:${redis.port}`,
    PRIMER_RATE_LIMITS__GENERAL: "100000/1m",
    PRIMER_ACCOUNTS__DELAY_AFTER: String(GUESSES),
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

interface Sent extends Answer {
  readonly sentAt: number;
}

/** Logs in and refreshes for as long. */
async function load(durationMs: number): Promise<Sent[]> {
  const answers: Sent[] = [];
  const began = performance.now();
  const timed = async (ask: () => Promise<Answer>) => {
    const sentAt = performance.now();
    const answer = await ask();
    answers.push({ sentAt, ...answer });
    return answer;
  };
  const client = async () => {
    while (performance.now() - began < durationMs) {
      const entered = await timed(() => login(server.url));
      await timed(() => refresh(server.url, entered.body?.refresh_token ?? ""));
      await Bun.sleep(20);
    }
  };
  await Promise.all([client(), client()]);
  return answers;
}

const p99 = (answers: readonly Answer[]) =>
  Math.round(
    percentile(
      answers.map(({ tookMs }) => tookMs),
      99,
    ),
  );

/** How many of many guesses at once are looked at; the others have to wait. */
async function guessesVerified(username: string): Promise<number> {
  const wrong = { username, password: "not the right horse battery staple" };
  const answers = await Promise.all(
    Array.from({ length: 4 * GUESSES }, () => post(server.url, "/api/v1/auth/login", wrong)),
  );
  const refused = answers.filter(({ status }) => status !== 401).map(({ status }) => status);
  expect(new Set(refused)).toEqual(new Set([429]));
  return answers.length - refused.length;
}

// Redis makes limits common to all processes, and nothing else: while it hangs everybody is served, and no guess is free.
describe("Redis hangs", () => {
  test.if(possible)(
    "nobody is refused and nobody waits; guesses are slowed as before; then it counts again",
    async () => {
      await load(USUAL_MS / 2); // at first everything is slower
      const usual = p99(await load(USUAL_MS));
      const guessedBefore = await guessesVerified("user1");
      let openedAt = Number.POSITIVE_INFINITY;
      const opened = server
        .until((out) => out.includes("breaker.opened"))
        .then(() => {
          openedAt = performance.now();
        });
      redis.freeze();
      let during: Sent[] = [];
      let guessed = 0;
      try {
        during = await load(AWAY_MS);
        guessed = await guessesVerified("user2");
      } finally {
        redis.thaw();
      }
      await opened;
      expect(new Set(during.map(({ status }) => status))).toEqual(new Set([200]));
      expect([guessedBefore, guessed]).toEqual([GUESSES, GUESSES]);
      const first = p99(during.filter(({ sentAt }) => sentAt <= openedAt));
      const later = p99(during.filter(({ sentAt }) => sentAt > openedAt));
      await redis.command("flushall");
      const back = await waitFor("counting in Redis again", async () => {
        await login(server.url);
        return (await redis.command("dbsize")) !== "0";
      });
      tableRow(
        `D3 Redis frozen for ${AWAY_MS / 1000} s`,
        `no 5xx; p99 at most ${SLOWER_AT_FIRST_MS} ms more until its breaker opens, ${SLOWER_MS} ms after; no more guesses at an account than without; counts in it again by itself`,
        `${during.length} answers, all 200; p99 ${usual} ms before, ${first} ms at first, ${later} ms once open; ${guessed} of ${4 * GUESSES} guesses looked at, ${guessedBefore} before; back after ${Math.round(back)} ms`,
      );
      expect(first).toBeLessThan(usual + SLOWER_AT_FIRST_MS + NOISE_MS);
      expect(later).toBeLessThan(usual + SLOWER_MS + NOISE_MS);
      expect(logLines(server.out()).some(({ event }) => event === "breaker.closed")).toBe(true);
    },
  );
});
