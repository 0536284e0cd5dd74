import { describe, expect, test } from "bun:test";
import type { Rate } from "../../config/kinds.ts";
import { heldClock } from "../../server/ports/clock.ts";
import { createMemoryLimiter } from "../../server/ports/limiter.ts";
import { seededRandom } from "../http/support/random.ts";

/** One key at a time, and only the wait. */
const open = () => {
  const clock = heldClock(new Date("2026-03-01T12:00:00.000Z"));
  const whole = createMemoryLimiter(clock);
  const waitOf = (rooms: { waitMs: number }[]) => rooms[0]?.waitMs ?? 0;
  const limiter = {
    hit: async (key: string, rate: Rate) => waitOf(await whole.take([{ key, rate }])),
    wait: async (key: string, rate: Rate) => waitOf(await whole.look([{ key, rate }])),
  };
  return { clock, limiter };
};
const RATE = { limit: 3, windowMs: 60_000 };

describe("a limiter in memory", () => {
  test("counts up to the limit, then tells how long to wait", async () => {
    const { clock, limiter } = open();
    const waits: number[] = [];
    for (let count = 0; count < 4; count++) {
      waits.push(await limiter.hit("a", RATE));
      clock.advance(10_000);
    }
    expect(waits).toEqual([0, 0, 0, 30_000]);
    expect(await limiter.wait("a", RATE)).toBe(20_000);
    expect(await limiter.wait("b", RATE)).toBe(0);
  });

  // To wait exactly as long as was said is enough, and a moment less is not; looking costs nothing.
  test("waiting exactly that long admits the next", async () => {
    const { clock, limiter } = open();
    for (let count = 0; count < 3; count++) await limiter.hit("a", RATE);
    clock.advance(59_999);
    for (let count = 0; count < 5; count++) expect(await limiter.wait("a", RATE)).toBe(1);
    expect(await limiter.hit("a", RATE)).toBe(1);
    clock.advance(1);
    expect(await limiter.hit("a", RATE)).toBe(0);
  });

  // However hits are spread, no window of the rate's length holds more than the limit, and what was said is kept.
  test.each([1, 7, 50, 1000])("never more than %d in any window", async (limit) => {
    const { clock, limiter } = open();
    const random = seededRandom(limit);
    const rate = { limit, windowMs: 10_000 };
    const admitted: number[] = [];
    for (let count = 0; count < 5000; count++) {
      clock.advance(random.below(Math.ceil(15_000 / limit)));
      const wait = await limiter.hit("a", rate);
      if (wait === 0) admitted.push(clock.elapsed());
      else if (random.next() < 0.05) {
        clock.advance(wait);
        expect(await limiter.wait("a", rate)).toBe(0);
      }
    }
    const most = Math.max(
      ...admitted.map((end, index) => {
        let first = index;
        while (first >= 0 && (admitted[first] ?? 0) > end - rate.windowMs) first--;
        return index - first;
      }),
    );
    expect(most).toBeLessThanOrEqual(limit);
    expect(most).toBeGreaterThan(limit * 0.9);
  });

  // Of many at the same moment exactly as many as the limit are counted.
  test("100 at the same moment", async () => {
    const { limiter } = open();
    const waits = await Promise.all(Array.from({ length: 100 }, () => limiter.hit("a", RATE)));
    expect(waits.filter((wait) => wait === 0)).toHaveLength(RATE.limit);
  });
});
