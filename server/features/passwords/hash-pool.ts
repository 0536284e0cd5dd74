import { availableParallelism } from "node:os";
import { BulkheadRejectedError, bulkhead, TaskCancelledError, TimeoutStrategy, timeout, wrap } from "cockatiel";
import type { Metrics } from "../../../config/meter.ts";
import type { Settings } from "../../../config/schema.ts";
import { inSpan } from "../../../config/trace.ts";
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
  /** How many hashes run and how many wait, and how many of each there may be. */
  use(): HashUse;
}

export interface HashUse {
  readonly running: number;
  readonly waiting: number;
  readonly slots: number;
  readonly queue_limit: number;
}

const UNCOUNTED: Pick<Metrics, "count" | "record"> = { count() {}, record() {} };

/**
 * So many are admitted for each slot: beside its hash, each waits for the database and for a signature. More at a time
 * bring no more through, and slow everybody else down.
 */
const ADMITTED_PER_SLOT = 4;
/** What share of the deadline a queue may take: if it took all of it, each turn would come just too late to be of use. */
const QUEUE_SHARE = 0.5;
const FULL = "The hash queue is full";

export function createHashPool(
  settings: Settings["password"],
  clock: Pick<Clock, "elapsed">,
  metrics: Pick<Metrics, "count" | "record"> = UNCOUNTED,
): HashPool {
  const slots = settings.hash_slots || availableParallelism();
  const queue = bulkhead(slots, settings.hash_queue);
  const policy = wrap(timeout(settings.hash_timeout, TimeoutStrategy.Aggressive), queue);
  const hashes = stopwatch(clock);
  const longestQueueMs = settings.hash_timeout * QUEUE_SHARE;
  const full = (cause?: unknown) => {
    metrics.count("primer_hashes_refused_total", {});
    return unavailable(FULL, cause);
  };
  const waitedIn = (line: "admission" | "slot") => (ms: number) =>
    metrics.record("primer_hash_wait_seconds", ms / 1000, { line });
  const timed = async <T>(work: () => Promise<T>) => {
    const began = clock.elapsed();
    const result = await inSpan("password.hash", {}, () => hashes.time(work));
    metrics.record("primer_request_stage_duration_seconds", (clock.elapsed() - began) / 1000, { stage: "hash" });
    return result;
  };
  const admission = createAdmission(
    {
      atATime: Math.min(slots * ADMITTED_PER_SLOT, slots + settings.hash_queue),
      longestLineMs: longestQueueMs,
      deadlineMs: settings.hash_timeout,
      refusal: full,
    },
    clock,
  );
  return {
    admit: (work) => admission.run(work, waitedIn("admission")),
    slowestMs: hashes.slowestMs,
    use: () => ({
      running: slots - queue.executionSlots,
      waiting: admission.waiting() + settings.hash_queue - queue.queueSlots,
      slots,
      queue_limit: settings.hash_queue,
    }),
    async run(work) {
      const waiting = settings.hash_queue - queue.queueSlots;
      if ((waiting / slots) * hashes.usualMs() > longestQueueMs) throw full();
      const came = clock.elapsed();
      try {
        return await policy.execute(({ signal }) => {
          if (signal.aborted) throw new TaskCancelledError();
          waitedIn("slot")(clock.elapsed() - came);
          return timed(work);
        });
      } catch (error) {
        if (error instanceof BulkheadRejectedError) throw full(error);
        if (error instanceof TaskCancelledError) {
          metrics.count("primer_hashes_refused_total", {});
          throw unavailable("A hash missed its deadline", error, 2);
        }
        throw error;
      }
    },
  };
}
