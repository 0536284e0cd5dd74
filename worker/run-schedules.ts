import { codeOf } from "../config/errors.ts";
import {
  claimSchedule,
  endSchedule,
  insertSchedule,
  listScheduleRuns,
  renewSchedule,
  type ScheduleClaim,
  type ScheduleEnd,
  type ScheduleRunRow,
} from "../db/queries/schedules.ts";
import type { Deps } from "../server/deps.ts";
import { alertOperators } from "./alert-operators.ts";
import { lastOccurrence } from "./occurrences.ts";
import { type Details, SCHEDULES, type Schedule, type ScheduleDeps, type ScheduledRun } from "./schedule.ts";

/** How often a worker does what (milliseconds). */
export interface SchedulePace {
  /** Looks what is due. */
  readonly look: number;
  /** Says that its runs go on. */
  readonly beat: number;
  /** A run of which nothing was heard for this long is taken over. */
  readonly silence: number;
}

const PACE: SchedulePace = { look: 5000, beat: 10_000, silence: 60_000 };
/** What was due while no worker ran is made up for within this time (milliseconds). */
export const MISSED_WITHIN_MS = 12 * 3_600_000;
/** The pauses after a failed run and its repetitions (milliseconds); after the last one it has failed for good. */
export const PAUSES_MS: readonly number[] = [60_000, 300_000, 1_500_000];

/** How long work that is cut short has to see it (milliseconds). */
const NOTICE_MS = 1000;

/** Why a run is over before its end. */
class Interrupted extends Error {
  constructor(readonly why: "deadline" | "taken_away" | "stopping") {
    super(`The run of this schedule is over: ${why}`);
    this.name = "Interrupted";
  }
}

export type ScheduleOutcome = "done" | "retry" | "failed" | "interrupted";

/** How a run went. */
export interface ScheduleResult {
  readonly outcome: ScheduleOutcome;
  readonly details: Details;
  readonly error?: unknown;
  readonly durationMs: number;
}

export interface Schedules {
  /** Begins nothing more, cuts short what runs so that it goes on elsewhere or at the next start, and waits for that. */
  stop(): Promise<void>;
}

interface SchedulesOptions {
  /** All there are where nothing is said. */
  readonly schedules?: readonly Schedule[];
  readonly pace?: Partial<SchedulePace>;
}

type RunnerDeps = ScheduleDeps & Pick<Deps, "metrics">;

/**
 * Runs schedules when they are due. Any number of processes may do so on one database: each occurrence is run by one of
 * them, and taken over by another one where that one dies.
 *
 * @param home the folder of this process
 */
export function startSchedules(deps: RunnerDeps, home: string, options: SchedulesOptions = {}): Schedules {
  const { schedules = SCHEDULES } = options;
  const pace = { ...PACE, ...options.pace };
  const running = new Map<string, { readonly control: AbortController; readonly ended: Promise<void> }>();
  let looking: Promise<void> | undefined;
  let stopping = false;
  let fails = false;

  async function lookAtAll(): Promise<void> {
    const rows = new Map((await listScheduleRuns(deps.db.orm)).map((row) => [row.name, row]));
    for (const schedule of schedules) {
      if (stopping || running.has(schedule.name)) continue;
      const claim = await claimDue(deps, schedule, rows.get(schedule.name), pace);
      if (claim) begin(schedule, claim);
    }
  }

  function begin(schedule: Schedule, claim: ScheduleClaim): void {
    const control = new AbortController();
    if (stopping) control.abort(new Interrupted("stopping"));
    const ended = execute(deps, schedule, claim, { home, pace, control, isAsked: false })
      .then(async (result) => {
        const { outcome, error } = result;
        tell(deps, claim, result);
        deps.metrics.count("primer_schedule_runs_total", { schedule: schedule.name, outcome });
        if (outcome === "failed") await tellOfFailure(deps, schedule, error);
      })
      .catch((error) => {
        const fields = { event: "schedule.not_ended", schedule: schedule.name, error };
        deps.log.error("How a schedule ended could not be written down", fields);
      })
      .finally(() => running.delete(schedule.name));
    running.set(schedule.name, { control, ended });
  }

  function look(): void {
    looking ??= lookAtAll()
      .then(
        () => report(true),
        (error) => report(false, error),
      )
      .finally(() => {
        looking = undefined;
      });
  }

  /** Once when it begins and once when it ends: an outage fills no log. */
  function report(works: boolean, error?: unknown): void {
    if (fails === !works) return;
    fails = !works;
    if (works) deps.log.info("Schedules are looked after again", { event: "schedules.kept" });
    else deps.log.warn("Schedules cannot be looked after now", { event: "schedules.not_kept", error });
  }

  const timer = setInterval(look, pace.look);
  look();
  return {
    async stop() {
      stopping = true;
      clearInterval(timer);
      await looking;
      for (const { control } of running.values()) control.abort(new Interrupted("stopping"));
      await Promise.all([...running.values()].map(({ ended }) => ended));
    },
  };
}

async function claimDue(
  deps: ScheduleDeps,
  schedule: Schedule,
  row: ScheduleRunRow | undefined,
  pace: SchedulePace,
): Promise<ScheduleClaim | undefined> {
  const now = deps.clock.now();
  const { name } = schedule;
  const occurrence = lastOccurrence(schedule, deps.settings, now);
  if (!occurrence || now.getTime() - occurrence.getTime() > MISSED_WITHIN_MS) return undefined;
  if (!row) {
    await insertSchedule(deps.db.orm, name, occurrence);
    return undefined;
  }
  const isNew = row.occurrence < occurrence;
  const isAgain = row.claimableAt !== null && row.claimableAt <= now;
  if (!isNew && !isAgain) return undefined;
  const until = new Date(now.getTime() + pace.silence);
  return claimSchedule(deps.db.orm, { name, occurrence }, now, until);
}

interface Execution {
  readonly home: string;
  readonly pace: SchedulePace;
  readonly control: AbortController;
  /** Whether somebody has asked for it; then it is not tried again where it fails. */
  readonly isAsked: boolean;
}

/** Runs what was claimed to its end, or until its time is up, whatever it does then. */
async function execute(
  deps: ScheduleDeps,
  schedule: Schedule,
  claim: ScheduleClaim,
  { home, pace, control, isAsked }: Execution,
): Promise<ScheduleResult> {
  const began = performance.now();
  const { signal } = control;
  let finished: Details | undefined;
  const run: ScheduledRun = {
    home,
    occurrence: claim.occurrence,
    isAsked,
    last: claim.details,
    signal,
    async finish(tx, details) {
      if (!(await endSchedule(tx, claim, doneAt(deps, details)))) throw new Interrupted("taken_away");
      finished = details;
    },
  };
  const timer = setTimeout(() => control.abort(new Interrupted("deadline")), schedule.deadlineMs);
  const keeper = keepClaim(deps, claim, pace, control);
  let result: Omit<ScheduleResult, "durationMs">;
  try {
    if (claim.attempt > PAUSES_MS.length + 1) throw Object.assign(new Error("Its processes died"), { code: "DIED" });
    const details = await untilAborted(signal, () => schedule.run(deps, run));
    if (!finished && !(await endSchedule(deps.db.orm, claim, doneAt(deps, details ?? {})))) {
      throw new Interrupted("taken_away");
    }
    result = { outcome: "done", details: finished ?? details ?? {} };
  } catch (error) {
    const { outcome, end } = endAfter(deps, claim, error, !isAsked);
    const isOurs = end !== undefined && (await endSchedule(deps.db.orm, claim, end));
    // What it did may have been committed, and its answer have come too late or never.
    if (finished && !isOurs) result = { outcome: "done", details: finished };
    else result = { outcome: isOurs ? outcome : "interrupted", details: {}, error };
  } finally {
    clearTimeout(timer);
    clearInterval(keeper);
  }
  return { ...result, durationMs: performance.now() - began };
}

/** Work that is over when the signal says so, whatever it does; it gets a moment to see that by itself. */
async function untilAborted<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  signal.throwIfAborted();
  const working = work();
  const aborted = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => aborted.resolve(), { once: true });
  await Promise.race([working, aborted.promise]).catch(() => {});
  if (!signal.aborted) return working;
  await Promise.race([working.catch(() => {}), Bun.sleep(NOTICE_MS)]);
  throw signal.reason;
}

const doneAt = ({ clock }: ScheduleDeps, details: Details): ScheduleEnd => ({
  state: "done",
  endedAt: clock.now(),
  claimableAt: null,
  error: null,
  details,
});

/** Says again and again that a run goes on; ends it where it was taken away, or nobody could be told for too long. */
function keepClaim(deps: ScheduleDeps, claim: ScheduleClaim, pace: SchedulePace, control: AbortController): Timer {
  let heardAt = performance.now();
  return setInterval(async () => {
    const at = performance.now();
    const until = new Date(deps.clock.now().getTime() + pace.silence);
    const isOurs = await renewSchedule(deps.db.orm, claim, until).catch(() => undefined);
    if (isOurs) heardAt = at;
    const isSilent = performance.now() - heardAt > pace.silence - pace.beat;
    if (isOurs === false || isSilent) control.abort(new Interrupted("taken_away"));
  }, pace.beat);
}

/** How a run ends that went wrong; without an end where it was taken away. */
function endAfter(
  { clock }: ScheduleDeps,
  { attempt }: ScheduleClaim,
  error: unknown,
  retries: boolean,
): { readonly outcome: ScheduleOutcome; readonly end?: ScheduleEnd } {
  const endedAt = clock.now();
  const why = error instanceof Interrupted ? error.why : undefined;
  if (why === "taken_away") return { outcome: "interrupted" };
  if (why === "stopping") {
    // That is no failure: another process may begin it at once, and it does not count.
    const end = { state: "retry", endedAt, claimableAt: endedAt, error: null, attempt: attempt - 1 } as const;
    return { outcome: "interrupted", end };
  }
  const pause = retries ? PAUSES_MS[attempt - 1] : undefined;
  const outcome = pause === undefined ? "failed" : "retry";
  const claimableAt = pause === undefined ? null : new Date(endedAt.getTime() + pause);
  return { outcome, end: { state: outcome, endedAt, claimableAt, error: failureCode(error) } };
}

/** What an error is called, for programs; its message may tell anything, and is in the log only. */
function failureCode(error: unknown): string {
  if (error instanceof Interrupted) return "DEADLINE";
  const code = (error as { errorCode?: unknown } | null)?.errorCode ?? codeOf(error);
  return typeof code === "string" && /^[A-Z0-9_]{2,40}$/.test(code) ? code : "FAILED";
}

const SAYINGS: Readonly<Record<ScheduleOutcome, readonly ["info" | "warn" | "error", string]>> = {
  done: ["info", "A schedule has run"],
  interrupted: ["info", "The run of a schedule was cut short; it goes on in another process or later"],
  retry: ["warn", "A schedule failed and will be tried again"],
  failed: ["error", "A schedule failed for good; `primer worker --run-once` tries it again"],
};

function tell({ log }: ScheduleDeps, claim: ScheduleClaim, { outcome, details, error, durationMs }: ScheduleResult) {
  const [level, saying] = SAYINGS[outcome];
  log[level](saying, {
    event: `schedule.${outcome}`,
    schedule: claim.name,
    occurrence: claim.occurrence.toISOString(),
    attempt: claim.attempt,
    duration_ms: Math.round(durationMs),
    details,
    ...(error === undefined || error instanceof Interrupted ? {} : { error }),
  });
}

async function tellOfFailure(deps: ScheduleDeps, { name }: Schedule, error: unknown): Promise<void> {
  const alert = {
    kind: `schedule:${name}`,
    what: `The schedule ${name} has failed`,
    why: `It was tried ${PAUSES_MS.length + 1} times (${failureCode(error)}); the log says more.`,
    mend: `Mend what the log names, then run “primer worker --run-once ${name}”.`,
  };
  await deps.db.transaction((tx) => alertOperators(tx, deps, alert));
}

/**
 * Runs a schedule now, whether it is due or not, in this process. It is not tried again where it fails.
 *
 * @returns undefined where it is running at this moment
 */
export async function runOnce(
  deps: ScheduleDeps,
  home: string,
  schedule: Schedule,
): Promise<ScheduleResult | undefined> {
  const now = deps.clock.now();
  const { name } = schedule;
  await insertSchedule(deps.db.orm, name, new Date(0));
  const until = new Date(now.getTime() + PACE.silence);
  const claim = await claimSchedule(deps.db.orm, { name, occurrence: now }, now, until);
  return claim && execute(deps, schedule, claim, { home, pace: PACE, control: new AbortController(), isAsked: true });
}
