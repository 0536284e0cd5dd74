import type { Clock } from "../../ports/clock.ts";

const SLOWEST_KEPT_MS = 3_600_000;
/** How much the newest counts for what is usual. */
const NEWEST_SHARE = 0.2;

/** Measures how long work takes (milliseconds): usually, as things are now; and at most, in the last hour. */
export function stopwatch(clock: Pick<Clock, "elapsed">) {
  let usual = 0;
  let slowest = { ms: 0, at: 0 };
  return {
    usualMs: () => usual,
    slowestMs: () => slowest.ms,
    async time<T>(work: () => Promise<T>): Promise<T> {
      const started = clock.elapsed();
      try {
        return await work();
      } finally {
        const ended = clock.elapsed();
        const ms = ended - started;
        usual += (ms - usual) * NEWEST_SHARE;
        if (ended - slowest.at > SLOWEST_KEPT_MS || ms > slowest.ms) slowest = { ms, at: ended };
      }
    },
  };
}
