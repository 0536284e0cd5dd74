/** A real mail server in this process, with the faults that mail servers have. */
import { createServer, type Server, type Socket } from "node:net";
import { type ParsedMail, simpleParser } from "mailparser";
import { SMTPServer } from "smtp-server";
import type { Issued } from "../../support/certificates.ts";

export interface Received {
  readonly from: string;
  readonly to: readonly string[];
  /** As it came over the line. */
  readonly raw: string;
  readonly mail: ParsedMail;
  readonly secure: boolean;
  readonly user: string | undefined;
  /** Whether SMTPUTF8 was asked for. */
  readonly utf8: boolean;
}

interface SmtpAnswer {
  readonly responseCode: number;
  readonly message: string;
}
const refusal = ({ responseCode, message }: SmtpAnswer) => Object.assign(new Error(message), { responseCode });

export interface SmtpOptions {
  /** Offers TLS with it; from the start where `secure` says so, else by STARTTLS. */
  readonly tls?: Issued;
  readonly secure?: boolean;
  /** Demands this login. */
  readonly login?: { readonly user: string; readonly pass: string };
  readonly onMailFrom?: () => SmtpAnswer | undefined;
  readonly onRecipient?: (address: string) => SmtpAnswer | undefined;
  /** Once the message is there. */
  readonly onMessage?: () => SmtpAnswer | undefined | Promise<undefined>;
}

export interface SmtpHost {
  readonly port: number;
  readonly received: readonly Received[];
  /** How many connections were made. */
  readonly connections: () => number;
  /** How many at most at the same time. */
  readonly mostAtOnce: () => number;
  close(): Promise<void>;
}

/** A mail server that does what it is told. */
export async function startSmtp(options: SmtpOptions = {}, port = 0): Promise<SmtpHost> {
  const received: Received[] = [];
  let connections = 0;
  let open = 0;
  let most = 0;
  const server = new SMTPServer({
    ...(options.tls ? { cert: options.tls.cert, key: options.tls.key } : { hideSTARTTLS: true }),
    secure: options.secure ?? false,
    authOptional: options.login === undefined,
    disabledCommands: options.login === undefined ? ["AUTH"] : [],
    allowInsecureAuth: true,
    closeTimeout: 100,
    onConnect(_session, done) {
      connections++;
      most = Math.max(most, ++open);
      done();
    },
    onClose: () => void open--,
    onAuth({ username, password }, _session, done) {
      const isRight = username === options.login?.user && password === options.login?.pass;
      if (isRight) done(null, { user: username });
      else done(refusal({ responseCode: 535, message: "5.7.8 Authentication credentials invalid" }));
    },
    onMailFrom(_address, _session, done) {
      const answer = options.onMailFrom?.();
      done(answer ? refusal(answer) : null);
    },
    onRcptTo({ address }, _session, done) {
      const answer = options.onRecipient?.(address);
      done(answer ? refusal(answer) : null);
    },
    onData(stream, session, done) {
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("end", async () => {
        const answer = await options.onMessage?.();
        if (answer) return done(refusal(answer));
        const { mailFrom, rcptTo } = session.envelope;
        const raw = Buffer.concat(chunks).toString("utf8");
        const args = (mailFrom ? mailFrom.args : undefined) as Record<string, unknown> | undefined;
        received.push({
          from: mailFrom ? mailFrom.address : "",
          to: rcptTo.map(({ address }) => address),
          raw,
          mail: await simpleParser(raw),
          secure: session.secure,
          user: session.user,
          utf8: "SMTPUTF8" in (args || {}),
        });
        done();
      });
    },
  });
  server.on("error", () => {}); // a client that goes away, as some here do
  await new Promise<void>((listening) => server.listen(port, "127.0.0.1", listening));
  return {
    port: portOf(server.server),
    received,
    connections: () => connections,
    mostAtOnce: () => most,
    close: () => new Promise((closed) => server.close(() => closed())),
  };
}

const portOf = (server: { address(): unknown }): number => (server.address() as { port: number }).port;

/** After which line from the client a server says nothing any more, or hangs up. "connect": before its greeting. */
export type Step = "connect" | "EHLO" | "MAIL" | "RCPT" | "DATA" | "message";

/** Speaks SMTP up to a step, and then falls silent or hangs up. What it took up to the end it keeps. */
export async function startFaulty(
  step: Step,
  fault: "stall" | "hang_up" | "trickle" | "take_and_hang_up",
): Promise<SmtpHost> {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server: Server = createServer((socket) => {
    connections++;
    sockets.add(socket);
    socket.on("error", () => {}).on("close", () => sockets.delete(socket));
    const fail = () => {
      if (fault === "hang_up") socket.destroy();
      if (fault === "trickle") trickle(socket);
      if (fault === "take_and_hang_up") socket.end("250 taken\r\n");
    };
    if (step === "connect") return fail();
    socket.write("220 faulty.test ESMTP\r\n");
    let inMessage = false;
    let buffer = "";
    socket.on("data", (chunk) => {
      buffer += chunk.toString("latin1");
      if (inMessage) {
        if (buffer.endsWith("\r\n.\r\n")) fail();
        return;
      }
      const line = buffer;
      if (!line.endsWith("\r\n")) return;
      buffer = "";
      const verb = line.slice(0, 4).toUpperCase();
      if (verb === step) return fail();
      if (verb === "DATA") inMessage = true;
      socket.write(verb === "DATA" ? "354 go ahead\r\n" : "250 ok\r\n");
    });
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    port: portOf(server),
    received: [],
    connections: () => connections,
    mostAtOnce: () => sockets.size,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((closed) => server.close(() => closed()));
    },
  };
}

/** Always something, never an end: no time of silence would ever notice it. */
function trickle(socket: Socket): void {
  const timer = setInterval(() => socket.write("250-still here\r\n"), 50);
  socket.on("close", () => clearInterval(timer));
}
