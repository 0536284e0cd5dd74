import { redactText } from "../../config/log.ts";

/** What nodemailer tells of a failure; `command` is the one that the server answered. */
interface SmtpError {
  readonly code?: string;
  readonly command?: string;
  readonly responseCode?: number;
  readonly response?: string;
  readonly message?: string;
}

const smtpError = (error: unknown): SmtpError => (typeof error === "object" && error !== null ? error : {});

/** "Service not available, closing transmission channel" (RFC 5321, section 4.2.3). */
const CLOSING_DOWN = 421;
/** "You must authenticate", "you may not relay": about us and not about the recipient, whatever was asked. */
const ABOUT_US = /^53\d|^5\d\d[ -]5\.7\.|\brelay/i;

/** Whether a server works, and has something against this recipient or this message, for now or for good. */
export function isAboutThisMail(error: unknown): boolean {
  const { code, command, responseCode = 0 } = smtpError(error);
  if (isRefusalForGood(error)) return true;
  const isAnswer = code === "EENVELOPE" || code === "EMESSAGE";
  const isDeferral = responseCode >= 400 && responseCode < 500 && responseCode !== CLOSING_DOWN;
  return isAnswer && isDeferral && (command === "RCPT TO" || command === "DATA");
}

/**
 * Whether a server refused this recipient or this message for good, so that no other server needs to be asked and no
 * further attempt made: a 5xx (RFC 5321, section 4.2.1) to RCPT TO or DATA, or an address that cannot be written to.
 * What it has against us, or against everybody, is not: another server may take the mail, and an operator mend it.
 */
export function isRefusalForGood(error: unknown): boolean {
  const { code, command, responseCode = 0, response = "" } = smtpError(error);
  if (code !== "EENVELOPE" && code !== "EMESSAGE") return false;
  if (command === "API") return true;
  if (responseCode < 500) return false;
  return command === "DATA" || (command === "RCPT TO" && !ABOUT_US.test(response));
}

export interface SmtpFault {
  /** How far it got. */
  readonly step: "find" | "connect" | "secure" | "log_in" | "sender" | "recipient" | "message";
  readonly message: string;
  readonly mend: string;
  /** Whether the server could not be worked with at all, as opposed to its refusing this mail. */
  readonly isUnreachable: boolean;
}

const CERTIFICATE = /certificate|CERT_|self.signed|SELF_SIGNED|UNABLE_TO_|ERR_TLS|altnames?|hostname/i;

/** A failure in words that an operator can act on. */
export function explainSmtpError(error: unknown): SmtpFault {
  const { code = "", command = "", message = String(error), response } = smtpError(error);
  const said = (response ?? message).replace(/\s+/g, " ").trim();
  const fault = (step: SmtpFault["step"], mend: string, isUnreachable = true): SmtpFault => ({
    step,
    message: redactText(said),
    mend,
    isUnreachable,
  });
  if (code === "EDNS")
    return fault("find", "The host in SMTP_URL has no address: is it spelt right, does DNS work here?");
  if (code === "ETLS" || command === "STARTTLS" || CERTIFICATE.test(message) || CERTIFICATE.test(code))
    return fault("secure", TLS_HINT);
  if (code === "EAUTH" || command.startsWith("AUTH")) {
    return fault(
      "log_in",
      "See that user and password in SMTP_URL are right; special characters in them are written as %40 and so on.",
    );
  }
  if (command === "MAIL FROM") {
    return fault("sender", "Set mail.from to an address that this server lets you send from.", false);
  }
  if (command === "RCPT TO" || command === "API") {
    return fault(
      "recipient",
      "The server does not take mails for this address from you: is it right, and may you relay?",
      false,
    );
  }
  if (command === "DATA") {
    return fault("message", "The server does not take this mail; its answer says why.", false);
  }
  return fault(
    "connect",
    "Is the mail server up, are host and port in SMTP_URL right (465 wants smtps://, 587 and 25 smtp://), and does a firewall let them through?",
  );
}

const TLS_HINT =
  "The connection cannot be secured. Where the CA is your own name it in mail.tls_ca; see that the certificate has the host's name in SMTP_URL, and use smtps:// for port 465.";
