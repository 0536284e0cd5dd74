import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { AppError } from "../../../server/errors.ts";
import { createHashPool, type HashPool } from "../../../server/features/passwords/hash-pool.ts";
import { heldClock } from "../../../server/ports/clock.ts";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { replaceDeps, stepsOf } from "../support/observe.ts";

const LOGIN = "/api/v1/auth/login";
const AT_A_TIME = 2;
/** One slot and one place in the queue: two are admitted at a time, and nobody waits for more than a second. */
const SMALL = { hash_slots: 1, hash_queue: 1, hash_timeout: 2000 };

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
  await app.createUser({ username: "ada" });
});
afterAll(() => app.close());

const clock = heldClock(new Date());
const smallPool = () => createHashPool({ ...app.deps.settings.password, ...SMALL }, clock);

/** Has everything that is admitted take so long from now on. */
async function usuallyTakes(pool: HashPool, ms: number): Promise<void> {
  for (let count = 0; count < 50; count++) await pool.admit(async () => clock.advance(ms));
}

/** Takes every place until `free` is called. */
async function occupied(pool: HashPool) {
  const { promise, resolve: free } = Promise.withResolvers<void>();
  const begun = Array.from({ length: AT_A_TIME }, () => Promise.withResolvers<void>());
  const held = begun.map(({ resolve }) =>
    pool.admit(() => {
      resolve();
      return promise;
    }),
  );
  await Promise.all(begun.map((one) => one.promise));
  return { held, free };
}

/** Comes and waits. `outcome` is undefined for as long as it does. */
function comer(pool: HashPool, order: number[] = [], number = 0) {
  const seen: { outcome?: "served" | string } = {};
  const done = pool
    .admit(async () => void order.push(number))
    .then(
      () => {
        seen.outcome = "served";
      },
      (error: AppError) => {
        seen.outcome = error.errorCode;
      },
    );
  return { seen, done };
}

// Whoever waits is served soon, and everybody else hears at once that they are not: however slow the machine is.
describe("the line of those who need a hash", () => {
  test.each([
    [1000, 2],
    [500, 4],
    [100, 20],
  ])("one that usually takes %d ms: %d may wait, one more is refused at once", async (ms, places) => {
    const pool = smallPool();
    await usuallyTakes(pool, ms);
    const { held, free } = await occupied(pool);
    const waiting = Array.from({ length: places }, () => comer(pool));
    const tooMany = comer(pool);
    await tooMany.done;
    expect(tooMany.seen.outcome).toBe("SERVICE_UNAVAILABLE");
    expect(waiting.map(({ seen }) => seen.outcome)).toEqual(waiting.map(() => undefined));
    free();
    await Promise.all([...held, ...waiting.map(({ done }) => done)]);
    expect(waiting.map(({ seen }) => seen.outcome)).toEqual(waiting.map(() => "served"));
  });

  test("slower than it was: the last who came are sent away, the first are served in turn", async () => {
    const pool = smallPool();
    await usuallyTakes(pool, 10);
    const { held, free } = await occupied(pool);
    const order: number[] = [];
    const waiting = Array.from({ length: 50 }, (_, number) => comer(pool, order, number));
    clock.advance(5000);
    free();
    await Promise.all([...held, ...waiting.map(({ done }) => done)]);
    expect(order.length).toBeWithin(1, 10);
    expect(order).toEqual([...order.keys()]);
    const refused = waiting.slice(order.length).map(({ seen }) => seen.outcome);
    expect(refused).toEqual(refused.map(() => "SERVICE_UNAVAILABLE"));
  });

  test("that does not move is left in time, and those who left take nobody's turn", async () => {
    const pool = createHashPool({ ...app.deps.settings.password, ...SMALL, hash_timeout: 100 }, clock);
    const { held, free } = await occupied(pool);
    const order: number[] = [];
    const late = comer(pool, order);
    await late.done;
    expect([late.seen.outcome, order]).toEqual(["SERVICE_UNAVAILABLE", []]);
    const next = comer(pool, order, 1);
    free();
    await Promise.all([...held, next.done]);
    expect(order).toEqual([1]);
  });

  test("is as long again once work that failed has left", async () => {
    const pool = smallPool();
    const failed = [1, 2, 3].map(() => pool.admit(() => Promise.reject(new Error("no"))).catch(() => "failed"));
    expect(await Promise.all(failed)).toEqual(["failed", "failed", "failed"]);
    expect(await pool.admit(async () => "served")).toBe("served");
  });
});

// A hash whose turn would come when its deadline has passed is not waited for: with slow hashes all would come too late.
test("a queue of slow hashes is no longer than half of the deadline", async () => {
  const pool = createHashPool({ ...app.deps.settings.password, ...SMALL, hash_queue: 64 }, clock);
  for (let count = 0; count < 50; count++) await pool.run(async () => clock.advance(500));
  const { promise, resolve: free } = Promise.withResolvers<void>();
  const held = [1, 2, 3, 4].map(() => pool.run(() => promise).catch((error: AppError) => error.errorCode));
  expect(await pool.run(async () => "begun").catch((error: AppError) => error.errorCode)).toBe("SERVICE_UNAVAILABLE");
  free();
  await Promise.all(held);
});

// A flood of logins costs the database nothing, tells nothing about a password, and counts against nobody's account.
describe("a login that is refused since too many come", () => {
  test.each([
    ["the right password", "ada", PASSWORD],
    ["a wrong one", "ada", "not the right horse battery staple"],
    ["a name that nobody has", "nobody", PASSWORD],
  ])("%s: 503 without a statement, a hash or a count", async (_name, username, password) => {
    const pool = smallPool();
    await usuallyTakes(pool, 5000);
    const { held, free } = await occupied(pool);
    const restore = replaceDeps(app.deps, { hashPool: pool });
    try {
      const steps = await stepsOf(app.deps, async () => {
        const answer = await app.request("POST", LOGIN, { body: { username, password } });
        expect([answer.status, answer.body.error.code]).toEqual([503, "SERVICE_UNAVAILABLE"]);
        expect(answer.headers.get("retry-after")).toMatch(/^[1-5]$/);
      });
      expect(steps).toEqual([]);
      expect(await app.db.query("SELECT subject FROM failure_counters")).toEqual([]);
    } finally {
      restore();
      free();
      await Promise.all(held);
    }
    expect((await app.request("POST", LOGIN, { body: { username: "ada", password: PASSWORD } })).status).toBe(200);
  });
});
