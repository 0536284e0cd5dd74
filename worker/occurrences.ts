import { Cron } from "croner";
import type { Settings } from "../config/schema.ts";
import type { Schedule } from "./schedule.ts";

/**
 * When schedules are due. Where clocks go forward over that time, it is when they have; where they go back over it, it is
 * the first of the two times.
 */
function cronOf(schedule: Pick<Schedule, "cron">, settings: Settings): Cron | undefined {
  const expression = schedule.cron(settings);
  return expression === undefined ? undefined : new Cron(expression, { timezone: settings.worker.time_zone });
}

/** Times before this one, or this very one. */
const latestOf = (cron: Cron | undefined, now: Date, count: number): Date[] =>
  cron?.previousRuns(count, new Date(now.getTime() + 1)) ?? [];

/** The last time at which a schedule was due, now included; undefined where it is switched off. */
export const lastOccurrence = (schedule: Pick<Schedule, "cron">, settings: Settings, now: Date): Date | undefined =>
  latestOf(cronOf(schedule, settings), now, 1)[0];

/** The next time at which it is due; undefined where it is switched off. */
export const nextOccurrence = (schedule: Pick<Schedule, "cron">, settings: Settings, now: Date): Date | undefined =>
  cronOf(schedule, settings)?.nextRun(now) ?? undefined;

/** The moments at which the last days began in a time zone, the latest first. */
export const lastMidnights = (timeZone: string, now: Date, count: number): Date[] =>
  latestOf(new Cron("0 0 * * *", { timezone: timeZone }), now, count);
