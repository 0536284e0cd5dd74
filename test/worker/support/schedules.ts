import { loadSettings } from "../../../config/load.ts";
import { listScheduleRuns } from "../../../db/queries/schedules.ts";
import { runOnce, type ScheduleResult } from "../../../worker/run-schedules.ts";
import { SCHEDULES, type ScheduleName } from "../../../worker/schedule.ts";
import type { TestApp } from "../../support/app.ts";

/** Runs a schedule of the product once, a moment after whatever was before. */
export async function runSchedule(app: TestApp, name: ScheduleName, home = "/nonexistent"): Promise<ScheduleResult> {
  const schedule = SCHEDULES.find((one) => one.name === name);
  if (!schedule) throw new Error(`There is no schedule ${name}`);
  const last = (await listScheduleRuns(app.db.orm)).find((row) => row.name === name);
  if (last && last.occurrence >= app.clock.now()) app.clock.advance(1);
  const result = await runOnce(app.deps, home, schedule);
  if (!result) throw new Error(`${name} is running`);
  return result;
}

/** Changes settings of an application that runs. */
export function changeSettings(app: TestApp, variables: Readonly<Record<string, string>>): void {
  const base = { PRIMER_SERVER__PUBLIC_URL: "http://primer.test" };
  app.deps.settings = loadSettings("/nonexistent", { ...base, ...variables }).settings;
}

/** The mails in the queue, the oldest first. */
export const queuedMails = async (app: TestApp, template: string): Promise<Record<string, unknown>[]> => {
  const rows = await app.db.query<{ data: Record<string, unknown> }>(
    "SELECT data FROM jobs.job WHERE name = 'send-mail' AND data ->> 'template' = $1 ORDER BY id",
    [template],
  );
  return rows.map(({ data }) => data);
};
