import { codeOf } from "../config/errors.ts";
import { redactText } from "../config/log.ts";
import { inSpan } from "../config/trace.ts";
import { type Claim, type JobPayloads, pauseAfterFailure, QUEUES, type QueueName } from "../db/jobs.ts";
import type { Ending, JobError } from "../db/queries/jobs.ts";
import { type Handler, PermanentFailure, RetryLater, type WorkerDeps } from "./job.ts";

/** Why a run is not waited for any longer. "silent": the database could not be told for so long that another may have it. */
export type Interruption = "deadline" | "taken_away" | "silent" | "given_back";

/** The reason that the signal of an interrupted job carries. */
export class Interrupted extends Error {
  constructor(readonly why: Interruption) {
    super(`The run of this job is over: ${why}`);
    this.name = "Interrupted";
  }
}

/** For this long after it was made a job can be put off without using up a try (milliseconds). */
const PATIENCE_MS = 36 * 3_600_000;
const MAX_REASON = 300;

/** How a run went: how its claim is to end, where it is still ours, and what was thrown, as far as a log may tell. */
export interface RunResult {
  /** Undefined where it was taken away: there is nothing to end. */
  readonly ending?: Ending;
  readonly error?: unknown;
}

type Result = { readonly done: true } | { readonly done: false; readonly error: unknown };
const failed = (error: unknown): Result => ({ done: false, error });

/** Runs a job until its handler is done, or until it is interrupted, whatever the handler does then. */
export async function runJob(
  deps: WorkerDeps,
  claim: Claim,
  handler: Handler<QueueName>,
  { signal }: AbortController,
): Promise<RunResult> {
  const result = signal.aborted ? failed(signal.reason) : await handledOrInterrupted(deps, claim, handler, signal);
  if (result.done) return { ending: { outcome: "done" } };
  const { error } = result;
  if (!(error instanceof Interrupted))
    return { ending: endingAfter(deps, claim, error), error: loggable(claim, error) };
  switch (error.why) {
    case "deadline":
      return { ending: endingAfter(deps, claim, error, "JOB_DEADLINE") };
    case "taken_away":
      return {};
    case "silent":
    case "given_back":
      return { ending: { outcome: "given_back" } };
  }
}

/** The message of an error may have what the job carries in it; where that is secret, only its names are told. */
function loggable({ row }: Claim, error: unknown): unknown {
  if (row.sealed === undefined) return error;
  return { name: error instanceof Error ? error.name : typeof error, code: errorCode(error) };
}

function handledOrInterrupted(
  deps: WorkerDeps,
  claim: Claim,
  handler: Handler<QueueName>,
  signal: AbortSignal,
): Promise<Result> {
  const interrupted = new Promise<Result>((resolve) => {
    signal.addEventListener("abort", () => resolve(failed(signal.reason)), { once: true });
  });
  const handled = handle(deps, claim, handler, signal).then(
    (): Result => ({ done: true }),
    (error) => failed(signal.aborted ? signal.reason : error),
  );
  return Promise.race([interrupted, handled]);
}

/** In a function of its own, so that what a handler throws at once is as if it had thrown later. */
async function handle(deps: WorkerDeps, claim: Claim, handler: Handler<QueueName>, signal: AbortSignal): Promise<void> {
  const data: JobPayloads[QueueName] = deps.jobs.open(claim);
  const job = { id: claim.id, data, attempt: claim.claimedBefore + 1, createdAt: claim.createdAt, signal };
  const span = { kind: "consumer", attributes: { "messaging.message.id": claim.id }, causedBy: claim.trace } as const;
  await inSpan(`job ${claim.queue}`, span, () => handler(deps, job));
}

function endingAfter(deps: WorkerDeps, claim: Claim, error: unknown, code = errorCode(error)): Ending {
  const { deaths } = claim;
  const failed: JobError = { code, reason: reasonOf(error), deaths };
  if (error instanceof PermanentFailure) return { outcome: "dead", error: failed };
  const nth = Math.max(1, claim.claimedBefore - (claim.retryLimit - QUEUES[claim.queue].retries) + 1);
  const pause = pauseAfterFailure(claim.queue, nth, chanceOf(deps));
  const age = deps.clock.now().getTime() - claim.createdAt.getTime();
  if (error instanceof RetryLater && age < PATIENCE_MS) {
    return { outcome: "retry", afterMs: error.afterMs ?? pause, usesTry: false, error: failed };
  }
  if (claim.claimedBefore >= claim.retryLimit) return { outcome: "dead", error: failed };
  return { outcome: "retry", afterMs: pause, usesTry: true, error: failed };
}

/** A number from 0 to 1. */
const chanceOf = ({ random }: Pick<WorkerDeps, "random">) => (random.bytes(1)[0] ?? 0) / 255;

/** What an error is called, where it has a name for programs; its message may tell anything, and is kept nowhere. */
function errorCode(error: unknown): string {
  if (error instanceof PermanentFailure) return "PERMANENT_FAILURE";
  if (error instanceof RetryLater) return "RETRY_LATER";
  const code = (error as { errorCode?: unknown } | null)?.errorCode ?? codeOf(error);
  return typeof code === "string" && /^[A-Z][A-Z0-9_]{1,39}$/.test(code) ? code : "JOB_FAILED";
}

function reasonOf(error: unknown): string | null {
  if (!(error instanceof PermanentFailure || error instanceof RetryLater)) return null;
  return error.reason === undefined ? null : redactText(error.reason).slice(0, MAX_REASON);
}
