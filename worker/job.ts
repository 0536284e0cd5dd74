import type { JobPayloads, QueueName } from "../db/jobs.ts";

/** A job as its handler gets it, with what was sealed opened. */
export interface Job<Q extends QueueName = QueueName> {
  readonly id: string;
  readonly data: JobPayloads[Q];
  /** The first is 1. */
  readonly attempt: number;
  readonly createdAt: Date;
  /** Aborted when the job has to end: its time is over, or the worker stops. */
  readonly signal: AbortSignal;
}

/** What a handler throws where no further attempt would help: the job is dead at once. */
export class PermanentFailure extends Error {
  constructor(
    readonly reason: string,
    options?: ErrorOptions,
  ) {
    super(reason, options);
    this.name = "PermanentFailure";
  }
}
