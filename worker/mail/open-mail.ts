import type { Deps } from "../../server/deps.ts";
import type { Handlers } from "../job.ts";

/** What a worker sends mails with. */
export interface OpenMail {
  readonly handlers: Handlers;
  close(): void;
}

/**
 * Opens the mail servers that are set; monitoring shows them. While there is none there is no handler, so nobody takes
 * mails out of the queue: they are kept, and nothing of what sends them is loaded.
 */
export async function openMail(deps: Deps, home: string): Promise<OpenMail> {
  if (deps.settings.mail.smtp_url === "") return { handlers: {}, close() {} };
  const [{ createMailer }, { sendMail }] = await Promise.all([
    import("./transport.ts"),
    import("../jobs/send-mail.ts"),
  ]);
  const mailer = createMailer(deps.settings, home);
  for (const { name, breaker } of mailer.providers) {
    deps.dependencies.add(name, { breaker, meanwhile: "mails go to the next server, or wait in the queue" });
  }
  const handlers: Handlers = { "send-mail": (_deps, job) => sendMail({ ...deps, home, mailer }, job) };
  return { handlers, close: mailer.close };
}
