import { failed, misused } from "../../config/errors.ts";
import {
  giveUpJob,
  JOB_STATE_NAMES,
  type JobFilter,
  type JobState,
  type JobView,
  listJobPage,
  purgeJob,
  purgeJobs,
  retryDeadJobs,
  retryJob,
  showJob,
} from "../../server/features/jobs/service.ts";
import type { CommandContext, Implementation, Options, Outcome } from "../command.ts";
import { limitFrom, table } from "../io.ts";
import { withUserDeps } from "../workspace.ts";

const BY_OPERATOR = { actor: { kind: "operator" } } as const;
const ENDED = ["done", "dead"] as const;

const rowsOf = (jobs: readonly JobView[]) =>
  table(
    ["STATE", "QUEUE", "ABOUT", "ATTEMPTS", "CREATED", "NEXT OR LAST", "ERROR", "ID"],
    jobs.map((job) => [
      job.state,
      job.queue,
      job.template ?? "-",
      `${job.attempts}/${job.max_attempts}`,
      job.created_at,
      job.due_at ?? job.finished_at ?? job.started_at ?? "-",
      job.last_error?.code ?? "-",
      job.id,
    ]),
  );

/** One value a line: an error's reason may be long. */
function detailsOf({ last_error, ...job }: JobView): string {
  const values = { ...job, error: last_error?.code ?? null, reason: last_error?.reason ?? null };
  return table(
    ["FIELD", "VALUE"],
    Object.entries(values).map(([name, value]) => [name, String(value ?? "-")]),
  );
}

const queueFrom = ({ queue }: Options): { queue?: string } => (typeof queue === "string" ? { queue } : {});

function stateFrom<S extends JobState>({ state }: Options, known: readonly S[]): S | undefined {
  if (state === undefined) return undefined;
  const found = known.find((name) => name === state);
  if (found) return found;
  throw misused(`--state: expected ${known.join(", ")}, not ${state}.`);
}

const listing = ({ options }: CommandContext, filter: JobFilter): Parameters<typeof listJobPage>[1] => ({
  ...filter,
  limit: limitFrom(options.limit),
  ...(typeof options.after === "string" ? { cursor: options.after } : {}),
});

async function listed(context: CommandContext, state: JobState | undefined): Promise<Outcome> {
  const filter = { ...queueFrom(context.options), ...(state === undefined ? {} : { state }) };
  const page = await withUserDeps(context, (deps) => listJobPage(deps, listing(context, filter)));
  const more = page.next_cursor ? `More: --after ${page.next_cursor}\n` : "";
  return { json: page, text: rowsOf(page.data) + more };
}

export const list: Implementation = {
  run: (context) => listed(context, stateFrom(context.options, JOB_STATE_NAMES)),
};

export const show: Implementation = {
  run: async (context) => {
    const job = await withUserDeps(context, (deps) => told(showJob(deps, idFrom(context))));
    return { json: job, text: detailsOf(job) };
  },
};

export const retry: Implementation = {
  run: async (context) => {
    const { all } = context.options;
    const id = context.arguments[0];
    if ((id === undefined) !== Boolean(all)) {
      throw misused("Say which jobs, in one way.", "Give the id of a job, or --all for every dead one.");
    }
    if (id !== undefined) {
      const job = await withUserDeps(context, (deps) => told(retryJob(deps, idFrom(context), BY_OPERATOR)));
      return { json: job, text: `It is due now.\n${rowsOf([job])}` };
    }
    const { queue } = queueFrom(context.options);
    const jobs_retried = await withUserDeps(context, (deps) => retryDeadJobs(deps, queue, BY_OPERATOR));
    return { json: { jobs_retried }, text: `Due now: ${jobs_retried}. Those whose link or code is gone stay dead.\n` };
  },
};

export const dead: Implementation = {
  run: async (context) => {
    if (context.arguments[0] === undefined) return listed(context, "dead");
    const job = await withUserDeps(context, (deps) => told(giveUpJob(deps, idFrom(context), BY_OPERATOR)));
    return { json: job, text: `It is not tried any more.\n${rowsOf([job])}` };
  },
};

export const purge: Implementation = {
  run: async (context) => {
    const { yes } = context.options;
    if (context.arguments[0] !== undefined) {
      await withUserDeps(context, (deps) => told(purgeJob(deps, idFrom(context), BY_OPERATOR)));
      return { json: { jobs_deleted: 1 }, text: "Deleted.\n" };
    }
    const state = stateFrom(context.options, ENDED);
    const which = { ...queueFrom(context.options), states: state ? [state] : ENDED };
    if (yes !== true) {
      const meant = `every job ${which.queue ? `of ${which.queue} ` : ""}that is ${which.states.join(" or ")}`;
      throw misused(`This deletes ${meant}.`, "Add --yes if that is what you want, or give the id of one job.");
    }
    const jobs_deleted = await withUserDeps(context, (deps) => purgeJobs(deps, which, BY_OPERATOR));
    return { json: { jobs_deleted }, text: `Deleted: ${jobs_deleted}.\n` };
  },
};

const idFrom = ({ arguments: [id] }: CommandContext) => (id ?? "").toLowerCase();

const WHY: Readonly<Record<string, string>> = {
  waiting: "It waits for its turn.",
  running: "It runs at this moment.",
  done: "It is done.",
  dead: "It is dead already.",
  secrets_erased:
    "The link or code that it was about was erased when it died: whoever needs that has to ask for a new one.",
};

/** What the service refuses, in the words of the command line. */
async function told<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const { errorCode, details } = error as { errorCode?: string; details?: { reason?: string } };
    if (errorCode === "NOT_FOUND") {
      throw failed("There is no such job.", "`primer jobs list` shows them; what was done is kept for a week.", error);
    }
    if (errorCode !== "CONFLICT") throw error;
    throw failed(WHY[details?.reason ?? ""] ?? "That cannot be done now.", "`primer jobs show` tells more.", error);
  }
}
