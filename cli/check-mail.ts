import { textOf } from "../config/errors.ts";
import type { Settings } from "../config/schema.ts";
import { appearanceOf } from "../worker/mail/appearance.ts";
import { explainSmtpError } from "../worker/mail/smtp-errors.ts";
import { checkOverrides, type TemplateProblem } from "../worker/mail/templates.ts";
import { createMailer, type Provider } from "../worker/mail/transport.ts";
import { broken, type Finding, ok, warning } from "./findings.ts";

const CHECK = "mail";

/** Whether mails get out: greets each mail server, secures the connection and logs in; and what of the home's own files is of use. */
export async function checkMail(home: string, settings: Settings): Promise<Finding[]> {
  return [...(await checkServers(home, settings)), ...checkMailFiles(home, settings).map(fileFinding)];
}

async function checkServers(home: string, settings: Settings): Promise<Finding[]> {
  try {
    const mailer = createMailer(settings, home);
    const findings = await Promise.all(mailer.providers.map(checkServer)).finally(() => mailer.close());
    if (findings.length > 0 || settings.environment !== "production") return findings;
    return [
      warning(CHECK, "no mail server is set: mails are kept and nobody gets them", "Put SMTP_URL into secrets.env."),
    ];
  } catch (error) {
    return [broken(CHECK, textOf(error), "Mend the setting named.")];
  }
}

async function checkServer(provider: Provider): Promise<Finding> {
  const { address, security, user } = provider;
  try {
    await provider.verify();
  } catch (error) {
    const { message, mend } = explainSmtpError(error);
    return broken(CHECK, `${address}: ${message}`, mend);
  }
  const login = user === undefined ? "" : `, logs in as ${user}`;
  if (security === "tls" || security === "starttls") return ok(CHECK, `${address} answers over verified TLS${login}`);
  const isNear = /^(localhost|127\.|\[::1\])/.test(address);
  if (isNear) return ok(CHECK, `${address} on this machine answers${login}`);
  return warning(CHECK, `${address} answers${login}, without TLS that is demanded`, 'Set mail.tls = "required".');
}

/** Files of the home for mails that are of no use: templates that cannot be read, a logo that is none. */
export function checkMailFiles(home: string, settings: Settings): TemplateProblem[] {
  const problems = checkOverrides(home);
  appearanceOf(settings, home, (problem) => problems.push(problem));
  return problems;
}

const fileFinding = ({ path, reason }: TemplateProblem): Finding =>
  warning(CHECK, `${path}: ${reason}`, "Mend it; until then mails do without it. `primer mail preview` shows them.");
