import type { Database } from "../../../db/database.ts";
import { type JobPayloads, openJobQueue } from "../../../db/jobs.ts";
import { systemRandom } from "../../../server/ports/random.ts";
import type { Handler, Handlers } from "../../../worker/job.ts";
import { startWorker, type Worker, type WorkerOptions } from "../../../worker/run.ts";
import { newId } from "../../db/rows.ts";
import type { TestApp } from "../../support/app.ts";

export type Mail = JobPayloads["send-mail"];
export type MailHandler = Handler<"send-mail">;

/** A worker as it runs in production does everything by seconds; what is tested here is not how long they are. */
const QUICK = { poll: 10, beat: 30, supervise: 3_600_000 };

export const mail = (sealed?: Record<string, string>): Mail => ({
  template: "password_changed",
  user_id: newId(),
  request_id: null,
  ...(sealed ? { sealed } : {}),
});

export const enqueue = (app: TestApp, payload: Mail = mail()): Promise<string> =>
  app.db.transaction((tx) => app.deps.jobs.enqueue(tx, "send-mail", payload));

/** The queue of a database that other processes work on, for jobs without secrets. */
export const queueOn = (db: Database) =>
  openJobQueue(db, {
    ring: () => [{ id: "", bytes: new Uint8Array(32) }],
    bytes: systemRandom.bytes,
    id: newId,
  });

export const handling = (handler: MailHandler): Handlers => ({ "send-mail": handler });

/** Lets a worker run while `during` does. */
export async function withWorker<T>(
  app: TestApp,
  handler: MailHandler,
  during: (worker: Worker) => Promise<T>,
  options: WorkerOptions = {},
): Promise<T> {
  const worker = startWorker(app.deps, {
    handlers: handling(handler),
    ...options,
    pace: { ...QUICK, ...options.pace },
  });
  try {
    return await during(worker);
  } finally {
    await worker.stop();
  }
}

export interface StoredJob extends Record<string, unknown> {
  readonly id: string;
  readonly state: string;
  readonly data: Record<string, unknown>;
  readonly output: { code?: string; reason?: string | null; deaths?: number } | null;
  readonly priority: number;
  readonly retry_count: number;
  readonly retry_limit: number;
  /** Seconds from now until it is due. */
  readonly due_in: number;
  readonly deletion_seconds: number;
}

export async function stored(app: Pick<TestApp, "db">, id: string): Promise<StoredJob> {
  const [row] = await app.db.query<StoredJob>(
    `SELECT id, state::text, data, output, priority, retry_count, retry_limit, deletion_seconds,
       extract(epoch FROM start_after - now())::float8 AS due_in FROM jobs.job WHERE id = $1`,
    [id],
  );
  if (!row) throw new Error(`There is no job ${id}`);
  return row;
}

/** Waits until a job is in a state. */
export async function reaches(app: Pick<TestApp, "db">, id: string, state: string, deadlineMs = 10_000) {
  const began = performance.now();
  for (;;) {
    const job = await stored(app, id);
    if (job.state === state) return job;
    if (performance.now() - began > deadlineMs) throw new Error(`Job ${id} is ${job.state}, not ${state}`);
    await Bun.sleep(10);
  }
}

/** The same for several, one after the other: what waits must not keep the database busy. */
export async function allReach(app: Pick<TestApp, "db">, ids: readonly string[], state: string): Promise<StoredJob[]> {
  const jobs: StoredJob[] = [];
  for (const id of ids) jobs.push(await reaches(app, id, state));
  return jobs;
}

/** Waits until something holds. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, deadlineMs = 10_000): Promise<void> {
  const began = performance.now();
  while (!(await holds())) {
    if (performance.now() - began > deadlineMs) throw new Error(`${what}: not within ${deadlineMs} ms`);
    await Bun.sleep(10);
  }
}
