import type { MailPayload, SignInFigures } from "../../db/jobs.ts";
import { findSession } from "../../db/queries/sessions.ts";
import { findUser } from "../../db/queries/users.ts";
import type { Deps } from "../../server/deps.ts";
import { lookAtInvitation } from "../../server/features/invitations/service.ts";
import type { MailTemplate } from "../../server/features/mail/service.ts";
import { deviceOf } from "../../server/features/sessions/service.ts";
import { type LinkPurpose, lookAtSingleUseToken } from "../../server/features/tokens/service.ts";
import type { Geo } from "../../server/ports/geo.ts";
import { appearanceOf, invitationLink, linkTo, messageIdOf, senderOf } from "./appearance.ts";
import { renderMail } from "./render.ts";
import { SAMPLES, type Values } from "./samples.ts";
import { findTemplate, type TemplateProblem } from "./templates.ts";
import type { Message } from "./transport.ts";

export interface MailDeps extends Pick<Deps, "db" | "settings" | "clock" | "log"> {
  readonly home: string;
  /** Where addresses are, where that can be looked up. */
  readonly geo?: Pick<Geo, "placeOf">;
}

/** A mail that waits to be sent. */
export interface QueuedMail {
  readonly id: string;
  readonly data: MailPayload;
  readonly createdAt: Date;
}

/** Why a mail is not sent any more. */
export type Obsolete = "unknown_template" | "user_gone" | "user_disabled" | "link_dead" | "address_gone" | "too_old";

const DAY_MS = 86_400_000;

/** Which link a mail has. */
const LINKS: Partial<Record<MailTemplate, LinkPurpose>> = {
  verify_email: "verify_email",
  password_reset: "reset_password",
  new_sign_in: "end_session",
  suspicious_sign_in: "end_session",
};
/** Worth nothing without their link, and nothing to somebody who is not let in. */
export const ONLY_A_LINK: ReadonlySet<MailTemplate> = new Set(["verify_email", "password_reset"]);
/** After that time (milliseconds) what they tell would surprise more than help. */
const NOTICE_AGE_MS = 7 * DAY_MS;
const REPORT_AGE_MS = 2 * DAY_MS;
const REPORTS: ReadonlySet<MailTemplate> = new Set(["daily_report", "operator_alert"]);

/**
 * Puts a mail together from what is known now: whom it is for, whether its link still works, what has become of the
 * session. @returns why not, where it has become pointless
 */
export async function prepareMail(
  deps: MailDeps,
  mail: QueuedMail,
): Promise<Message | { readonly obsolete: Obsolete }> {
  const { data, createdAt } = mail;
  const { template } = data;
  if (!(template in SAMPLES)) return { obsolete: "unknown_template" };
  const age = deps.clock.now().getTime() - createdAt.getTime();
  if (age > (REPORTS.has(template) ? REPORT_AGE_MS : NOTICE_AGE_MS)) return { obsolete: "too_old" };
  const found = await findUser(deps.db.orm, { id: data.user_id });
  if (!found || found.user.erasedAt !== null) return { obsolete: "user_gone" };
  const { user } = found;
  // To the old address or to nobody: what was sealed is erased once the mail is done.
  if (template === "email_changed" && data.sealed?.to === undefined) return { obsolete: "address_gone" };
  if (ONLY_A_LINK.has(template) && user.status === "disabled") return { obsolete: "user_disabled" };
  const session = "session_id" in data ? await findSession(deps.db.orm, data.session_id) : undefined;
  const ended = session !== undefined && isOver(deps, session.session);
  const link = ended ? "" : await liveLink(deps, data);
  if (ONLY_A_LINK.has(template) && link === "") return { obsolete: "link_dead" };
  const { username } = user;
  const own =
    data.template === "invitation"
      ? await invitationValues(deps, data, username)
      : await valuesOf(deps, mail, session?.session);
  if (!own) return { obsolete: "link_dead" };
  const values = { username, ended: ended ? "yes" : "", new_address: masked(user.email), ...own };
  return messageOf(deps, mail, { to: data.sealed?.to ?? user.email, values, link });
}

type Session = NonNullable<Awaited<ReturnType<typeof findSession>>>["session"];

const isOver = ({ clock }: MailDeps, { revokedAt, expiresAt }: Session) =>
  revokedAt !== null || expiresAt <= clock.now();

/** The link of a mail while its token works; empty where there is none. */
async function liveLink(deps: MailDeps, data: MailPayload): Promise<string> {
  if (data.template === "invitation") return invitationLink(deps.settings, data.sealed.token);
  const { template, user_id, sealed } = data;
  const purpose = LINKS[template];
  if (purpose === undefined || sealed?.token === undefined) return "";
  const token = await lookAtSingleUseToken(deps.db.orm, deps, sealed.token);
  const isGood = token?.purpose === purpose && token.userId === user_id;
  return isGood ? linkTo(deps.settings, purpose, sealed.token) : "";
}

/** What is filled in beside the names that all mails have. */
async function valuesOf(
  deps: MailDeps,
  { data, createdAt }: QueuedMail,
  session: Session | undefined,
): Promise<Values> {
  const { locale } = deps.settings.mail;
  const time = timeIn(deps, createdAt);
  switch (data.template) {
    case "verify_email":
    case "password_reset": {
      const token = await lookAtSingleUseToken(deps.db.orm, deps, data.sealed.token);
      return { expires: token ? timeIn(deps, token.expiresAt) : "" };
    }
    case "new_sign_in":
      return { ...deviceValues(deps, session), time: timeIn(deps, session?.createdAt ?? createdAt) };
    case "suspicious_sign_in": {
      const signals = Object.fromEntries(data.signals.map((signal) => [signal, "yes"]));
      return { ...signals, ...deviceValues(deps, session), time: timeIn(deps, session?.createdAt ?? createdAt) };
    }
    case "refresh_reused":
      return { ...deviceValues(deps, session), signed_in: session ? timeIn(deps, session.createdAt) : "", time };
    case "second_factor_changed":
      return { [data.change]: "yes", time };
    case "daily_report": {
      const day = new Intl.DateTimeFormat(locale, { dateStyle: "long", timeZone: "UTC" }).format(new Date(data.day));
      const failing = data.top_failing.map(({ address, failures }) => `${address} (${failures})`).join("\n");
      const before = figureValues(data.week_before, locale, "_before");
      const unusual = await unusualValues(deps, data);
      return { day, ...figureValues(data.figures, locale), ...before, top_failing: failing, ...unusual };
    }
    case "operator_alert":
      return { what: data.what, why: data.why, mend: data.mend, time };
    default:
      return { time };
  }
}

/** Whoever is invited has no name here. @returns undefined where the invitation is worth nothing any more */
async function invitationValues(
  deps: MailDeps,
  { sealed }: Extract<MailPayload, { template: "invitation" }>,
  inviter: string,
): Promise<Values | undefined> {
  const invitation = await lookAtInvitation(deps, sealed.token);
  if (!invitation) return undefined;
  const code = invitationLink(deps.settings, sealed.token) === "" ? sealed.token : "";
  return { username: "", inviter, code, expires: timeIn(deps, invitation.expiresAt) };
}

function figureValues(figures: SignInFigures, locale: string, suffix = ""): Values {
  const { format } = new Intl.NumberFormat(locale);
  return Object.fromEntries(Object.entries(figures).map(([name, value]) => [`${name}${suffix}`, format(value)]));
}

/** Accounts are named as they are called now; of one that was erased since there is nothing to tell. */
async function unusualValues(
  { db }: MailDeps,
  { unusual_networks = [], unusual_accounts = [] }: MailPayload & { readonly template: "daily_report" },
): Promise<Values> {
  const accounts: string[] = [];
  for (const account of unusual_accounts) {
    const found = await findUser(db.orm, { id: account.user_id });
    if (found && found.user.erasedAt === null) accounts.push(`${found.user.username} (${account.score})`);
  }
  return {
    unusual_networks: unusual_networks.map(({ network, score }) => `${network} (${score})`).join("\n"),
    unusual_accounts: accounts.join("\n"),
  };
}

/** Somebody who logs in names the device: without dots and slashes no mail reader makes a link of it. */
const plainName = (name: string) =>
  name
    .replace(/[^\p{L}\p{N} '’()_-]/gu, " ")
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, 64);

function deviceValues({ geo }: MailDeps, session: Session | undefined): Values {
  const ip = session?.ip ?? "";
  const place = ip === "" ? undefined : geo?.placeOf(ip);
  return {
    device: session ? deviceOf(session.userAgent) : "",
    device_name: plainName(session?.deviceName ?? ""),
    ip,
    place: [place?.city, place?.country].filter(Boolean).join(", "),
  };
}

const timeIn = ({ settings }: MailDeps, time: Date): string =>
  new Intl.DateTimeFormat(settings.mail.locale, {
    year: "numeric",
    month: "long",
    day: "numeric",
    hour: "numeric",
    minute: "2-digit",
    timeZoneName: "short",
    timeZone: settings.mail.time_zone,
  }).format(time);

/** Of an address as much as its owner knows it by. */
const masked = (address: string) => address.replace(/^(.)[^@]*/u, "$1•••");

/** What stands in every mail about the installation. */
export const commonValues = ({ mail, server }: Deps["settings"]): Values => ({
  product: mail.product_name,
  host: new URL(server.public_url).host,
});

function messageOf(
  deps: MailDeps,
  { id, data }: QueuedMail,
  { to, values, link }: { readonly to: string; readonly values: Values; readonly link: string },
): Message {
  const { settings, home, clock } = deps;
  const { template: name } = data;
  const tell = (problem: TemplateProblem) =>
    deps.log.warn("A file for mails is of no use; the mail goes without it", {
      event: "mail.file_refused",
      ...problem,
    });
  const { style, attachments } = appearanceOf(settings, home, tell);
  const files = findTemplate(home, settings.mail.locale, name, tell);
  const blank = Object.fromEntries(Object.keys(SAMPLES[name]).map((key) => [key, ""]));
  const all = { ...blank, ...values, ...commonValues(settings) };
  const rendered = renderMail({ ...files, values: all, link, several: data.several === true }, style);
  return {
    messageId: messageIdOf(settings, id),
    from: senderOf(settings),
    replyTo: settings.mail.reply_to ?? undefined,
    to,
    date: clock.now(),
    ...rendered,
    attachments,
  };
}
