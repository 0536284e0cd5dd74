import type { Log } from "../config/log.ts";
import type { Database } from "../db/database.ts";
import { superviseJobs } from "../db/jobs.ts";

/** How often the queue is looked after (milliseconds). */
const SUPERVISE_EVERY_MS = 60_000;

export interface WorkerDeps {
  readonly db: Database;
  readonly log: Log;
}

export interface Worker {
  /** Lets what is under way finish. */
  stop(): Promise<void>;
}

/**
 * Background work, any number of workers on one database: looks after the queue at once and then every minute, so that a
 * job whose worker has died is tried again and finished ones are removed in time. What fails is tried again.
 */
export function startWorker({ db, log }: WorkerDeps): Worker {
  let underWay: Promise<void> | undefined;
  function supervise(): void {
    underWay ??= superviseJobs(db)
      .catch((error) => log.warn("The job queue could not be looked after", { event: "jobs.unsupervised", error }))
      .finally(() => {
        underWay = undefined;
      });
  }
  supervise();
  const timer = setInterval(supervise, SUPERVISE_EVERY_MS);
  return {
    async stop() {
      clearInterval(timer);
      await underWay;
    },
  };
}
