import { availableParallelism } from "node:os";
import { BulkheadRejectedError, bulkhead, TaskCancelledError, TimeoutStrategy, timeout, wrap } from "cockatiel";
import type { Settings } from "../../../config/schema.ts";
import { unavailable } from "../../errors.ts";
import type { Clock } from "../../ports/clock.ts";

/** Runs password hashes: so many at a time, so many waiting, and none of them longer than its deadline. */
export interface HashPool {
  /**
   * @throws AppError SERVICE_UNAVAILABLE with Retry-After where the queue is full or the deadline has passed; work that
   * still waits then is never begun
   */
  run<T>(work: () => Promise<T>): Promise<T>;
  /** How long the slowest hash of the last hour took (milliseconds), its wait not counted. */
  slowestMs(): number;
}

const SLOWEST_KEPT_MS = 3_600_000;

export function createHashPool(settings: Settings["password"], clock: Pick<Clock, "elapsed">): HashPool {
  const slots = settings.hash_slots || availableParallelism();
  const queue = bulkhead(slots, settings.hash_queue);
  const policy = wrap(timeout(settings.hash_timeout, TimeoutStrategy.Aggressive), queue);
  let slowest = { ms: 0, at: 0 };
  const timed = async <T>(work: () => Promise<T>): Promise<T> => {
    const started = clock.elapsed();
    try {
      return await work();
    } finally {
      const ended = clock.elapsed();
      const expired = ended - slowest.at > SLOWEST_KEPT_MS;
      if (expired || ended - started > slowest.ms) slowest = { ms: ended - started, at: ended };
    }
  };
  return {
    slowestMs: () => slowest.ms,
    async run(work) {
      try {
        return await policy.execute(({ signal }) => {
          if (signal.aborted) throw new TaskCancelledError();
          return timed(work);
        });
      } catch (error) {
        if (error instanceof BulkheadRejectedError) throw unavailable("The hash queue is full", error);
        if (error instanceof TaskCancelledError) throw unavailable("A hash missed its deadline", error, 2);
        throw error;
      }
    },
  };
}
