import { and, asc, desc, eq, gt, inArray, lt, ne, or, type SQL, sql } from "drizzle-orm";
import { boolean, integer, jsonb, pgSchema, text, timestamp, uuid } from "drizzle-orm/pg-core";
import type { Reader, Tx } from "../database.ts";
import { type Claim, KEEP_DEAD_SECONDS, KEEP_DONE_SECONDS, type QueueName, SUSPECT_PRIORITY } from "../jobs.ts";

const STATES = ["created", "retry", "active", "completed", "cancelled", "failed"] as const;
const instant = (name: string) => timestamp(name, { withTimezone: true, mode: "date" });

/**
 * The table of the job library, as far as it is read and written here. The library makes and upgrades it, so no migration
 * knows of it. Its times are those of the database, which all workers share.
 */
const jobs = pgSchema("jobs").table("job", {
  id: uuid("id").notNull(),
  name: text("name").notNull(),
  priority: integer("priority").notNull(),
  data: jsonb("data").$type<Record<string, unknown>>(),
  state: text("state", { enum: STATES }).notNull(),
  retryLimit: integer("retry_limit").notNull(),
  retryCount: integer("retry_count").notNull(),
  deletionSeconds: integer("deletion_seconds").notNull(),
  startAfter: instant("start_after").notNull(),
  createdOn: instant("created_on").notNull(),
  startedOn: instant("started_on"),
  completedOn: instant("completed_on"),
  heartbeatOn: instant("heartbeat_on"),
  output: jsonb("output").$type<JobError | null>(),
  blocked: boolean("blocked").notNull(),
});

export type JobRow = typeof jobs.$inferSelect;
type JobChange = { [C in keyof JobRow]?: JobRow[C] | SQL };

/** How the last run of a job failed: a code for programs, and words for people where the handler gave some. */
export interface JobError {
  readonly code?: string;
  readonly reason?: string | null;
  /** How many processes died while they ran it. */
  readonly deaths?: number;
}

/** Where a job stands, as people call it. */
export const JOB_STATES = {
  waiting: ["created", "retry"],
  running: ["active"],
  done: ["completed"],
  dead: ["failed", "cancelled"],
} as const satisfies Readonly<Record<string, readonly (typeof STATES)[number][]>>;
export type JobState = keyof typeof JOB_STATES;

export const stateOf = ({ state }: Pick<JobRow, "state">): JobState => {
  const found = Object.entries(JOB_STATES).find(([, states]) => (states as readonly string[]).includes(state));
  return (found?.[0] ?? "waiting") as JobState;
};

const now = sql`jobs.job_now()`;
const later = (ms: number) => sql`jobs.job_now() + ${ms / 1000} * interval '1 second'`;

/** Which of some queues have jobs that are due: suspects, others, or both. Cheap where there is nothing to do. */
export async function findDueQueues(tx: Tx, queues: readonly QueueName[]) {
  const due = (priority: number) => sql<boolean>`EXISTS (
    SELECT 1 FROM jobs.job j WHERE j.name = q.name AND j.priority = ${priority}
    AND j.state < 'active' AND NOT j.blocked AND j.start_after <= jobs.job_now())`;
  const rows = await tx
    .select({ queue: sql<QueueName>`q.name`, suspects: due(SUSPECT_PRIORITY), others: due(0) })
    .from(sql`unnest(${`{${queues.join(",")}}`}::text[]) AS q(name)`);
  return rows.filter(({ suspects, others }) => suspects || others);
}

const isHeld = ({ queue, id, claimedBefore }: Claim) =>
  and(eq(jobs.name, queue), eq(jobs.id, id), eq(jobs.state, "active"), eq(jobs.retryCount, claimedBefore));

/** Says that claimed jobs are still being run. @returns the ids of those that are; the others were taken away */
export async function updateHeartbeats(tx: Tx, claims: readonly Claim[]): Promise<Set<string>> {
  const rows = await tx
    .update(jobs)
    .set({ heartbeatOn: now })
    .where(or(...claims.map(isHeld)))
    .returning({ id: jobs.id });
  return new Set(rows.map(({ id }) => id));
}

/** How a claim ends. */
export type Ending =
  | { readonly outcome: "done" }
  | { readonly outcome: "retry"; readonly afterMs: number; readonly usesTry: boolean; readonly error: JobError }
  | { readonly outcome: "dead"; readonly error: JobError }
  /** As if it had not been claimed: somebody else may run it at once. */
  | { readonly outcome: "given_back" };

function changeOf(ending: Ending): JobChange {
  switch (ending.outcome) {
    case "done":
      return { state: "completed", completedOn: now, output: null, deletionSeconds: KEEP_DONE_SECONDS };
    case "retry":
      return {
        state: "retry",
        startAfter: later(ending.afterMs),
        heartbeatOn: null,
        output: ending.error,
        ...(ending.usesTry ? {} : { retryLimit: sql`${jobs.retryLimit} + 1` }),
      };
    case "dead":
      return { state: "failed", completedOn: now, output: ending.error, deletionSeconds: KEEP_DEAD_SECONDS };
    case "given_back":
      return { state: "retry", startedOn: null, heartbeatOn: null };
  }
}

/** Ends a claim. @returns false where the job had been taken away: then nothing was changed */
export async function endClaim(tx: Tx, claim: Claim, ending: Ending): Promise<boolean> {
  const rows = await tx.update(jobs).set(changeOf(ending)).where(isHeld(claim)).returning({ id: jobs.id });
  return rows.length > 0;
}

export const WORKER_DIED = "WORKER_DIED";

/**
 * Takes jobs away from processes that have not been heard of: they are due again at once, as suspects, or dead where so
 * many processes have died with them.
 */
export async function recoverJobs(
  tx: Tx,
  queues: readonly string[],
  { silentMs, maxDeaths }: { silentMs: number; maxDeaths: number },
): Promise<{ id: string; queue: string; dead: boolean }[]> {
  const deaths = sql`coalesce((${jobs.output} ->> 'deaths')::int, 0) + 1`;
  const isLast = sql`${deaths} >= ${maxDeaths}`;
  const rows = await tx
    .update(jobs)
    .set({
      state: sql`CASE WHEN ${isLast} THEN 'failed' ELSE 'retry' END::jobs.job_state`,
      completedOn: sql`CASE WHEN ${isLast} THEN jobs.job_now() END`,
      startAfter: now,
      heartbeatOn: null,
      priority: SUSPECT_PRIORITY,
      output: sql`jsonb_build_object('code', ${WORKER_DIED}::text, 'deaths', ${deaths})`,
    } satisfies JobChange)
    .where(
      and(
        inArray(jobs.name, [...queues]),
        sql`${jobs.state} = 'active'`, // written out, so that the index counts
        lt(sql`coalesce(${jobs.heartbeatOn}, ${jobs.startedOn})`, later(-silentMs)),
      ),
    )
    .returning({ id: jobs.id, queue: jobs.name, state: jobs.state });
  return rows.map(({ id, queue, state }) => ({ id, queue, dead: state === "failed" }));
}

export interface JobFilter {
  readonly queue?: string;
  readonly state?: JobState;
}

const fits = ({ queue, state }: JobFilter) =>
  and(
    queue === undefined ? undefined : eq(jobs.name, queue),
    state === undefined ? undefined : inArray(jobs.state, [...JOB_STATES[state]]),
  );

/** Newest first, from after the id on: ids are in the order of time. */
export const listJobs = (tx: Reader, page: JobFilter & { limit: number; after?: string }): Promise<JobRow[]> =>
  tx
    .select()
    .from(jobs)
    .where(and(fits(page), page.after === undefined ? undefined : lt(jobs.id, page.after)))
    .orderBy(desc(jobs.id))
    .limit(page.limit);

export async function findJob(tx: Reader, id: string): Promise<JobRow | undefined> {
  const [row] = await tx.select().from(jobs).where(eq(jobs.id, id));
  return row;
}

/** The same, locked until the transaction ends. */
export async function lockJob(tx: Tx, id: string): Promise<JobRow | undefined> {
  const [row] = await tx.select().from(jobs).where(eq(jobs.id, id)).for("update");
  return row;
}

/**
 * Some jobs that are locked until the transaction ends; none that somebody else has locked.
 *
 * @param which.erased whether also those whose secrets were erased
 */
export const lockJobs = (tx: Tx, which: JobFilter & { erased: boolean }, limit: number): Promise<JobRow[]> =>
  tx
    .select()
    .from(jobs)
    .where(
      and(fits(which), which.erased ? undefined : sql`jsonb_typeof(${jobs.data} -> 'sealed') IS DISTINCT FROM 'null'`),
    )
    .orderBy(desc(jobs.id))
    .limit(limit)
    .for("update", { skipLocked: true });

/** Makes a job due now, with so many tries as a new one. */
export const reviveJob = (tx: Tx, { id, retryCount, startedOn }: JobRow, retries: number) =>
  tx
    .update(jobs)
    .set({
      state: "retry",
      startAfter: now,
      completedOn: null,
      priority: 0,
      output: null,
      retryLimit: retryCount + (startedOn ? 1 : 0) + retries,
    })
    .where(eq(jobs.id, id));

/** Declares a job dead. */
export const killJob = (tx: Tx, id: string, error: JobError) =>
  tx
    .update(jobs)
    .set(changeOf({ outcome: "dead", error }))
    .where(eq(jobs.id, id));

/**
 * Declares jobs dead that have waited for longer than a time (milliseconds), as many as the limit says.
 *
 * @param which.templates of mails: those with these templates; with `but` all others
 * @returns how many
 */
export async function expireJobs(
  tx: Tx,
  which: { queue: QueueName; templates: readonly string[]; but?: boolean; waitedMs: number; limit: number },
  error: JobError,
): Promise<number> {
  const isOfThese = sql`${jobs.data} ->> 'template' = ANY(${`{${which.templates.join(",")}}`}::text[])`;
  const overdue = tx
    .select({ id: jobs.id })
    .from(jobs)
    .where(
      and(
        eq(jobs.name, which.queue),
        sql`${jobs.state} IN ('created', 'retry')`, // written out, so that the index counts
        lt(jobs.createdOn, later(-which.waitedMs)),
        which.but ? sql`${isOfThese} IS NOT TRUE` : isOfThese,
      ),
    )
    .limit(which.limit)
    .for("update", { skipLocked: true });
  const rows = await tx
    .update(jobs)
    .set(changeOf({ outcome: "dead", error }))
    .where(and(eq(jobs.name, which.queue), inArray(jobs.id, overdue)))
    .returning({ id: jobs.id });
  return rows.length;
}

export const deleteJobs = (tx: Tx, ids: readonly string[]) => tx.delete(jobs).where(inArray(jobs.id, [...ids]));

const sealedPart = sql<string>`${jobs.data} ->> 'sealed'`;

/** The id of the master key that sealed it: as the index has it. */
const sealedBy = sql<string>`split_part(${sealedPart}, '.', 2)`;
const isSealed = sql`${sealedPart} IS NOT NULL`;

/** Whether any job keeps something sealed under another master key than this one. Looks at both ends of the index. */
export async function hasOutdatedSeals(tx: Tx, keyId: string): Promise<boolean> {
  const end = (order: SQL) => tx.select({ key: sealedBy }).from(jobs).where(isSealed).orderBy(order).limit(1);
  const ends = [...(await end(asc(sealedBy))), ...(await end(desc(sealedBy)))];
  return ends.some(({ key }) => key !== keyId);
}

/** What jobs keep sealed under another master key than this one, by id from after the one given on. */
export const listOutdatedSeals = (
  tx: Tx,
  { keyId, limit, after }: { keyId: string; limit: number; after?: string },
): Promise<{ id: string; sealed: string }[]> =>
  tx
    .select({ id: jobs.id, sealed: sealedPart })
    .from(jobs)
    .where(and(isSealed, ne(sealedBy, keyId), after === undefined ? undefined : gt(jobs.id, after)))
    .orderBy(jobs.id)
    .limit(limit);

/** Keeps the same secrets sealed anew, unless the job ended meanwhile: then they are erased. */
export const updateSealedJob = (tx: Tx, { id, from, to }: { id: string; from: string; to: string }) =>
  tx
    .update(jobs)
    .set({ data: sql`jsonb_set(${jobs.data}, '{sealed}', to_jsonb(${to}::text))` })
    .where(and(eq(jobs.id, id), eq(sealedPart, from)));

/** How many jobs of each queue are not done, and how old the oldest is; by the library's names of states. */
export const countUnfinishedJobs = (tx: Reader) =>
  tx
    .select({
      queue: jobs.name,
      state: jobs.state,
      count: sql<number>`count(*)::int`,
      ageSeconds: sql<number>`extract(epoch FROM jobs.job_now() - min(${jobs.createdOn}))::float8`,
    })
    .from(jobs)
    .where(sql`${jobs.state} <> 'completed'`) // written out, as the index has it
    .groupBy(jobs.name, jobs.state);
