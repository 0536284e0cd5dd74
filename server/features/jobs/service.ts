import type { Metrics } from "../../../config/meter.ts";
import type { Database, Tx } from "../../../db/database.ts";
import { withinDeadline } from "../../../db/deadline.ts";
import { QUEUES, type QueueName } from "../../../db/jobs.ts";
import {
  countUnfinishedJobs,
  deleteJobs,
  findJob,
  JOB_STATES,
  type JobFilter,
  type JobRow,
  type JobState,
  killJob,
  listJobs,
  lockJob,
  lockJobs,
  reviveJob,
  stateOf,
} from "../../../db/queries/jobs.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { type Page, type PageAsked, pageOf, rowsAsked } from "../../page.ts";
import { isId } from "../../ports/random.ts";
import { type AuditAction, audit } from "../audit/service.ts";
import type { Actor } from "../users/service.ts";

export type { JobFilter, JobState };
export const JOB_STATE_NAMES = Object.keys(JOB_STATES) as JobState[];

export type JobDeps = Pick<Deps, "db" | "clock" | "random">;

/** A job as people see it: what it is about, never what it carries besides. */
export interface JobView {
  readonly id: string;
  readonly queue: string;
  readonly state: JobState;
  /** How many times it was begun. */
  readonly attempts: number;
  /** After so many at most it is given up. */
  readonly max_attempts: number;
  readonly created_at: string;
  /** When it is due; of a waiting one. */
  readonly due_at: string | null;
  readonly started_at: string | null;
  readonly finished_at: string | null;
  /** Of a mail. */
  readonly template: string | null;
  readonly user_id: string | null;
  readonly request_id: string | null;
  readonly last_error: { readonly code: string; readonly reason: string | null } | null;
}

const iso = (date: Date | null) => date?.toISOString() ?? null;
const text = (value: unknown) => (typeof value === "string" ? value : null);

function viewOf(row: JobRow): JobView {
  const state = stateOf(row);
  const { template, user_id, request_id } = row.data ?? {};
  return {
    id: row.id,
    queue: row.name,
    state,
    attempts: row.retryCount + (row.startedOn ? 1 : 0),
    max_attempts: row.retryLimit + 1,
    created_at: row.createdOn.toISOString(),
    due_at: state === "waiting" ? iso(row.startAfter) : null,
    started_at: iso(row.startedOn),
    finished_at: iso(row.completedOn),
    template: text(template),
    user_id: text(user_id),
    request_id: text(request_id),
    // What has no code was ended by the library, which knows one reason only.
    last_error: row.output ? { code: row.output.code ?? "JOB_TIMED_OUT", reason: row.output.reason ?? null } : null,
  };
}

/** A page of jobs, the newest first. @throws AppError VALIDATION_FAILED for a cursor that is none */
export async function listJobPage(
  deps: Pick<JobDeps, "db">,
  { limit, cursor, ...filter }: JobFilter & PageAsked,
): Promise<Page<JobView>> {
  const asked = rowsAsked({ limit, ...(cursor === undefined ? {} : { cursor }) });
  const rows = await listJobs(deps.db.replica, { ...filter, ...asked });
  return pageOf(rows.map(viewOf), limit, ({ id }) => id);
}

/** @throws AppError NOT_FOUND */
export async function showJob(deps: Pick<JobDeps, "db">, id: string): Promise<JobView> {
  const row = isId(id) ? await findJob(deps.db.orm, id) : undefined;
  if (!row) throw new AppError("NOT_FOUND");
  return viewOf(row);
}

/** The secrets that it needs were erased when it ended. */
const isErased = ({ data }: JobRow) => data?.sealed === null;

const conflict = (reason: string) => new AppError("CONFLICT", { details: { field: "state", reason } });

/**
 * Makes a job due now: a dead one, with so many tries as a new one, or one that waits for its next try.
 *
 * @throws AppError NOT_FOUND, or CONFLICT: details.reason is "running", "done", or "secrets_erased" for a dead job whose
 * link or code is gone; whoever needs that has to ask for a new one
 */
export async function retryJob(deps: JobDeps, id: string, by: Actor): Promise<JobView> {
  return onJob(deps, id, "job.retried", by, async (tx, row) => {
    const state = stateOf(row);
    if (state === "running" || state === "done") throw conflict(state);
    if (isErased(row)) throw conflict("secrets_erased");
    await revive(tx, row);
  });
}

const revive = (tx: Tx, row: JobRow) => reviveJob(tx, row, QUEUES[row.name as QueueName]?.retries ?? 0);

/** Declares a waiting job dead: it is not tried any more. @throws AppError NOT_FOUND, or CONFLICT where it does not wait */
export async function giveUpJob(deps: JobDeps, id: string, by: Actor): Promise<JobView> {
  return onJob(deps, id, "job.given_up", by, async (tx, row) => {
    const state = stateOf(row);
    if (state !== "waiting") throw conflict(state);
    await killJob(tx, row.id, { code: "GIVEN_UP" });
  });
}

/** Deletes one job. @throws AppError NOT_FOUND, or CONFLICT while it runs */
export async function purgeJob(deps: JobDeps, id: string, by: Actor): Promise<void> {
  await onJob(deps, id, "job.purged", by, async (tx, row) => {
    if (stateOf(row) === "running") throw conflict("running");
    await deleteJobs(tx, [row.id]);
  });
}

async function onJob(
  deps: JobDeps,
  id: string,
  action: AuditAction,
  by: Actor,
  change: (tx: Tx, row: JobRow) => Promise<void>,
): Promise<JobView> {
  if (!isId(id)) throw new AppError("NOT_FOUND");
  return deps.db.transaction(async (tx) => {
    const row = await lockJob(tx, id);
    if (!row) throw new AppError("NOT_FOUND");
    await change(tx, row);
    const subject = { kind: "job", id };
    await audit(tx, deps, { action, outcome: "success", subject, details: { queue: row.name }, ...by });
    return viewOf((await findJob(tx, id)) ?? row);
  });
}

/** So many are changed in one transaction: nothing else waits long for it. */
const BATCH = 500;

/** Makes every dead job due now, of one queue or of all, but for those whose secrets are gone. @returns how many */
export async function retryDeadJobs(deps: JobDeps, queue: string | undefined, by: Actor): Promise<number> {
  return inBatches(
    deps,
    "job.retried",
    { state: "dead", ...(queue === undefined ? {} : { queue }) },
    by,
    async (tx, rows) => {
      for (const row of rows) await revive(tx, row);
    },
  );
}

/** Deletes every job that is done, or dead, or either. @returns how many */
export async function purgeJobs(
  deps: JobDeps,
  which: { queue?: string; states: readonly ("done" | "dead")[] },
  by: Actor,
): Promise<number> {
  const { queue, states } = which;
  let count = 0;
  for (const state of states) {
    const filter = { state, ...(queue === undefined ? {} : { queue }) };
    count += await inBatches(deps, "job.purged", filter, by, (tx, rows) =>
      deleteJobs(
        tx,
        rows.map(({ id }) => id),
      ),
    );
  }
  return count;
}

async function inBatches(
  deps: JobDeps,
  action: "job.retried" | "job.purged",
  filter: JobFilter,
  by: Actor,
  change: (tx: Tx, rows: JobRow[]) => Promise<unknown>,
): Promise<number> {
  let total = 0;
  for (;;) {
    const count = await deps.db.transaction(async (tx) => {
      const rows = await lockJobs(tx, { ...filter, erased: action === "job.purged" }, BATCH);
      if (rows.length === 0) return 0;
      await change(tx, rows);
      await audit(tx, deps, { action, outcome: "success", details: { ...filter, jobs: rows.length }, ...by });
      return rows.length;
    });
    total += count;
    if (count === 0) return total;
  }
}

/** How long a reader of metrics waits for the database (milliseconds). */
const MEASURE_WITHIN_MS = 1000;
const UNFINISHED = ["waiting", "running", "dead"] as const;

/** Shows how many jobs of each queue there are, and how old the oldest of them is, to whoever reads the metrics. */
export function measureJobs({ db, metrics }: { readonly db: Database; readonly metrics: Metrics }): void {
  const standing = async () => {
    const rows = await withinDeadline(countUnfinishedJobs(db.replica), MEASURE_WITHIN_MS);
    return (Object.keys(QUEUES) as QueueName[]).flatMap((queue) =>
      UNFINISHED.map((state) => {
        const own = rows.filter((row) => row.queue === queue && stateOf(row) === state);
        const count = own.reduce((sum, row) => sum + row.count, 0);
        return { labels: { queue, state }, count, age: Math.max(0, ...own.map(({ ageSeconds }) => ageSeconds)) };
      }),
    );
  };
  metrics.observe("primer_jobs", async () => (await standing()).map(({ labels, count }) => ({ labels, value: count })));
  metrics.observe("primer_jobs_oldest_age_seconds", async () =>
    (await standing()).map(({ labels, age }) => ({ labels, value: age })),
  );
}
