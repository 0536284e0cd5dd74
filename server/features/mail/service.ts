import { createHmac } from "node:crypto";
import { deriveKey } from "../../../config/secrets.ts";
import type { Tx, WithCommit } from "../../../db/database.ts";
import type { MailPayload, SealedMail } from "../../../db/jobs.ts";
import { type MailLimits, takeMailRoom } from "../../../db/queries/mail.ts";
import type { Deps } from "../../deps.ts";

/** What queuing a mail needs of the process. */
export type MailDeps = Pick<Deps, "jobs" | "clock" | "secrets" | "settings"> & Partial<Pick<Deps, "log">>;

export type MailTemplate = MailPayload["template"];

const SHORTLY_MS = 15 * 60_000;
const DAY_MS = 86_400_000;
const NO_END = Number.MAX_SAFE_INTEGER;

/** OWASP's measure for mails that anybody can cause. */
const LIMITS: MailLimits = { shortly: { count: 3, ms: SHORTLY_MS }, daily: { count: 10, ms: DAY_MS } };
/** A notice is never left out: one more than that is sent for all that come after it. */
const NOTICE_LIMITS: MailLimits = { shortly: { count: 4, ms: SHORTLY_MS }, daily: { count: NO_END, ms: DAY_MS } };

/** What strangers can cause by typing somebody's address; and invitations, which go to people who have no account. */
const BY_STRANGERS: ReadonlySet<MailTemplate> = new Set([
  "verify_email",
  "already_registered",
  "password_reset",
  "invitation",
]);
/** What the installation itself sends to its administrators, at its own pace. */
const UNCOUNTED: ReadonlySet<MailTemplate> = new Set(["daily_report", "operator_alert"]);

/** A mail without its secrets, which are made only where it is sent. */
type MailToQueue = MailPayload extends infer M
  ? M extends MailPayload
    ? Omit<M, "sealed" | "several">
    : never
  : never;

export interface QueuedMail {
  /** The key of the address it goes to, for mails that strangers can cause: those are counted by address. */
  readonly emailKey?: string;
  /** Whoever has it sent to an address of their choice: they have as much room for that as an address has. */
  readonly causedBy?: string;
  /** Makes what only the mail may know, such as the token of a link. Not called where no mail is sent. */
  readonly sealed?: () => Promise<SealedMail>;
  /** Of the same transaction: the mail goes with the commit and is not waited for by itself. */
  readonly withCommit?: WithCommit;
}

/**
 * Queues a mail in the transaction of what causes it. Of mails that strangers can cause one address gets 3 in 15 minutes
 * and 10 a day of each kind; no more are queued, and no token is made for them, so the link that was sent last goes on
 * working. Notices to a user are never left out: of a kind that comes more often than that, one more waits until the 15
 * minutes are over and stands for all the others.
 *
 * @returns whether a mail tells of it, now or in 15 minutes at the latest; false where there is no room for it
 */
export async function queueMail(
  tx: Tx,
  deps: MailDeps,
  mail: MailToQueue,
  { emailKey, causedBy, sealed, withCommit }: QueuedMail = {},
): Promise<boolean> {
  const { template, user_id } = mail;
  const now = deps.clock.now();
  const isNotice = !BY_STRANGERS.has(template);
  const recipient = emailKey === undefined ? `user:${user_id}` : addressKey(deps, emailKey);
  const counter = { recipient, template };
  if (causedBy !== undefined && !(await takeMailRoom(tx, { recipient: `by:${causedBy}`, template }, LIMITS, now))) {
    return false;
  }
  const times = UNCOUNTED.has(template)
    ? [now]
    : await takeMailRoom(tx, counter, isNotice ? NOTICE_LIMITS : LIMITS, now);
  if (!times) return isNotice;
  const recent = times.filter((time) => now.getTime() - time.getTime() < SHORTLY_MS).length;
  const standsForAll = isNotice && recent === NOTICE_LIMITS.shortly.count;
  const payload = {
    ...mail,
    ...(standsForAll ? { several: true } : {}),
    ...(sealed ? { sealed: await sealed() } : {}),
  } as MailPayload;
  const id = await deps.jobs.enqueue(tx, "send-mail", payload, {
    ...(standsForAll ? { startAfter: SHORTLY_MS / 1000 } : {}),
    ...(withCommit ? { withCommit } : {}),
  });
  if (deps.settings.mail.smtp_url === "") {
    deps.log?.info("A mail is kept, since no mail server is set; `primer mail show` prints it", {
      event: "mail.kept",
      mail_id: id,
      template,
    });
  }
  return true;
}

/** Nobody reads from the table who was written to. */
function addressKey({ secrets }: MailDeps, emailKey: string): string {
  const key = deriveKey(secrets.pepper[0], "addresses that mails were sent to");
  return `address:${createHmac("sha256", key).update(emailKey).digest("base64url")}`;
}
