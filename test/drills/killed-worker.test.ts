import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Database } from "../../db/database.ts";
import type { JobQueue } from "../../db/jobs.ts";
import { MAX_DEATHS } from "../../worker/keep-jobs.ts";
import type { Pace } from "../../worker/run.ts";
import { newId } from "../db/rows.ts";
import { openPostgresAt } from "../support/database.ts";
import { queueOn } from "../worker/support/jobs.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import { type Child, canRun, FULL, initHome, inShort, scratchFolder, start, waitFor } from "./processes.ts";

const possible = canRun(whyNoPostgres(), "drill of workers that are killed");
const JOBS = FULL ? 1000 : 300;
const KILLS = FULL ? 60 : 5;
const KILL_EVERY_MS = FULL ? 2000 : 700;
/** In the long form as it is in production. */
const PACE: Partial<Pace> = FULL ? {} : { poll: 100, beat: 300, silence: 1500 };
const RESUMED_WITHIN_MS = FULL ? 60_000 : 10_000;
inShort(
  `${JOBS} jobs, ${KILLS} kills and quick heartbeats; 1000 jobs, 60 kills and a job that kills its worker with TEST_FULL`,
);

const scratch = scratchFolder();
const home = join(scratch.path, "home");
let postgres: OwnPostgres;
let variables: Record<string, string>;
let db: Database;
let queue: JobQueue;
beforeAll(async () => {
  if (!possible) return;
  postgres = await ownPostgres();
  variables = { DATABASE_URL: postgres.url, PRIMER_SERVER__STOP_TIMEOUT: "5s" };
  await initHome(home, variables);
  db = await openPostgresAt(postgres.url);
  await db.query("CREATE TABLE sent (job_id uuid NOT NULL, pid integer NOT NULL)");
  queue = await queueOn(db);
}, 60_000);
afterAll(async () => {
  if (possible) {
    await queue.close();
    await db.close();
    await postgres.remove();
  }
  scratch.remove();
});

async function enqueue(count: number, request_id: string | null = null): Promise<string[]> {
  const ids: string[] = [];
  while (ids.length < count) {
    const some = Math.min(100, count - ids.length);
    await db.transaction(async (tx) => {
      const payload = { template: "password_changed", user_id: newId(), request_id } as const;
      for (let made = 0; made < some; made++) ids.push(await queue.enqueue(tx, "send-mail", payload));
    });
  }
  return ids;
}

async function startWorker(): Promise<Child> {
  const child = start([join(import.meta.dir, "children/run-jobs.ts"), home, JSON.stringify(PACE)], variables);
  await child.until((out) => out.includes('"worker.started"'));
  return child;
}

async function countOf(state: string): Promise<number> {
  const [row] = await db.query<{ count: number }>(
    "SELECT count(*)::int AS count FROM jobs.job WHERE state::text = $1",
    [state],
  );
  return row?.count ?? 0;
}

/** How often each job's mail was sent. */
async function sent(): Promise<Map<string, number>> {
  const rows = await db.query<{ job_id: string; count: number }>(
    "SELECT job_id, count(*)::int AS count FROM sent GROUP BY 1",
  );
  return new Map(rows.map(({ job_id, count }) => [job_id, count]));
}

describe("two workers on one queue", () => {
  // A mail is sent twice only where a process died between sending it and saying so: at most once for each death.
  test.if(possible)("of which one is killed again and again: every job is done, few of them twice", async () => {
    const ids = await enqueue(JOBS);
    const workers = await Promise.all([startWorker(), startWorker()]);
    for (let kill = 0; kill < KILLS; kill++) {
      await Bun.sleep(KILL_EVERY_MS);
      const which = kill % 2;
      await workers[which]?.kill();
      workers[which] = await startWorker();
    }
    const resumedMs = await waitFor(
      "every job",
      async () => (await countOf("completed")) === JOBS,
      RESUMED_WITHIN_MS * 3,
    );
    const times = await sent();
    expect(ids.filter((id) => !times.has(id))).toEqual([]);
    const twice = [...times.values()].reduce((sum, count) => sum + count - 1, 0);
    expect(twice).toBeLessThanOrEqual(KILLS);
    const [deaths] = await db.query<{ count: number }>(
      "SELECT count(*)::int AS count FROM jobs.job WHERE priority < 0",
    );
    expect(deaths?.count).toBeGreaterThan(0);
    process.stderr.write(
      `${JOBS} jobs, ${KILLS} kills: ${deaths?.count} jobs taken over, ${twice} sent twice, done ${Math.round(resumedMs)} ms after the last kill\n`,
    );
    for (const worker of workers) worker.signal("SIGTERM");
    const ends = await Promise.all(workers.map(({ finished }) => finished));
    expect(ends.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
  });

  test.if(possible)("a job of a killed one resumes in another in time", async () => {
    const victim = await startWorker();
    const [id] = await enqueue(1, "hang");
    await waitFor("the job", async () => (await countOf("active")) === 1);
    await db.query("UPDATE jobs.job SET data = jsonb_set(data, '{request_id}', 'null') WHERE id = $1", [id]);
    await victim.kill();
    const other = await startWorker();
    const resumedMs = await waitFor(
      "its end",
      async () => (await countOf("active")) === 0 && (await sent()).has(String(id)),
      70_000,
    );
    expect(resumedMs).toBeLessThan(RESUMED_WITHIN_MS);
    process.stderr.write(
      `the job of a killed worker was done ${Math.round(resumedMs)} ms after another one had started\n`,
    );
    other.signal("SIGTERM");
    expect((await other.finished).exitCode).toBe(0);
  });

  // A job that computes for ever would hold up its process, and then the next one's: that process ends itself.
  test.if(possible)("a job that lets nothing else have its turn ends its worker, and goes to another", async () => {
    const victim = await startWorker();
    const [id] = await enqueue(1, "block");
    const [beside] = await enqueue(1);
    const { notes } = await victim.finished;
    expect(notes).toContain("held up this process");
    await db.query("UPDATE jobs.job SET data = jsonb_set(data, '{request_id}', 'null') WHERE id = $1", [id]);
    const other = await startWorker();
    const areSent = async () => {
      const times = await sent();
      return [id, beside].every((job) => times.has(String(job)));
    };
    await waitFor("both", areSent, 70_000);
    other.signal("SIGTERM");
    expect((await other.finished).exitCode).toBe(0);
  });

  // One bad job cannot keep the others from being done, whatever it does to the process that runs it.
  test.if(possible && FULL)(
    "a job that kills whatever runs it is dead after some deaths, and the others are done",
    async () => {
      const [poison] = await enqueue(1, "kill");
      const others = await enqueue(20);
      let worker = await startWorker();
      let deaths = 0;
      const isOver = async () => {
        const [row] = await db.query<{ state: string }>("SELECT state::text FROM jobs.job WHERE id = $1", [poison]);
        return row?.state === "failed";
      };
      await waitFor(
        "the end of it",
        async () => {
          if (!worker.running()) {
            deaths++;
            worker = await startWorker();
          }
          return isOver();
        },
        MAX_DEATHS * RESUMED_WITHIN_MS * 2,
      );
      expect(deaths).toBe(MAX_DEATHS);
      const times = await sent();
      await waitFor(
        "the others",
        async () => [...(await sent()).keys()].filter((id) => others.includes(id)).length === 20,
      );
      expect(times.has(String(poison))).toBe(false);
      const dead = await db.query("SELECT id FROM jobs.job WHERE state = 'failed'");
      expect(dead).toEqual([{ id: poison }]);
      worker.signal("SIGTERM");
      expect((await worker.finished).exitCode).toBe(0);
    },
  );
});
