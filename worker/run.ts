import { isConnectionError } from "../db/errors.ts";
import { type Claim, JOB_DEADLINE_MS, type QueueName } from "../db/jobs.ts";
import { type Ending, endClaim, findDueQueues } from "../db/queries/jobs.ts";
import type { Handler, Handlers, WorkerDeps } from "./job.ts";
import { keepJobs } from "./keep-jobs.ts";
import { reportRun } from "./report-run.ts";
import { Interrupted, runJob } from "./run-job.ts";

export const DEFAULT_CONCURRENCY = 4;

/** How often a worker does what (milliseconds). */
export interface Pace {
  /** Looks for jobs that are due: one statement that finds nothing, while it is idle. */
  readonly poll: number;
  /** Says that its jobs are still being run, and looks for those of dead processes. */
  readonly beat: number;
  /** A process that has not said so for this long is taken for dead. */
  readonly silence: number;
  /** Has the library look after its tables. */
  readonly supervise: number;
  /** The longest that a job runs. */
  readonly deadline: number;
}

/** A job of a process that died is taken up again after 40 seconds at most, and half a second until it is seen. */
const PACE: Pace = { poll: 500, beat: 10_000, silence: 30_000, supervise: 60_000, deadline: JOB_DEADLINE_MS };
/** What could not be said to the database is said again after this long (milliseconds). */
const AGAIN_MS = 1000;
/** Of the time that stopping may take, this much is kept for giving jobs back (milliseconds). */
const GIVE_BACK_MS = 1000;

export interface WorkerOptions {
  /** What does the work of each queue; jobs of other queues are left alone. */
  readonly handlers?: Handlers;
  /** Jobs that run at the same time, of all queues together. */
  readonly concurrency?: number;
  readonly pace?: Partial<Pace>;
}

export interface Worker {
  /**
   * Takes no further jobs, lets those under way finish, and gives back those that do not within
   * `server.stop_timeout`. Never waits longer than that.
   */
  stop(): Promise<void>;
}

/** A job that runs here. */
export interface Running {
  readonly claim: Claim;
  readonly control: AbortController;
  /** When the database last knew that it runs here, on the clock of performance.now(). */
  heardAt: number;
  finished: Promise<void>;
}

/**
 * Background work, any number of workers on one database. Each claims jobs of the queues that it has handlers for and
 * leaves all others alone. Whatever a handler does, its job ends within the deadline, and a process that dies gives its
 * jobs to the others.
 */
export function startWorker(deps: WorkerDeps, options: WorkerOptions = {}): Worker {
  const { handlers = {}, concurrency = DEFAULT_CONCURRENCY } = options;
  const pace = { ...PACE, ...options.pace };
  const queues = Object.keys(handlers) as QueueName[];
  const running = new Map<string, Running>();
  let stopping = false;
  let abandoned = false;
  let turn = 0;
  let wake = () => {};

  const free = () => concurrency - running.size;
  const runsSuspect = () => running.values().some(({ claim }) => claim.isSuspect);

  async function claimDue(): Promise<boolean> {
    let claimed = 0;
    const take = (claims: Claim[]) => {
      claimed += claims.length;
      for (const claim of claims) begin(claim);
    };
    const due = await findDueQueues(deps.db.orm, queues);
    const first = turn++ % Math.max(1, due.length); // each queue is the first one to be asked now and then
    for (const { queue, suspects, others } of [...due.slice(first), ...due.slice(0, first)]) {
      if (suspects && free() > 0 && !runsSuspect()) take(await deps.jobs.claim(queue, { limit: 1, suspects: true }));
      if (others && free() > 0) take(await deps.jobs.claim(queue, { limit: free(), suspects: false }));
    }
    return claimed > 0;
  }

  function begin(claim: Claim): void {
    const control = new AbortController();
    const job: Running = { claim, control, heardAt: performance.now(), finished: Promise.resolve() };
    running.set(claim.id, job);
    if (stopping) control.abort(new Interrupted("given_back")); // it was claimed in the last moment
    job.finished = run(job)
      .catch((error) => deps.log.error("A job could not be ended", { event: "job.not_ended", job_id: claim.id, error }))
      .finally(() => {
        running.delete(claim.id);
        wake();
      });
  }

  async function run({ claim, control }: Running): Promise<void> {
    const began = performance.now();
    const timer = setTimeout(() => control.abort(new Interrupted("deadline")), pace.deadline);
    const result = await runJob(deps, claim, handlers[claim.queue] as Handler<QueueName>, control);
    clearTimeout(timer);
    const durationMs = performance.now() - began;
    const counted = result.ending !== undefined && (await end(claim, result.ending));
    reportRun(deps, claim, counted ? result : {}, durationMs);
  }

  /** Until the database has taken note of it: a mail that was sent must not be sent again. */
  async function end(claim: Claim, ending: Ending): Promise<boolean> {
    for (let unsure = false; ; unsure = true) {
      try {
        return (await endClaim(deps.db.orm, claim, ending)) || unsure; // it may have ended before its answer was lost
      } catch (error) {
        if (abandoned || !isConnectionError(error)) throw error;
        await Bun.sleep(AGAIN_MS);
      }
    }
  }

  async function work(): Promise<void> {
    let fails = false;
    while (!stopping) {
      let more = false;
      try {
        if (free() > 0 && queues.length > 0) more = await claimDue();
        if (fails) deps.log.info("Jobs are claimed again", { event: "jobs.claimed" });
        fails = false;
      } catch (error) {
        if (!fails) deps.log.warn("No jobs can be claimed now", { event: "jobs.not_claimed", error });
        fails = true;
      }
      if (!more && !stopping) await woken(pace.poll);
    }
  }

  /** Waits for so long, or until a job has ended. */
  async function woken(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    wake = resolve;
    await promise;
    clearTimeout(timer);
  }

  const keeper = keepJobs(deps, { queues, pace, running });
  const worked = work();

  async function allEnded(): Promise<void> {
    await worked;
    await Promise.all([keeper.stopped, ...running.values().map(({ finished }) => finished)]);
  }

  async function stop(): Promise<void> {
    stopping = true;
    wake();
    keeper.stop();
    const patience = deps.settings.server.stop_timeout;
    const reserve = Math.min(GIVE_BACK_MS, patience / 4);
    const ended = allEnded();
    if (!(await within(ended, patience - reserve))) {
      for (const { control } of running.values()) control.abort(new Interrupted("given_back"));
      await within(ended, reserve);
    }
    abandoned = true;
    keeper.end();
  }

  let stopped: Promise<void> | undefined;
  return {
    stop() {
      stopped ??= stop();
      return stopped;
    },
  };
}

/** Whether something has ended within a time. */
async function within(work: Promise<void>, ms: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), ms);
  const ended = await Promise.race([work.then(() => true), promise]);
  clearTimeout(timer);
  return ended;
}
