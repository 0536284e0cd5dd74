import type { JobPayloads, QueueName } from "../db/jobs.ts";
import type { Deps } from "../server/deps.ts";

/** What handlers of jobs work with: the same as services. */
export type WorkerDeps = Deps;

/** One run of a job. */
export interface Job<Q extends QueueName> {
  readonly id: string;
  /** As it was enqueued; its secrets are opened. */
  readonly data: JobPayloads[Q];
  /** 1 at the first run. A job runs at least once: a second run may follow one whose process died at its very end. */
  readonly attempt: number;
  readonly createdAt: Date;
  /** Aborted when the job's time is up, or it was given to another process: whatever comes then does not count. */
  readonly signal: AbortSignal;
}

/** Does the work of a job. What it throws says how the job goes on; anything but the two errors below: tried again later. */
export type Handler<Q extends QueueName> = (deps: WorkerDeps, job: Job<Q>) => Promise<void>;

/** What does the work of each queue. A queue that is not in it is left alone. */
export type Handlers = { readonly [Q in QueueName]?: Handler<Q> };

/** Thrown by a handler where no further try will help: the job is dead at once. */
export class PermanentFailure extends Error {
  /** @param reason why, for operators; without secrets */
  constructor(readonly reason: string) {
    super(reason);
    this.name = "PermanentFailure";
  }
}

/**
 * Thrown by a handler where it is not the job's fault, such as a server that is known to be away: tried again without
 * using up a try, until the job is a day and a half old.
 */
export class RetryLater extends Error {
  /**
   * @param afterMs when; as after any failure where it is not said
   * @param reason why, for operators; without secrets
   */
  constructor(
    readonly afterMs?: number,
    readonly reason?: string,
  ) {
    super(reason ?? "Not now");
    this.name = "RetryLater";
  }
}
