import { availableParallelism } from "node:os";
import { BulkheadRejectedError, bulkhead, TaskCancelledError, TimeoutStrategy, timeout, wrap } from "cockatiel";
import type { Settings } from "../../../config/schema.ts";
import { unavailable } from "../../errors.ts";

/** Runs password hashes: so many at a time, so many waiting, and none of them longer than its deadline. */
export interface HashPool {
  /**
   * @throws AppError SERVICE_UNAVAILABLE with Retry-After where the queue is full or the deadline has passed; work that
   * still waits then is never begun
   */
  run<T>(work: () => Promise<T>): Promise<T>;
}

export function createHashPool(settings: Settings["password"]): HashPool {
  const slots = settings.hash_slots || availableParallelism();
  const queue = bulkhead(slots, settings.hash_queue);
  const policy = wrap(timeout(settings.hash_timeout, TimeoutStrategy.Aggressive), queue);
  return {
    async run(work) {
      try {
        return await policy.execute(({ signal }) => {
          if (signal.aborted) throw new TaskCancelledError();
          return work();
        });
      } catch (error) {
        if (error instanceof BulkheadRejectedError) throw unavailable("The hash queue is full", error);
        if (error instanceof TaskCancelledError) throw unavailable("A hash missed its deadline", error, 2);
        throw error;
      }
    },
  };
}
