import { readSignInFigures } from "../../db/queries/reports.ts";
import { queueMail } from "../../server/features/mail/service.ts";
import { listOperators } from "../alert-operators.ts";
import { lastMidnights } from "../occurrences.ts";
import type { Details, ScheduleDeps, ScheduledRun } from "../schedule.ts";

/** Addresses, networks and accounts that are named. */
const TOP = 5;

/**
 * Mails the sign-ins of the last whole day, beside those of the same weekday before, to the operators. A day is one of
 * the time zone `worker.time_zone`, and has 23 or 25 hours where clocks are changed.
 */
export async function reportSignIns(deps: ScheduleDeps, run: ScheduledRun): Promise<Details | undefined> {
  const { time_zone } = deps.settings.worker;
  const midnights = lastMidnights(time_zone, run.occurrence, 9);
  const span = (daysAgo: number) => ({ from: midnights[daysAgo] as Date, to: midnights[daysAgo - 1] as Date });
  const day = dayIn(time_zone, span(1).from);
  const read = { day: span(1), before: span(8), top: TOP, signal: run.signal };
  const { figures, before, topFailing, networks, accounts } = await readSignInFigures(deps.db, read);
  await deps.db.transaction(async (tx) => {
    const operators = await listOperators(tx);
    const report = {
      template: "daily_report",
      request_id: null,
      day,
      figures,
      week_before: before,
      top_failing: topFailing,
      unusual_networks: networks,
      unusual_accounts: accounts,
    } as const;
    for (const user_id of operators) await queueMail(tx, deps, { ...report, user_id });
    await run.finish(tx, { day, mails: operators.length, ...figures });
  });
  return undefined;
}

/** The date in a time zone, such as "2026-03-01". */
const dayIn = (timeZone: string, time: Date): string =>
  new Intl.DateTimeFormat("en-CA", { timeZone, dateStyle: "short" }).format(time);
