import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { EXIT, failed, misused, textOf } from "../../config/errors.ts";
import { locale as localeKind } from "../../config/kinds.ts";
import { loadSettings } from "../../config/load.ts";
import { createLog } from "../../config/log.ts";
import type { Settings } from "../../config/schema.ts";
import { audit } from "../../server/features/audit/service.ts";
import type { MailTemplate } from "../../server/features/mail/service.ts";
import { parseEmail } from "../../server/features/users/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { isId, systemRandom } from "../../server/ports/random.ts";
import { appearanceOf, messageIdOf, senderOf } from "../../worker/mail/appearance.ts";
import { findKeptMail } from "../../worker/mail/kept-mail.ts";
import { commonValues, prepareMail } from "../../worker/mail/prepare-mail.ts";
import { type RenderedMail, renderMail } from "../../worker/mail/render.ts";
import { COMMON_SAMPLES, MAIL_TEMPLATES, SAMPLES } from "../../worker/mail/samples.ts";
import { explainSmtpError } from "../../worker/mail/smtp-errors.ts";
import { findTemplate, type TemplateProblem } from "../../worker/mail/templates.ts";
import { createMailer, type Message, type Provider } from "../../worker/mail/transport.ts";
import type { CommandContext, Implementation } from "../command.ts";
import { green, type Io, printable, red, yellow } from "../io.ts";
import { withUserDeps } from "../workspace.ts";

const tellOf = (io: Io) => (problem: TemplateProblem) =>
  io.note(`${yellow(io, "!!")} ${problem.path} is of no use: ${problem.reason}. What is built in is taken instead.\n`);

/** Prints a mail that waits in the queue, with its link: whoever may read it here owns the machine. */
export const show: Implementation = {
  run: (context) =>
    withUserDeps(context, async (deps) => {
      const id = (context.arguments[0] ?? "").toLowerCase();
      const mail = isId(id) ? await findKeptMail(deps, id) : undefined;
      if (!mail)
        throw failed(`There is no mail ${id} in the queue.`, "The log names each mail that is kept (mail.kept).");
      const log = createLog(() => "warn", { write: (line) => context.io.note(line) }, systemClock.now);
      const message = await prepareMail({ ...deps, home: context.home, log }, mail);
      const facts = { id, template: mail.data.template, state: mail.state, created_at: mail.createdAt.toISOString() };
      if ("obsolete" in message) {
        const text = `${facts.template}, of ${facts.created_at}: it is not sent any more (${message.obsolete}).\n`;
        return { json: { ...facts, obsolete: message.obsolete }, text };
      }
      const { to, subject, text, html } = message;
      const event = { action: "mail.shown", outcome: "success", actor: { kind: "operator" } } as const;
      const details = { template: facts.template, user_id: mail.data.user_id };
      await deps.db.transaction((tx) => audit(tx, deps, { ...event, subject: { kind: "mail", id }, details }));
      const head = `To:      ${printable(to)}\nSubject: ${printable(subject)}\nState:   ${mail.state}, since ${facts.created_at}\n`;
      return { json: { ...facts, to, subject, text, html }, text: `${head}\n${text}` };
    }),
};

/** Shows a mail with sample values, as the settings and the home's own files make it. */
export const preview: Implementation = {
  async run(context) {
    const { settings } = loadSettings(context.home, context.environment);
    const { html: file, text: asText } = context.options;
    if (file !== undefined && asText === true) throw misused("Give --html FILE or --text, not both.");
    const mail = sampleMail(context, settings, templateFrom(context.arguments[0] ?? ""));
    if (typeof file !== "string") return { json: mail, text: `Subject: ${mail.subject}\n\n${mail.text}` };
    const path = resolve(file);
    try {
      writeFileSync(path, mail.html);
    } catch (error) {
      throw failed(`${path} cannot be written: ${textOf(error)}`, "Name another file with --html.", error);
    }
    return { json: { ...mail, file: path }, text: `Written to ${path}: open it in a browser.\n` };
  },
};

function templateFrom(text: string): MailTemplate {
  const name = MAIL_TEMPLATES.find((template) => template === text.replaceAll("-", "_"));
  if (name) return name;
  throw misused(`There is no mail ${text}.`, `There are ${MAIL_TEMPLATES.join(", ")}.`);
}

function sampleMail({ io, home, options }: CommandContext, settings: Settings, name: MailTemplate): RenderedMail {
  const locale = options.locale === undefined ? settings.mail.locale : localeKind.parse(options.locale);
  if (locale === undefined) throw misused(`--locale: expected ${localeKind.expected}.`);
  const tell = tellOf(io);
  const { style } = appearanceOf({ ...settings, mail: { ...settings.mail, locale } }, home, tell);
  const values = { ...COMMON_SAMPLES, ...SAMPLES[name], ...commonValues(settings) };
  const link = `${settings.server.public_url}/account/example#token=${"0".repeat(43)}`;
  return renderMail({ ...findTemplate(home, locale, name, tell), values, link, several: false }, style);
}

/** Sends a mail through the servers that are set, and tells of each how far it got. Exit 3 where none can be worked with. */
export const test: Implementation = {
  async run(context) {
    const { io, home } = context;
    const { settings } = loadSettings(home, context.environment);
    const to = parseEmail(context.arguments[0] ?? "")?.email;
    if (to === undefined) throw misused("That is no e-mail address.", "primer mail test ada@example.org");
    const mailer = createMailer(settings, home);
    if (mailer.providers.length === 0) {
      throw misused(
        "No mail server is set.",
        "Put SMTP_URL into secrets.env, such as smtps://user:password@mail.example.org.",
      );
    }
    try {
      const looks = [];
      for (const provider of mailer.providers) looks.push(await look(io, provider));
      return await deliver(io, mailer, testMessage(context, settings, to), looks);
    } finally {
      mailer.close();
    }
  },
};

const SECURITY_NAMES = {
  tls: "TLS, certificate verified",
  starttls: "STARTTLS, certificate verified",
  starttls_if_offered: "STARTTLS where it is offered",
  plain: "plain text",
} as const satisfies Record<Provider["security"], string>;

interface Look {
  readonly provider: string;
  readonly address: string;
  readonly ok: boolean;
  readonly step?: string;
  readonly message?: string;
  readonly mend?: string;
}

/** How far a server lets us come without a mail. */
async function look(io: Io, provider: Provider): Promise<Look> {
  const { name, address, security, user } = provider;
  const facts = { provider: name, address };
  try {
    await provider.verify();
    const login = user === undefined ? "no login" : `logged in as ${user}`;
    io.note(`${green(io, "ok")}  ${address} answers (${SECURITY_NAMES[security]}; ${login})\n`);
    return { ...facts, ok: true };
  } catch (error) {
    const { step, message, mend } = explainSmtpError(error);
    io.note(`${red(io, "XX")}  ${address}: ${STEP_NAMES[step]}: ${printable(message)}\n    ${mend}\n`);
    return { ...facts, ok: false, step, message, mend };
  }
}

const STEP_NAMES = {
  find: "its name cannot be looked up",
  connect: "it cannot be connected to",
  secure: "the connection cannot be secured",
  log_in: "it refuses the login",
  sender: "it refuses the sender",
  recipient: "it refuses the recipient",
  message: "it refuses the mail",
} as const;

async function deliver(io: Io, mailer: ReturnType<typeof createMailer>, message: Message, servers: readonly Look[]) {
  const { to, messageId } = message;
  try {
    const { provider, response } = await mailer.send(message);
    io.note(`${green(io, "ok")}  taken by ${provider}: ${printable(response)}\n`);
    const text = `A mail to ${to} was taken. Where it does not arrive, look into the junk folder and the mail server's log for ${messageId}.\n`;
    return { json: { sent: true, to, message_id: messageId, provider, response, servers }, text };
  } catch (error) {
    const fault = explainSmtpError(error);
    const { step, message: said, mend, isUnreachable } = fault;
    if (servers.some(({ ok }) => ok))
      io.note(`${red(io, "XX")}  ${STEP_NAMES[step]}: ${printable(said)}\n    ${mend}\n`);
    return {
      json: { sent: false, to, step, message: said, mend, servers },
      text: `No mail was sent to ${to}: ${STEP_NAMES[step]}.\n`,
      exitCode: isUnreachable ? EXIT.unreachable : EXIT.failed,
    };
  }
}

function testMessage(context: CommandContext, settings: Settings, to: string): Message {
  const tell = tellOf(context.io);
  const { style, attachments } = appearanceOf(settings, context.home, tell);
  const values = {
    ...COMMON_SAMPLES,
    ...commonValues(settings),
    what: "This is a test",
    why: "Somebody ran `primer mail test` with your address.",
    mend: "You can read this, so mails work; there is nothing to do.",
    time: systemClock.now().toUTCString(),
  };
  const files = findTemplate(context.home, settings.mail.locale, "operator_alert", tell);
  return {
    ...renderMail({ ...files, values, link: "", several: false }, style),
    messageId: messageIdOf(settings, systemRandom.id(systemClock.now())),
    from: senderOf(settings),
    replyTo: settings.mail.reply_to ?? undefined,
    to,
    date: systemClock.now(),
    attachments,
  };
}
