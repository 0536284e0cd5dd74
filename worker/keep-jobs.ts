import { type QueueName, superviseJobs } from "../db/jobs.ts";
import { recoverJobs, updateHeartbeats } from "../db/queries/jobs.ts";
import { resealJobs } from "../server/features/keys/service.ts";
import { expireMails } from "./expire-mails.ts";
import type { WorkerDeps } from "./job.ts";
import type { Pace, Running } from "./run.ts";
import { Interrupted } from "./run-job.ts";

/** A job that so many processes died with is dead itself. */
export const MAX_DEATHS = 5;

export interface JobKeeper {
  /** Begins nothing new but heartbeats, and cuts short what is not about jobs that run here. */
  stop(): void;
  /** When everything that was cut short has ended. */
  readonly stopped: Promise<unknown>;
  /** The last job that ran here has ended: no more heartbeats. */
  end(): void;
}

interface Kept {
  readonly queues: readonly QueueName[];
  readonly pace: Pace;
  readonly running: ReadonlyMap<string, Running>;
}

/** Keeps the jobs that run here from being taken for dead, takes those of dead processes away, and tidies up. */
export function keepJobs(deps: WorkerDeps, { queues, pace, running }: Kept): JobKeeper {
  const stopping = new AbortController();

  async function beat(): Promise<void> {
    const asked = [...running.values()];
    if (asked.length > 0) {
      const at = performance.now();
      const held = await updateHeartbeats(
        deps.db.orm,
        asked.map(({ claim }) => claim),
      );
      for (const job of asked) {
        if (held.has(job.claim.id)) job.heardAt = at;
        else job.control.abort(new Interrupted("taken_away"));
      }
    }
    if (!stopping.signal.aborted && queues.length > 0) await recover();
  }

  async function recover(): Promise<void> {
    const bounds = { silentMs: pace.silence, maxDeaths: MAX_DEATHS };
    for (const { id, queue, dead } of await recoverJobs(deps.db.orm, queues, bounds)) {
      const fields = { event: dead ? "job.dead" : "job.recovered", job_id: id, queue, code: "WORKER_DIED" };
      if (dead) deps.log.error(`A job is given up: ${MAX_DEATHS} processes have died while they ran it`, fields);
      else deps.log.warn("A process died while it ran a job, which will be run again", fields);
    }
  }

  /** Another process takes a job away once nothing was heard of it for long enough, so here it is over by then. */
  function interruptSilent(): void {
    for (const { heardAt, control } of running.values()) {
      if (performance.now() - heardAt >= pace.silence) control.abort(new Interrupted("silent"));
    }
  }

  async function tidy(): Promise<void> {
    await superviseJobs(deps.db, stopping.signal);
    if (!stopping.signal.aborted) await resealJobs(deps);
    if (!stopping.signal.aborted) await expireMails(deps, stopping.signal);
  }

  const beats = every(pace.beat, beat, (error) => {
    deps.log.debug("No heartbeat", { event: "jobs.no_heartbeat", error });
    interruptSilent();
  });
  const tidying = every(pace.supervise, tidy, (error) => {
    if (stopping.signal.aborted) return;
    deps.log.warn("The job queue could not be looked after", { event: "jobs.unsupervised", error });
  });
  tidying.now();
  return {
    stop() {
      tidying.stop();
      stopping.abort();
    },
    get stopped() {
      return tidying.underWay();
    },
    end: beats.stop,
  };
}

/** Does something again and again, never twice at a time. */
function every(ms: number, work: () => Promise<void>, failed: (error: unknown) => void) {
  let underWay: Promise<void> | undefined;
  const now = () => {
    underWay ??= work()
      .catch(failed)
      .finally(() => {
        underWay = undefined;
      });
  };
  const timer = setInterval(now, ms);
  return { now, stop: () => clearInterval(timer), underWay: () => Promise.resolve(underWay) };
}
