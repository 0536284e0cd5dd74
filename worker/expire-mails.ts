import { expireJobs } from "../db/queries/jobs.ts";
import type { WorkerDeps } from "./job.ts";
import { ONLY_A_LINK } from "./mail/prepare-mail.ts";

const DAY_MS = 86_400_000;
const BATCH = 500;
const TEMPLATES = [...ONLY_A_LINK];

/**
 * How long mails wait for a server (milliseconds): for as long as their link works, and all others for longer than they
 * would still be sent, so that nothing is given up that somebody could have had.
 */
const BOUNDS = [
  {
    waitedMs: 2 * DAY_MS,
    but: false,
    reason: "Its link does not work any more, and no mail server has taken it till then",
  },
  { waitedMs: 30 * DAY_MS, but: true, reason: "No mail server has taken it for 30 days" },
] as const;

/**
 * Declares mails dead that no server was there for, so that the queue has a bound. They are listed with the reason for as
 * long as any dead job.
 */
export async function expireMails({ db, log }: Pick<WorkerDeps, "db" | "log">, signal: AbortSignal): Promise<void> {
  for (const { reason, ...bound } of BOUNDS) {
    const which = { queue: "send-mail", templates: TEMPLATES, limit: BATCH, ...bound } as const;
    let mails = 0;
    for (let count = BATCH; count === BATCH && !signal.aborted; mails += count) {
      count = await expireJobs(db.orm, which, { code: "MAIL_EXPIRED", reason });
    }
    if (mails > 0)
      log.warn("Mails that have waited for too long are given up", { event: "mail.expired", mails, reason });
  }
}
