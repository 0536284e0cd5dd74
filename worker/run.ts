import type { Log } from "../config/log.ts";
import type { Database } from "../db/database.ts";
import { superviseJobs } from "../db/jobs.ts";

export interface WorkerDeps {
  readonly db: Database;
  readonly log: Log;
}

export interface Worker {
  stop(): Promise<void>;
}

/**
 * Background work, any number of workers on one database: looks after the queue, so that a job whose worker has died is
 * tried again and finished ones are removed in time.
 */
export async function startWorker({ db, log }: WorkerDeps): Promise<Worker> {
  const supervision = await superviseJobs(db, (error) =>
    log.warn("The job queue could not be looked after; it is tried again", { event: "jobs.unsupervised", error }),
  );
  return { stop: () => supervision.close() };
}
