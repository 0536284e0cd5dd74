import { resolve } from "node:path";
import { createTransport } from "nodemailer";
import { readPem } from "../../config/certificate.ts";
import { bareHost, isLoopback } from "../../config/load.ts";
import type { Settings } from "../../config/schema.ts";
import { type Breaker, BreakerOpenError, createBreaker } from "../../db/breaker.ts";
import { isAboutThisMail, isRefusalForGood } from "./smtp-errors.ts";

/** How long sending may take (milliseconds): one step of it in which the server says nothing, and all of it. */
export interface Deadlines {
  readonly step: number;
  readonly whole: number;
}
export const DEADLINES: Deadlines = { step: 10_000, whole: 60_000 };

/** How long a server that has failed five times in a row is left alone at most (milliseconds). */
const LONGEST_PAUSE_MS = 30_000;
/** Closed before servers do it, which have to wait 5 minutes (RFC 5321, section 4.5.3.2.7). */
const IDLE_MS = 60_000;

export interface Attachment {
  readonly cid: string;
  readonly filename: string;
  readonly content: Uint8Array;
}

/** A mail as it is handed over. */
export interface Message {
  readonly messageId: string;
  readonly from: { readonly name: string; readonly address: string };
  readonly replyTo: { readonly name: string; readonly address: string } | undefined;
  readonly to: string;
  readonly date: Date;
  readonly subject: string;
  readonly text: string;
  readonly html: string;
  readonly attachments: readonly Attachment[];
}

/** A mail server that mails are handed to. */
export interface Provider {
  /** In logs and in monitoring: "smtp", and "smtp_2" and so on for those after it. */
  readonly name: string;
  /** Host and port. */
  readonly address: string;
  /** Whether TLS is part of it, and whether the certificate is looked at. */
  readonly security: "tls" | "starttls" | "starttls_if_offered" | "plain";
  readonly user: string | undefined;
  readonly breaker: Breaker;
  /** Connects, greets, secures the connection and logs in; sends nothing. Throws what went wrong. */
  verify(): Promise<void>;
  /** @returns the server's last answer */
  send(message: Message, signal: AbortSignal): Promise<string>;
}

export interface Sent {
  readonly provider: string;
  readonly response: string;
}

/** Hands mails to the first of several servers that takes them. */
export interface Mailer {
  /** None: there is nowhere to send mails to. */
  readonly providers: readonly Provider[];
  /**
   * Tries one server after the other; one that fails again and again is passed over for a while.
   *
   * @throws what the server said that refused this recipient or this message for good (see isRefusalForGood): no other
   *   is asked then; else what the last one said, and it can be tried again later
   */
  send(message: Message, signal?: AbortSignal): Promise<Sent>;
  close(): void;
}

/** @param home what relative paths start from  @throws OperatorError (exit 2) where mail.tls_ca cannot be read */
export function createMailer(settings: Settings, home: string, deadlines: Deadlines = DEADLINES): Mailer {
  const { smtp_url, smtp_fallback_urls } = settings.mail;
  const urls = smtp_url === "" ? [] : [smtp_url, ...smtp_fallback_urls];
  const pools = urls.map((url, index) => openProvider(url, index, settings, home, deadlines));
  return {
    providers: pools,
    async send(message, signal) {
      const whole = AbortSignal.timeout(deadlines.whole);
      const ended = signal ? AbortSignal.any([signal, whole]) : whole;
      let last: unknown;
      for (const provider of pools) {
        try {
          const response = await provider.breaker.run(() => provider.send(message, ended));
          return { provider: provider.name, response };
        } catch (error) {
          if (isRefusalForGood(error) || signal?.aborted) throw error;
          if (last === undefined || !(error instanceof BreakerOpenError)) last = error;
          if (ended.aborted) break;
        }
      }
      throw last ?? new Error("No mail server is set");
    },
    close() {
      for (const pool of pools) pool.close();
    },
  };
}

function openProvider(
  url: string,
  index: number,
  settings: Settings,
  home: string,
  { step }: Deadlines,
): Provider & { close(): void } {
  const { username, password, port: givenPort } = new URL(url);
  const host = bareHost(url);
  const { connections, tls_ca } = settings.mail;
  const security = securityOf(url, settings.mail);
  // What stays on this machine has nobody in between, and its certificate is as a rule one that nobody has signed.
  const isVerified = security !== "starttls_if_offered" || !isLoopback(host) || tls_ca !== "";
  const port = Number(givenPort) || (security === "tls" ? 465 : 587);
  const user = username === "" ? undefined : decodeURIComponent(username);
  const pool = createTransport({
    pool: true,
    host,
    port,
    name: bareHost(settings.server.public_url),
    secure: security === "tls",
    requireTLS: security === "starttls",
    ignoreTLS: security === "plain",
    tls: {
      minVersion: "TLSv1.2",
      rejectUnauthorized: isVerified,
      ...(tls_ca === "" ? {} : { ca: readPem("mail.tls_ca", resolve(home, tls_ca)) }),
    },
    ...(user === undefined ? {} : { auth: { user, pass: decodeURIComponent(password) }, forceAuth: true }),
    maxConnections: connections,
    // A connection that was kept open may have been closed by the server in between.
    maxRequeues: 2,
    idleTimeout: IDLE_MS,
    dnsTimeout: step,
    connectionTimeout: step,
    greetingTimeout: step,
    socketTimeout: step,
    socketCloseTimeout: 1000,
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  return {
    name: index === 0 ? "smtp" : `smtp_${index + 1}`,
    address: `${host.includes(":") ? `[${host}]` : host}:${port}`,
    security,
    user,
    breaker: createBreaker(`The mail server ${host}`, (error) => !isAboutThisMail(error), LONGEST_PAUSE_MS),
    verify: async () => void (await pool.verify()),
    async send(message, signal) {
      const { replyTo, attachments, ...rest } = message;
      const sent = await pool.sendMail({
        ...rest,
        // As objects: nothing in a name or an address is read as a further one.
        to: { name: "", address: message.to },
        ...(replyTo ? { replyTo } : {}),
        headers: { "Auto-Submitted": "auto-generated" },
        attachments: attachments.map(({ cid, filename, content }) => ({
          cid,
          filename,
          content: Buffer.from(content),
          contentDisposition: "inline" as const,
        })),
        signal,
      });
      return sent.response;
    },
    close: () => pool.close(),
  };
}

/** Whether a connection is TLS. What leaves this machine is, unless the settings say otherwise. */
function securityOf(url: string, { tls, tls_ca }: Settings["mail"]): Provider["security"] {
  if (url.startsWith("smtps:")) return "tls";
  if (tls === "off") return "plain";
  const isOwn = isLoopback(bareHost(url)) && tls_ca === "";
  return tls === "required" && !isOwn ? "starttls" : "starttls_if_offered";
}
