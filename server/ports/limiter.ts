import { LRUCache } from "lru-cache";
import type { Rate } from "../../config/kinds.ts";
import type { Clock } from "./clock.ts";

/** Counts what happens under a key in a sliding window: at most `rate.limit` in any `rate.windowMs`. */
export interface Limiter {
  /** Milliseconds until one more is within the rate; 0 where it is now. Counts nothing. */
  wait(key: string, rate: Rate): Promise<number>;
  /** Counts one where it is within the rate and answers 0; else counts nothing and answers how long to wait. */
  hit(key: string, rate: Rate): Promise<number>;
}

/** Beyond this many keys the one that was used longest ago is forgotten. */
const MAX_KEYS = 10_000;
/** What happens within this share of a window counts as one moment, the last: so a key takes little room at any rate. */
const MOMENTS_PER_WINDOW = 64;

interface Moment {
  readonly from: number;
  until: number;
  count: number;
}

/** For one process by itself. */
export function createMemoryLimiter(clock: Pick<Clock, "elapsed">): Limiter {
  const keys = new LRUCache<string, Moment[]>({ max: MAX_KEYS });

  function moments(key: string, { windowMs }: Rate, now: number): Moment[] {
    const known = keys.get(key) ?? [];
    while (known[0] && known[0].until + windowMs <= now) known.shift();
    return known;
  }
  function waitIn(known: readonly Moment[], { limit, windowMs }: Rate, now: number): number {
    let excess = known.reduce((sum, { count }) => sum + count, 0) - limit;
    for (const { until, count } of known) {
      if (excess < 0) break;
      excess -= count;
      if (excess < 0) return until + windowMs - now;
    }
    return 0;
  }
  return {
    async wait(key, rate) {
      const now = clock.elapsed();
      return waitIn(moments(key, rate, now), rate, now);
    },
    async hit(key, rate) {
      const now = clock.elapsed();
      const known = moments(key, rate, now);
      const wait = waitIn(known, rate, now);
      if (wait > 0) return wait;
      const last = known.at(-1);
      if (last && now - last.from < rate.windowMs / MOMENTS_PER_WINDOW) {
        last.until = now;
        last.count++;
      } else known.push({ from: now, until: now, count: 1 });
      keys.set(key, known);
      return 0;
    },
  };
}
