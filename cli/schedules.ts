/** What `primer worker` tells of schedules, and does with them, besides running them when they are due. */
import { failed, misused, OperatorError, textOf } from "../config/errors.ts";
import { createLog, redactText } from "../config/log.ts";
import type { Database } from "../db/database.ts";
import { listScheduleRuns, type ScheduleRunRow } from "../db/queries/schedules.ts";
import { systemClock } from "../server/ports/clock.ts";
import { openGeo } from "../server/ports/geo.ts";
import { nextOccurrence } from "../worker/occurrences.ts";
import { runOnce } from "../worker/run-schedules.ts";
import { SCHEDULES, type Schedule } from "../worker/schedule.ts";
import type { CommandContext, Outcome } from "./command.ts";
import { type Finding, ok, warning } from "./findings.ts";
import { table } from "./io.ts";
import { withUserDeps } from "./workspace.ts";

/** Runs a schedule now. Exit 0 where it went well, 1 where not, 2 where there is none of this name. */
export async function runSchedule(context: CommandContext, name: string): Promise<Outcome> {
  const schedule = SCHEDULES.find((one) => one.name === name);
  if (!schedule) {
    throw misused(`There is no schedule ${name}.`, `There are ${SCHEDULES.map((one) => one.name).join(", ")}.`);
  }
  const { io, home } = context;
  const log = createLog(() => "warn", { write: (line) => io.note(line) }, systemClock.now);
  const result = await withUserDeps(context, async (deps) => {
    const geo = openGeo({ home, file: () => deps.settings.accounts.geoip_file, log });
    try {
      await geo.reread();
      return await runOnce({ ...deps, log, geo }, home, schedule);
    } finally {
      geo.close();
    }
  });
  if (!result) {
    const hint = "Wait for it to end; `primer worker --list` shows when it has. A killed one is over after a minute.";
    throw failed(`${name} is running at this moment.`, hint);
  }
  const { outcome, details, error } = result;
  if (outcome !== "done") throw failureOf(name, error);
  const amounts = Object.entries(details).map(([what, value]) => `  ${what}: ${value}\n`);
  return {
    json: { schedule: name, outcome, details },
    text: `${name}: ${outcome}\n${amounts.join("")}`,
  };
}

/** Whatever it was, the schedule has failed: exit 1. */
function failureOf(name: string, error: unknown): OperatorError {
  const hint = error instanceof OperatorError ? error.hint : undefined;
  const root = error instanceof Error && error.cause instanceof Error && !hint ? error.cause : error;
  const why = redactText(textOf(root));
  return failed(`${name} has failed: ${why}`, hint ?? "Mend that, then run it again.", error);
}

interface ScheduleView {
  readonly name: string;
  readonly description: string;
  /** Of the last run; "lost" where its process died. Null where it never ran. */
  readonly state: ScheduleRunRow["state"] | "lost" | null;
  readonly started_at: string | null;
  readonly ended_at: string | null;
  readonly error: string | null;
  /** What the last good run came to. */
  readonly details: Readonly<Record<string, unknown>> | null;
  /** Null where it is switched off. */
  readonly next_at: string | null;
}

/** Every schedule with its last run and its next one. */
export async function listSchedules(context: CommandContext): Promise<Outcome> {
  const data = await withUserDeps(context, async ({ db, settings, clock }) => {
    const rows = await listScheduleRuns(db.orm);
    const now = clock.now();
    return SCHEDULES.map((schedule) => {
      const next = nextOccurrence(schedule, settings, now)?.toISOString() ?? null;
      return viewOf(
        schedule,
        rows.find(({ name }) => name === schedule.name),
        next,
        now,
      );
    });
  });
  const cells = data.map((view) => [
    view.name,
    view.ended_at ?? view.started_at ?? "-",
    view.error === null ? (view.state ?? "-") : `${view.state} (${view.error})`,
    view.next_at ?? "off",
    view.description,
  ]);
  return { json: { data }, text: table(["SCHEDULE", "LAST RUN", "OUTCOME", "NEXT", "WHAT IT DOES"], cells) };
}

/** For doctor: what failed for good when it was due last, and is not made up for. */
export async function checkSchedules(database: Pick<Database, "orm">): Promise<Finding> {
  const failures = (await listScheduleRuns(database.orm)).filter(({ state }) => state === "failed");
  if (failures.length === 0) return ok("schedules", "none has failed");
  const names = failures.map(({ name, error }) => `${name} (${error})`).join(", ");
  const mend = "See the log of that time (schedule.failed), then run `primer worker --run-once NAME`.";
  return warning("schedules", `failed when last due: ${names}`, mend);
}

function viewOf(
  { name, sentence }: Schedule,
  row: ScheduleRunRow | undefined,
  next_at: string | null,
  now: Date,
): ScheduleView {
  const isLost = row?.state === "running" && row.claimableAt !== null && row.claimableAt <= now;
  const isKnown = row !== undefined && row.state !== "waiting";
  return {
    name,
    description: sentence,
    state: isLost ? "lost" : isKnown ? row.state : null,
    started_at: row?.startedAt?.toISOString() ?? null,
    ended_at: row?.endedAt?.toISOString() ?? null,
    error: row?.error ?? null,
    details: row?.details ?? null,
    next_at,
  };
}
