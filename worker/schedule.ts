import type { LabelsOf } from "../config/metrics.ts";
import type { Settings } from "../config/schema.ts";
import type { Tx } from "../db/database.ts";
import { ACTIVITY_SCHEDULE, countActivity } from "../db/queries/activity.ts";
import type { Deps } from "../server/deps.ts";
import { advanceKeys } from "../server/features/keys/service.ts";
import type { UserDeps } from "../server/features/users/service.ts";
import { checkFreshness } from "./schedules/check-freshness.ts";
import { cleanUp } from "./schedules/clean-up.ts";
import { eraseDeactivated, eraseUnverified } from "./schedules/erase-accounts.ts";
import { learnSignIns } from "./schedules/learn-sign-ins.ts";
import { refreshThreats } from "./schedules/refresh-threats.ts";
import { reportSignIns } from "./schedules/report-sign-ins.ts";

const MINUTE_MS = 60_000;

/** What schedules work with: no server has to run. Without `geo` nothing is known of countries. */
export type ScheduleDeps = UserDeps & Pick<Deps, "log"> & Partial<Pick<Deps, "geo" | "metrics" | "threats">>;

/** What a run came to, for operators: names with amounts or words, never anything secret. */
export type Details = Readonly<Record<string, unknown>>;

/** One run of a schedule. */
export interface ScheduledRun {
  /** The folder of this process. */
  readonly home: string;
  /** When it was due. */
  readonly occurrence: Date;
  /** Whether somebody has asked for it, whether it is due or not. */
  readonly isAsked: boolean;
  /** What the last good run came to; null where there was none. */
  readonly last: Details | null;
  /** Aborted when its time is up, it was given to another process, or this one stops: whatever comes then does not count. */
  readonly signal: AbortSignal;
  /**
   * Ends it as good inside a transaction of its own work, so that both are there or neither is: what is mailed is mailed
   * once. Throws where the run was taken away; let that undo the transaction.
   */
  finish(tx: Tx, details: Details): Promise<void>;
}

export type ScheduleName = LabelsOf<"primer_schedule_runs_total">["schedule"];

/** Something that is done again and again, whoever does it. */
export interface Schedule {
  readonly name: ScheduleName;
  readonly sentence: string;
  /** When, as a cron expression in the time zone `worker.time_zone`; undefined where it is switched off. */
  cron(settings: Settings): string | undefined;
  /** The longest that one run takes (milliseconds). */
  readonly deadlineMs: number;
  run(deps: ScheduleDeps, run: ScheduledRun): Promise<Details | undefined>;
}

/** "07:05" as a cron expression. */
function daily(time: string): string {
  const [hour, minute] = time.split(":").map(Number);
  return `${minute} ${hour} * * *`;
}

/** Everything that is done by the clock. What is not at a set time is spread over the hour. */
export const SCHEDULES: readonly Schedule[] = [
  {
    name: ACTIVITY_SCHEDULE,
    sentence: "Counts sessions, active users and accounts, for the metrics.",
    cron: () => "*/5 * * * *",
    deadlineMs: 4 * MINUTE_MS,
    run: (deps) => deps.db.longTransaction((connection) => countActivity(connection, deps.clock.now())),
  },
  {
    name: "backup",
    sentence: "Takes the backup of the day, and proves it.",
    cron: ({ backup }) => (backup.folder === "" ? undefined : "15 2 * * *"),
    deadlineMs: 120 * MINUTE_MS,
    async run(deps, { home }) {
      const { runScheduledBackup } = await import("./schedules/take-backup.ts"); // a server that idles does without
      const taken = await runScheduledBackup({ ...deps, home });
      return taken ? { rows: taken.rows, bytes: taken.bytes } : {};
    },
  },
  {
    name: "baselines",
    sentence: "Learns from the newest login records what is usual of each account and network.",
    cron: () => "*/5 * * * *",
    deadlineMs: 4 * MINUTE_MS,
    run: learnSignIns,
  },
  {
    name: "clean-up",
    sentence: "Deletes what has expired and what was kept long enough.",
    cron: ({ retention }) => daily(retention.time),
    deadlineMs: 120 * MINUTE_MS,
    run: cleanUp,
  },
  {
    name: "daily-report",
    sentence: "Mails the sign-ins of the day before.",
    cron: ({ report }) => (report.enabled ? daily(report.time) : undefined),
    deadlineMs: 10 * MINUTE_MS,
    run: reportSignIns,
  },
  {
    name: "deactivated-accounts",
    sentence: "Erases accounts that were deactivated longer than accounts.erase_after ago.",
    cron: () => "20 * * * *",
    deadlineMs: 50 * MINUTE_MS,
    run: eraseDeactivated,
  },
  {
    name: "freshness",
    sentence: "Looks how old the list of breached passwords, the GeoIP file and the lists of bad networks are.",
    cron: () => "5 6 * * *",
    deadlineMs: 5 * MINUTE_MS,
    run: checkFreshness,
  },
  {
    name: "rotate-keys",
    sentence: "Takes the steps of key rotations whose time has come, as every server does besides.",
    cron: () => "40 * * * *",
    deadlineMs: 5 * MINUTE_MS,
    run: async (deps) => ({ changed: await advanceKeys(deps) }),
  },
  {
    name: "threat-lists",
    sentence: "Reads the lists of bad networks that are due by threats.refresh_every.",
    cron: ({ threats }) => (threats.sources.length > 0 ? "*/15 * * * *" : undefined),
    deadlineMs: 70 * MINUTE_MS,
    run: refreshThreats,
  },
  {
    name: "unverified-accounts",
    sentence: "Erases accounts that were not verified within a day, so that their names are free again.",
    cron: () => "10 * * * *",
    deadlineMs: 50 * MINUTE_MS,
    run: eraseUnverified,
  },
];
