import { availableParallelism } from "node:os";
import { BulkheadRejectedError, bulkhead, TaskCancelledError, TimeoutStrategy, timeout, wrap } from "cockatiel";
import type { Settings } from "../../../config/schema.ts";
import { unavailable } from "../../errors.ts";
import type { Clock } from "../../ports/clock.ts";
import { createAdmission } from "./admission.ts";
import { stopwatch } from "./stopwatch.ts";

/** Runs password hashes: so many at a time, so many waiting, and none of them longer than its deadline. */
export interface HashPool {
  /**
   * Runs the whole of what a hash is needed for, with all that it asks of the database before and after. Only as many are
   * under way as keep the slots busy: under a flood the others get neither a connection nor a processor's time, which are
   * for whoever needs no hash. They wait, or where their turn would come too late are refused at once.
   *
   * @throws AppError SERVICE_UNAVAILABLE with Retry-After; then the work was not begun
   */
  admit<T>(work: () => Promise<T>): Promise<T>;
  /**
   * Runs one hash.
   *
   * @throws AppError SERVICE_UNAVAILABLE with Retry-After where the queue is full, its turn would come too late, or the
   * deadline has passed; work that still waits then is never begun
   */
  run<T>(work: () => Promise<T>): Promise<T>;
  /** How long the slowest hash of the last hour took (milliseconds), its wait not counted. */
  slowestMs(): number;
}

/**
 * So many are admitted for each slot: beside its hash, each waits for the database and for a signature. More at a time
 * bring no more through, and slow everybody else down.
 */
const ADMITTED_PER_SLOT = 4;
/** What share of the deadline a queue may take: if it took all of it, each turn would come just too late to be of use. */
const QUEUE_SHARE = 0.5;
const FULL = "The hash queue is full";

export function createHashPool(settings: Settings["password"], clock: Pick<Clock, "elapsed">): HashPool {
  const slots = settings.hash_slots || availableParallelism();
  const queue = bulkhead(slots, settings.hash_queue);
  const policy = wrap(timeout(settings.hash_timeout, TimeoutStrategy.Aggressive), queue);
  const hashes = stopwatch(clock);
  const longestQueueMs = settings.hash_timeout * QUEUE_SHARE;
  const admission = createAdmission(
    {
      atATime: Math.min(slots * ADMITTED_PER_SLOT, slots + settings.hash_queue),
      longestLineMs: longestQueueMs,
      deadlineMs: settings.hash_timeout,
      refusal: () => unavailable(FULL),
    },
    clock,
  );
  return {
    admit: admission.run,
    slowestMs: hashes.slowestMs,
    async run(work) {
      const waiting = settings.hash_queue - queue.queueSlots;
      if ((waiting / slots) * hashes.usualMs() > longestQueueMs) throw unavailable(FULL);
      try {
        return await policy.execute(({ signal }) => {
          if (signal.aborted) throw new TaskCancelledError();
          return hashes.time(work);
        });
      } catch (error) {
        if (error instanceof BulkheadRejectedError) throw unavailable(FULL, error);
        if (error instanceof TaskCancelledError) throw unavailable("A hash missed its deadline", error, 2);
        throw error;
      }
    },
  };
}
