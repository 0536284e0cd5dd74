/**
 * One kept-alive HTTP/1.1 connection, as cheap as it can be: `fetch` takes more of a processor than the server that it
 * measures. One request at a time.
 */
import { textOf } from "../../config/errors.ts";

export interface Target {
  readonly host: string;
  readonly port: number;
  /** PEM of the CA that signed the server's certificate, where the system does not know it. Undefined: plain http. */
  readonly tls: { readonly ca?: string } | undefined;
}

/** What came of a request: an answer, or why there was none. */
export type Reply =
  | { readonly status: number; readonly body: Buffer }
  | { readonly failure: "timeout" | `connection: ${string}` };

export interface HttpConnection {
  /** `done` is called exactly once. */
  send(request: string, done: (reply: Reply) => void): void;
  /** Gives up a request that has waited for longer than this (milliseconds). */
  expire(olderThanMs: number): void;
  close(): void;
}

type Socket = Bun.Socket<undefined>;

/** Before a connection that failed is tried again (milliseconds): a server that refuses them all is not hammered. */
const RECONNECT_AFTER_MS = 50;

export function httpConnection(target: Target): HttpConnection {
  let socket: Socket | undefined;
  let pending: { request: string; done: (reply: Reply) => void; sentAt: number } | undefined;
  let unsent: Buffer | undefined;
  let received: Buffer | undefined;
  let lastFailureAt = Number.NEGATIVE_INFINITY;

  function finish(reply: Reply): void {
    const done = pending?.done;
    pending = undefined;
    received = undefined;
    unsent = undefined;
    done?.(reply);
  }

  function drop(reason: string): void {
    const old = socket;
    socket = undefined;
    old?.end();
    lastFailureAt = performance.now();
    finish({ failure: `connection: ${reason}` });
  }

  function write(): void {
    if (!socket || !unsent) return;
    const written = socket.write(unsent);
    unsent = written < unsent.length ? unsent.subarray(Math.max(0, written)) : undefined;
  }

  function take(chunk: Buffer, ended: boolean): void {
    received = received ? Buffer.concat([received, chunk]) : chunk;
    const answer = readAnswer(received, ended);
    if (!answer) return;
    const old = answer.closes ? socket : undefined;
    if (old) socket = undefined;
    finish({ status: answer.status, body: answer.body });
    old?.end();
  }

  const handler = {
    open(opened: Socket) {
      if (socket) return void opened.end(); // one that was given up, and came after all
      socket = opened;
      if (target.tls === undefined) write();
    },
    handshake(_: Socket, success: boolean, error: Error | null) {
      if (!success || error) drop(error ? textOf(error) : "the TLS handshake failed");
      else write();
    },
    drain: () => write(),
    data(from: Socket, chunk: Buffer) {
      if (from === socket && pending) take(chunk, false);
    },
    close(from: Socket) {
      if (from !== socket) return;
      socket = undefined;
      const cut = pending;
      if (cut && received) take(Buffer.alloc(0), true);
      if (cut && pending === cut) drop("closed before the answer");
    },
    error(from: Socket, error: Error) {
      if (from === socket) drop(codeText(error));
    },
  };

  function connect(): void {
    const tls = target.tls && { serverName: target.host, rejectUnauthorized: true, ...target.tls };
    const options = { hostname: target.host, port: target.port, socket: handler, ...(tls ? { tls } : {}) };
    const attempt = pending;
    Bun.connect(options).catch((error) => {
      if (attempt && pending === attempt) drop(codeText(error));
    });
  }

  return {
    send(request, done) {
      pending = { request, done, sentAt: performance.now() };
      unsent = Buffer.from(request);
      if (socket) return write();
      const wait = RECONNECT_AFTER_MS - (performance.now() - lastFailureAt);
      if (wait > 0) setTimeout(connect, wait);
      else connect();
    },
    expire(olderThanMs) {
      if (!pending || performance.now() - pending.sentAt < olderThanMs) return;
      const old = socket;
      socket = undefined;
      old?.end();
      finish({ failure: "timeout" });
    },
    close() {
      const old = socket;
      socket = undefined;
      old?.end();
    },
  };
}

const codeText = (error: Error) => (error as { code?: string }).code ?? textOf(error);

interface Answer {
  readonly status: number;
  readonly body: Buffer;
  readonly closes: boolean;
}

const HEAD_END = Buffer.from("\r\n\r\n");

/** An answer (RFC 9112), or undefined while it is not all there. With `ended` nothing more will come. */
export function readAnswer(bytes: Buffer, ended: boolean): Answer | undefined {
  const end = bytes.indexOf(HEAD_END);
  if (end < 0) return undefined;
  const head = bytes.toString("latin1", 0, end + 2);
  const status = Number(head.slice(9, 12));
  const rest = bytes.subarray(end + 4);
  if (status < 200) return readAnswer(rest, ended); // 100 Continue and its like come before the answer
  const closes = /\r\nconnection: *close/i.test(head);
  if (status === 204 || status === 304) return { status, body: Buffer.alloc(0), closes };
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
  if (length !== undefined) {
    return rest.length < Number(length) ? undefined : { status, body: rest.subarray(0, Number(length)), closes };
  }
  if (/\r\ntransfer-encoding: *chunked/i.test(head)) {
    const body = readChunks(rest);
    return body && { status, body, closes };
  }
  return ended ? { status, body: rest, closes: true } : undefined;
}

/** A chunked body (RFC 9112, section 7.1), or undefined while its last chunk is not there. */
function readChunks(bytes: Buffer): Buffer | undefined {
  const parts: Buffer[] = [];
  let at = 0;
  for (;;) {
    const lineEnd = bytes.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const size = Number.parseInt(bytes.toString("latin1", at, lineEnd), 16);
    const next = lineEnd + 2 + size + 2;
    if (bytes.length < next) return undefined;
    if (size === 0) return Buffer.concat(parts);
    parts.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = next;
  }
}
