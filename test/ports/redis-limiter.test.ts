import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { loadSettings } from "../../config/load.ts";
import { createLog } from "../../config/log.ts";
import { createBreaker } from "../../db/breaker.ts";
import { openRedis, type RedisScripts } from "../../db/redis.ts";
import { createDependencies } from "../../server/dependencies.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { type Check, createMemoryLimiter, type Limiter } from "../../server/ports/limiter.ts";
import { createRedisLimiter } from "../../server/ports/redis-limiter.ts";
import { canRun } from "../drills/processes.ts";
import { type OwnRedis, ownRedis, ownSentinel, whyNoRedis } from "../support/redis.ts";

const possible = canRun(whyNoRedis(), "the limiter on a real Redis");
const RATE = { limit: 5, windowMs: 2000 };

let redis: OwnRedis;
const opened: RedisScripts[] = [];
const lines: string[] = [];
beforeAll(async () => {
  if (possible) redis = await ownRedis();
});
afterEach(() => {
  for (const connection of opened.splice(0)) connection.close();
});
afterAll(async () => {
  if (possible) await redis.remove();
});

/** The limiter of one process, whose own share is counted in memory while Redis is away. */
async function open(variables: Record<string, string> = {}, processes = 1): Promise<Limiter> {
  const given = { REDIS_URL: `redis://127.0.0.1:${redis.port}`, ...variables };
  const { settings } = loadSettings("/nonexistent", given);
  const connection = openRedis(settings.redis);
  opened.push(connection);
  const log = createLog(
    () => "info",
    { write: (line) => lines.push(line) },
    () => systemClock.now(),
  );
  for (let tries = 0; tries < 200; tries++) {
    const answers = await connection.ping().then(
      () => true,
      () => false,
    );
    if (answers) break;
    await Bun.sleep(20);
  }
  const breaker = createBreaker("Redis", () => true);
  createDependencies(log).add("redis", { breaker, meanwhile: "limits are counted by each process" });
  return createRedisLimiter(
    connection,
    createMemoryLimiter(systemClock, () => processes),
    breaker,
  );
}

let made = 0;
const newCheck = (rate = RATE): Check => ({ key: `test:${++made}`, rate });
const admitted = async (limiter: Limiter, check: Check) => (await limiter.take([check]))[0]?.waitMs === 0;

async function admittedOf(limiters: readonly Limiter[], check: Check, count: number): Promise<number> {
  const answers = await Promise.all(
    Array.from({ length: count }, (_, index) => admitted(limiters[index % limiters.length] as Limiter, check)),
  );
  return answers.filter(Boolean).length;
}

describe.if(possible)("limits counted in Redis", () => {
  // All processes together keep to a limit, however many ask at the same moment.
  test("two processes, 100 at the same moment: as many as the limit says", async () => {
    const limiters = [await open(), await open()];
    expect(await admittedOf(limiters, newCheck(), 100)).toBe(RATE.limit);
    const large = newCheck({ limit: 60, windowMs: 60_000 });
    expect(await admittedOf(limiters, large, 100)).toBe(60);
  });

  test("waiting exactly as long as was said is enough", async () => {
    const limiter = await open();
    const check = newCheck();
    for (let count = 0; count < RATE.limit; count++) expect(await admitted(limiter, check)).toBe(true);
    const [room] = await limiter.look([check]);
    expect(room).toMatchObject({ remaining: 0, resetMs: expect.any(Number) });
    expect(room?.waitMs).toBeGreaterThan(RATE.windowMs - 500);
    expect(room?.waitMs).toBeLessThanOrEqual(RATE.windowMs);
    await Bun.sleep(room?.waitMs ?? 0);
    expect(await admitted(limiter, check)).toBe(true);
  });

  test("several at once: where one has no room, nothing is counted under any", async () => {
    const limiter = await open();
    const [full, free] = [newCheck({ limit: 1, windowMs: 60_000 }), newCheck()];
    expect(await admitted(limiter, full)).toBe(true);
    const rooms = await limiter.take([free, full]);
    expect(rooms.map(({ waitMs }) => waitMs > 0)).toEqual([false, true]);
    expect((await limiter.look([free]))[0]?.remaining).toBe(RATE.limit);
  });

  test("what is counted leaves Redis when its window is over", async () => {
    const limiter = await open();
    const check = newCheck({ limit: 5, windowMs: 300 });
    await limiter.take([check]);
    expect(await redis.command("exists", `primer:{limits}:${check.key}`)).toBe("1");
    await Bun.sleep(500);
    expect(await redis.command("exists", `primer:{limits}:${check.key}`)).toBe("0");
  });
});

// Without Redis nobody waits, nothing is left open, and when it is back so are the limits of all together.
describe.if(possible)("a Redis that is away", () => {
  for (const how of ["killed", "frozen"] as const) {
    test(`${how}: each process admits its part, answers are quick, one line in the log; then it is back`, async () => {
      lines.length = 0;
      const limiters = [await open({}, 2), await open({}, 2)];
      const check = newCheck({ limit: 6, windowMs: 60_000 });
      if (how === "killed") await redis.kill();
      else redis.freeze();
      const began = performance.now();
      expect(await admittedOf(limiters, check, 40)).toBe(6);
      expect(performance.now() - began).toBeLessThan(1000);
      const quick = performance.now();
      for (let count = 0; count < 50; count++) await limiters[0]?.take([newCheck()]);
      expect(performance.now() - quick).toBeLessThan(500);
      expect(lines.filter((line) => line.includes('"breaker.opened"'))).toHaveLength(2);
      if (how === "killed") await redis.start();
      else redis.thaw();
      const shared = newCheck({ limit: 6, windowMs: 60_000 });
      const deadline = performance.now() + 10_000;
      while (lines.filter((line) => line.includes('"breaker.closed"')).length < 2) {
        expect(performance.now()).toBeLessThan(deadline);
        for (const limiter of limiters) await limiter.take([newCheck()]);
        await Bun.sleep(50);
      }
      expect(await admittedOf(limiters, shared, 40)).toBe(6);
    });
  }

  test("emptied: limits begin anew, and nothing fails", async () => {
    const limiter = await open();
    const check = newCheck({ limit: 1, windowMs: 60_000 });
    expect(await admitted(limiter, check)).toBe(true);
    expect(await admitted(limiter, check)).toBe(false);
    await redis.command("flushall");
    await redis.command("script", "flush");
    expect(await admitted(limiter, check)).toBe(true);
  });
});

describe.if(possible)("other kinds of Redis", () => {
  for (const [how, password] of [
    ["", undefined],
    [" that asks for a password of its own", "of-the-sentinels"],
    [" that asks for a user and a password", "of-the-sentinels"],
  ] as const) {
    test(`found through a Sentinel${how}`, async () => {
      const sentinel = await ownSentinel(redis.port, password);
      lines.length = 0;
      try {
        const limiter = await open({
          PRIMER_REDIS__SENTINELS: `127.0.0.1:${sentinel.port}`,
          ...(password ? { PRIMER_REDIS__SENTINEL_PASSWORD: password } : {}),
          ...(how.includes("user") ? { PRIMER_REDIS__SENTINEL_USERNAME: "default" } : {}),
        });
        expect(await admittedOf([limiter], newCheck(), 20)).toBe(RATE.limit);
        expect(lines.filter((line) => line.includes('"breaker.opened"'))).toEqual([]);
      } finally {
        await sentinel.remove();
      }
    });
  }

  test("a cluster, in which all keys of a request are in one slot", async () => {
    const node = await ownRedis(["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"]);
    try {
      await node.command("cluster", "addslotsrange", "0", "16383");
      const deadline = performance.now() + 10_000;
      while (!(await node.command("cluster", "info")).includes("cluster_state:ok")) {
        expect(performance.now()).toBeLessThan(deadline);
        await Bun.sleep(50);
      }
      lines.length = 0;
      const cluster = { REDIS_URL: `redis://127.0.0.1:${node.port}`, PRIMER_REDIS__CLUSTER: "true" };
      const limiter = await open(cluster);
      const checks = [newCheck(), newCheck(), newCheck()];
      expect((await limiter.take(checks)).map(({ remaining }) => remaining)).toEqual([4, 4, 4]);
      expect(await node.command("dbsize")).toBe("3");
    } finally {
      await node.remove();
    }
  });
});
