import type { MailPayload } from "../../../db/jobs.ts";
import type { TestApp } from "../../support/app.ts";

/** Takes the mails that were queued since the last time, with what is sealed in them, in their order. */
export async function takeMails(app: TestApp): Promise<MailPayload[]> {
  const { jobs } = app.deps;
  const taken: MailPayload[] = [];
  for (;;) {
    const claims = await jobs.claim("send-mail", { limit: 50, suspects: false });
    if (claims.length === 0) return taken;
    for (const claim of claims) taken.push(jobs.open({ ...claim, queue: "send-mail" }));
  }
}

/** The token in the one mail that was queued since the last time. */
export async function tokenIn(app: TestApp, template: MailPayload["template"]): Promise<string> {
  const mails = await takeMails(app);
  const [mail] = mails;
  if (mails.length !== 1 || mail?.template !== template || !mail.sealed?.token) {
    throw new Error(`Expected one mail ${template}, not ${mails.map((each) => each.template).join(", ")}`);
  }
  return mail.sealed.token;
}
