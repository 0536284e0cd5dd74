import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import type { Database } from "../../db/database.ts";
import { openPglite } from "../../db/pglite.ts";
import { listScheduleRuns } from "../../db/queries/schedules.ts";
import { loginRecords } from "../../db/schema/logins.ts";
import type { SchedulePace } from "../../worker/run-schedules.ts";
import { newId } from "../db/rows.ts";
import { createPostgresDatabase, openPostgresAt, TEST_DATABASE } from "../support/database.ts";
import { initHome, logLines, scratchFolder, start } from "./processes.ts";

const ROWS = 4000;
const PACE: SchedulePace = { look: 50, beat: 100, silence: 1000 };

const scratch = scratchFolder();
const home = join(scratch.path, "home");
const anHourAgo = new Date(Date.now() - 3_600_000).toISOString().slice(11, 16);
let variables: Record<string, string> = { PRIMER_RETENTION__TIME: anHourAgo };
let drop = async () => {};
beforeAll(async () => {
  if (TEST_DATABASE === "postgres") {
    const made = await createPostgresDatabase();
    drop = made.drop;
    variables = { ...variables, DATABASE_URL: made.url };
  }
  await initHome(home, variables);
}, 60_000);
afterAll(async () => {
  await drop();
  scratch.remove();
});

/** Opens the database while nobody else has it. */
async function withDatabase<T>(work: (db: Database) => Promise<T>): Promise<T> {
  const db = variables.DATABASE_URL ? await openPostgresAt(variables.DATABASE_URL) : await openPglite(home);
  try {
    return await work(db);
  } finally {
    await db.close();
  }
}

const standing = () =>
  withDatabase(async (db) => {
    const [row] = await db.query<{ left: number }>("SELECT count(*)::int AS left FROM login_records");
    const run = (await listScheduleRuns(db.orm)).find(({ name }) => name === "clean-up");
    return { left: row?.left ?? 0, state: run?.state, attempt: run?.attempt };
  });

const work = () => start(["test/drills/children/run-schedules.ts", home, JSON.stringify(PACE)], variables);

// What was deleted stays deleted, what was not is deleted by whoever comes next, and nothing else is touched.
test("a clean-up whose process is killed in the middle is taken over and goes on", async () => {
  const createdAt = new Date(Date.now() - 400 * 86_400_000);
  const old = { outcome: "failure" as const, reason: "unknown_account", createdAt };
  await withDatabase(async (db) => {
    await db.orm.insert(loginRecords).values(Array.from({ length: ROWS }, () => ({ id: newId(), ...old })));
    await db.orm.insert(loginRecords).values({ id: newId(), ...old, createdAt: new Date() });
    await db.query("INSERT INTO schedule_runs (name, occurrence, state) VALUES ('clean-up', '2026-01-01', 'waiting')");
  });
  const first = work();
  await first.until((out) => out.split("pause").length > 2);
  await first.kill();
  const cut = await standing();
  expect(cut).toMatchObject({ state: "running", attempt: 1 });
  expect(cut.left).toBeGreaterThan(1);
  expect(cut.left).toBeLessThan(ROWS);

  const second = work();
  const isDone = (line: object) =>
    "event" in line && line.event === "schedule.done" && "schedule" in line && line.schedule === "clean-up";
  const done = await second.until((out) => logLines(out.slice(0, out.lastIndexOf("\n"))).find(isDone));
  expect(done).toMatchObject({ attempt: 2, details: { logins: cut.left - 1 } });
  second.signal("SIGTERM");
  expect((await second.finished).exitCode).toBe(0);
  expect(await standing()).toEqual({ left: 1, state: "done", attempt: 2 });
});
