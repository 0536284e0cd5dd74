import { LRUCache } from "lru-cache";
import type { Rate } from "../../config/kinds.ts";
import type { Clock } from "./clock.ts";

/** One thing that is limited: whose, and to how many in any window. */
export interface Check {
  /** The limit's name, a colon, and whose share of it. */
  readonly key: string;
  readonly rate: Rate;
}

/** How a check stands. Times in milliseconds. */
export interface Room {
  readonly remaining: number;
  /** Until one more is within the rate; 0 where it is now. */
  readonly waitMs: number;
  /** Until everything counted has left the window. */
  readonly resetMs: number;
}

/** Counts in sliding windows: at most `rate.limit` in any `rate.windowMs`. */
export interface Limiter {
  /** Counts one under every key if all of them have room, in one step; else counts nothing. Answers each as it is then. */
  take(checks: readonly Check[]): Promise<Room[]>;
  /** The same, counting nothing. */
  look(checks: readonly Check[]): Promise<Room[]>;
}

/** Beyond this many keys of one limit the one that was used longest ago is forgotten: no limit pushes another one's out. */
const MAX_KEYS = 50_000;
/** What happens within this share of a window counts as one moment, the last: so a key takes little room at any rate. */
export const MOMENTS_PER_WINDOW = 64;

interface Moment {
  readonly from: number;
  until: number;
  count: number;
}

/**
 * For one process by itself.
 *
 * @param processes how many processes serve now: each admits its part of a limit, so that together they keep to it
 */
export function createMemoryLimiter(clock: Pick<Clock, "elapsed">, processes: () => number = () => 1): Limiter {
  const limits = new Map<string, LRUCache<string, Moment[]>>();
  const shareOf = ({ limit }: Rate) => Math.max(1, Math.floor(limit / processes()));

  /** A key begins with the name of its limit, of which there are few. */
  function keysOf(key: string): LRUCache<string, Moment[]> {
    const name = key.slice(0, key.indexOf(":"));
    const known = limits.get(name) ?? new LRUCache<string, Moment[]>({ max: MAX_KEYS });
    limits.set(name, known);
    return known;
  }

  function moments({ key, rate }: Check, now: number): Moment[] {
    const known = keysOf(key).get(key) ?? [];
    while (known[0] && known[0].until + rate.windowMs <= now) known.shift();
    return known;
  }

  function roomIn(known: readonly Moment[], rate: Rate, now: number): Room {
    const limit = shareOf(rate);
    const used = known.reduce((sum, { count }) => sum + count, 0);
    const last = known.at(-1);
    const resetMs = last ? last.until + rate.windowMs - now : 0;
    return { remaining: Math.max(0, limit - used), waitMs: waitIn(known, used - limit, rate, now), resetMs };
  }

  function add({ key, rate }: Check, known: Moment[], now: number): void {
    const last = known.at(-1);
    if (last && now - last.from < rate.windowMs / MOMENTS_PER_WINDOW) {
      last.until = now;
      last.count++;
    } else known.push({ from: now, until: now, count: 1 });
    keysOf(key).set(key, known);
  }

  function standing(checks: readonly Check[], now: number) {
    return checks.map((check) => {
      const known = moments(check, now);
      return { check, known, room: roomIn(known, check.rate, now) };
    });
  }
  return {
    async look(checks) {
      return standing(checks, clock.elapsed()).map(({ room }) => room);
    },
    async take(checks) {
      const now = clock.elapsed();
      const all = standing(checks, now);
      if (all.some(({ room }) => room.waitMs > 0)) return all.map(({ room }) => room);
      for (const { check, known } of all) add(check, known, now);
      return all.map(({ check, known }) => ({ ...roomIn(known, check.rate, now), waitMs: 0 }));
    },
  };
}

/** Until so many have left the window that one more is within the rate. */
function waitIn(known: readonly Moment[], excess: number, { windowMs }: Rate, now: number): number {
  let left = excess;
  for (const { until, count } of known) {
    if (left < 0) break;
    left -= count;
    if (left < 0) return until + windowMs - now;
  }
  return 0;
}
