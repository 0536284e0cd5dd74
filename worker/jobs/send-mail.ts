import { redactText } from "../../config/log.ts";
import type { Metrics } from "../../config/meter.ts";
import { inSpan } from "../../config/trace.ts";
import { BreakerOpenError } from "../../db/breaker.ts";
import { type Job, PermanentFailure, RetryLater } from "../job.ts";
import { type MailDeps, prepareMail } from "../mail/prepare-mail.ts";
import { explainSmtpError, isRefusalForGood } from "../mail/smtp-errors.ts";
import type { Mailer } from "../mail/transport.ts";

export interface SendMailDeps extends MailDeps {
  readonly metrics: Pick<Metrics, "count">;
  readonly mailer: Mailer;
}

/**
 * Sends a mail as things stand now; one whose link does not work any more, or whose user is gone, is done without being
 * sent. At least once: where the answer to a mail that was taken is lost, the next attempt sends it again with the same
 * Message-ID.
 *
 * @throws PermanentFailure where the server refused this recipient or this mail for good; RetryLater while every server
 *   is left alone since it keeps failing; whatever else is thrown is tried again later too
 */
export async function sendMail(deps: SendMailDeps, job: Job<"send-mail">): Promise<void> {
  const { id, data, attempt } = job;
  const facts = { mail_id: id, template: data.template, user_id: data.user_id, request_id: data.request_id, attempt };
  const message = await prepareMail(deps, job);
  if ("obsolete" in message) {
    deps.metrics.count("primer_mails_total", { outcome: "obsolete" });
    deps.log.info("A mail has become pointless and is not sent", {
      event: "mail.obsolete",
      ...facts,
      reason: message.obsolete,
    });
    return;
  }
  try {
    const { provider } = await inSpan("mail.send", { kind: "client" }, () => deps.mailer.send(message, job.signal));
    deps.metrics.count("primer_mails_total", { outcome: "sent" });
    deps.log.info("A mail was sent", { event: "mail.sent", ...facts, provider });
  } catch (error) {
    const { step, message: said } = explainSmtpError(error);
    const reason = withoutAddress(said, message.to);
    const isFinal = isRefusalForGood(error);
    deps.metrics.count("primer_mails_total", { outcome: isFinal ? "refused" : "deferred" });
    deps.log.warn(isFinal ? "A mail was refused for good" : "A mail could not be sent now", {
      event: isFinal ? "mail.refused" : "mail.deferred",
      ...facts,
      step,
      reason,
    });
    if (isFinal) throw new PermanentFailure(reason);
    if (error instanceof BreakerOpenError) throw new RetryLater(undefined, reason);
    throw new Error(`The mail could not be sent: ${reason}`);
  }
}

/** Servers like to repeat the address that they refuse. */
const withoutAddress = (text: string, address: string) =>
  redactText(text.replaceAll(address, "the recipient")).slice(0, 300);
