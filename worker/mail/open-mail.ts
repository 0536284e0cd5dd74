import type { Deps } from "../../server/deps.ts";
import type { Handlers } from "../job.ts";
import { sendMail } from "../jobs/send-mail.ts";
import { createMailer } from "./transport.ts";

/**
 * What a worker sends mails with; its servers are shown in monitoring. While no mail server is set there is no handler, so
 * nobody takes mails out of the queue: they are kept.
 */
export function openMail(deps: Deps, home: string): { readonly handlers: Handlers; close(): void } {
  const mailer = createMailer(deps.settings, home);
  for (const { name, breaker } of mailer.providers) {
    deps.dependencies.add(name, { breaker, meanwhile: "mails go to the next server, or wait in the queue" });
  }
  const handlers: Handlers =
    mailer.providers.length === 0 ? {} : { "send-mail": (_deps, job) => sendMail({ ...deps, home, mailer }, job) };
  return { handlers, close: mailer.close };
}
