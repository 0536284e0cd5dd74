import { and, eq, lt, lte, ne, or, sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { scheduleRuns } from "../schema/schedules.ts";

export type ScheduleRunRow = typeof scheduleRuns.$inferSelect;

/** A run that this process has begun. With the attempt it names this run: a later one counts further. */
export type ScheduleClaim = Pick<ScheduleRunRow, "name" | "occurrence" | "attempt" | "details">;

export const listScheduleRuns = (tx: Tx): Promise<ScheduleRunRow[]> =>
  tx.select().from(scheduleRuns).orderBy(scheduleRuns.name);

/** Notes a schedule that was never seen before: what was due before that is not made up for. */
export const insertSchedule = (tx: Tx, name: string, occurrence: Date) =>
  tx.insert(scheduleRuns).values({ name, occurrence, state: "waiting" }).onConflictDoNothing();

/**
 * Begins an occurrence, if nobody has begun it or a later one, and none is running; or the same one again, once its time
 * for that has come. One statement: of several processes at the same moment exactly one gets it.
 *
 * @param until without another word it is taken for dead from then on
 */
export async function claimSchedule(
  tx: Tx,
  { name, occurrence }: Pick<ScheduleClaim, "name" | "occurrence">,
  now: Date,
  until: Date,
): Promise<ScheduleClaim | undefined> {
  const runs = scheduleRuns;
  const isFree = or(ne(runs.state, "running"), lte(runs.claimableAt, now));
  const isNew = and(lt(runs.occurrence, occurrence), isFree);
  const isAgain = and(eq(runs.occurrence, occurrence), lte(runs.claimableAt, now));
  const [row] = await tx
    .update(runs)
    .set({
      occurrence,
      attempt: sql`CASE WHEN ${eq(runs.occurrence, occurrence)} THEN ${runs.attempt} + 1 ELSE 1 END`,
      state: "running",
      startedAt: now,
      endedAt: null,
      claimableAt: until,
      error: null,
    })
    .where(and(eq(runs.name, name), or(isNew, isAgain)))
    .returning();
  return row;
}

const isOurs = ({ name, occurrence, attempt }: ScheduleClaim) =>
  and(
    eq(scheduleRuns.name, name),
    eq(scheduleRuns.occurrence, occurrence),
    eq(scheduleRuns.attempt, attempt),
    eq(scheduleRuns.state, "running"),
  );

/** Says that a run goes on. @returns false where it was taken away meanwhile */
export async function renewSchedule(tx: Tx, claim: ScheduleClaim, until: Date): Promise<boolean> {
  const rows = await tx
    .update(scheduleRuns)
    .set({ claimableAt: until })
    .where(isOurs(claim))
    .returning({ name: scheduleRuns.name });
  return rows.length === 1;
}

/** How a run ended. What is not given of the attempt and the details stays. */
export type ScheduleEnd = Pick<ScheduleRunRow, "state" | "endedAt" | "claimableAt" | "error"> &
  Partial<Pick<ScheduleRunRow, "attempt" | "details">>;

/** Ends a run. @returns false where it was taken away meanwhile */
export async function endSchedule(tx: Tx, claim: ScheduleClaim, end: ScheduleEnd): Promise<boolean> {
  const rows = await tx.update(scheduleRuns).set(end).where(isOurs(claim)).returning({ name: scheduleRuns.name });
  return rows.length === 1;
}
