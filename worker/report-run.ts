import type { Claim } from "../db/jobs.ts";
import type { Ending } from "../db/queries/jobs.ts";
import type { WorkerDeps } from "./job.ts";
import type { RunResult } from "./run-job.ts";

const SAYINGS: Readonly<Record<Ending["outcome"] | "lost", readonly ["info" | "warn" | "error", string]>> = {
  done: ["info", "A job is done"],
  given_back: ["info", "A job was given back, for another process"],
  retry: ["warn", "A job failed and will be tried again"],
  dead: ["error", "A job failed for good; `primer jobs retry` tries it again"],
  lost: ["warn", "A job was taken away from this process, which was too slow to say that it runs"],
};

/** Says how a run ended, to the log and the metrics: never what the job carries. */
export function reportRun(
  { log, metrics }: Pick<WorkerDeps, "log" | "metrics">,
  { queue, id, claimedBefore, row }: Claim,
  { ending, error }: RunResult,
  durationMs: number,
): void {
  const outcome = ending?.outcome ?? "lost";
  metrics.record("primer_job_duration_seconds", durationMs / 1000, { queue, outcome });
  const [level, saying] = SAYINGS[outcome];
  log[level](saying, {
    event: `job.${outcome}`,
    job_id: id,
    queue,
    attempt: claimedBefore + 1,
    duration_ms: Math.round(durationMs),
    request_id: row.request_id ?? null,
    ...(ending && "error" in ending ? { code: ending.error.code, reason: ending.error.reason } : {}),
    ...(ending?.outcome === "retry" ? { after_ms: Math.round(ending.afterMs) } : {}),
    ...(error === undefined ? {} : { error }),
  });
}
