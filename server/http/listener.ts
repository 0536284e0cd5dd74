import { constants } from "node:crypto";
import http from "node:http";
import type { AnyElysia } from "elysia";
import type { Certificate } from "../../config/certificate.ts";
import type { Settings } from "../../config/schema.ts";

/**
 * A connection on which nothing is under way is closed after this long (seconds). The same time bounds the headers of
 * its next request: bytes that trickle in do not prolong it. A new connection has 12 seconds for its TLS handshake and
 * its first headers; that is fixed in Bun, and trickling does not prolong it either.
 */
const IDLE_TIMEOUT_SECONDS = 30;
/** Where Bun itself cuts a body off; the setting's own limit is lower and answers in the envelope. */
const MAX_BODY_BYTES = 1024 ** 4;
/** Of all headers together. A token that is too long gets the answer of one that is not valid; beyond, Bun itself says 431. */
const MAX_HEADER_BYTES = 128 * 1024;

/** How long the listeners of an old and a new certificate share the port. */
const OVERLAP_MS = 50;

export interface ListenerOptions extends Pick<Settings["server"], "host" | "port" | "tls_min_version"> {
  /** With one, https. */
  readonly certificate: Certificate | undefined;
  /** Whether other processes listen at the same port; the system spreads connections over all of them (Linux). */
  readonly sharesPort?: boolean;
}

/** Where an application is reached: an address and a port. */
export interface Listener {
  readonly port: number;
  /**
   * Serves new connections with another certificate; what is under way on the others goes on. One that is being made in
   * the moment when the old listener closes is reset, and has to be made again. Throws where the certificate is of no
   * use; then nothing has changed.
   */
  renew(certificate: Certificate): void;
  /** Refuses new connections until {@link resume}. Idle ones are closed, what is under way goes on. */
  pause(): void;
  /** Throws the system's error where the port cannot be listened on now. */
  resume(): void;
  /** Accepts nothing more and resolves when everything under way is done; with `force` that is ended too. */
  stop(force: boolean): Promise<void>;
}

type BunServer = NonNullable<AnyElysia["server"]>;

/** Starts to listen. Throws the system's error where the port is taken. */
export function openListener(app: AnyElysia, options: ListenerOptions): Listener {
  let { certificate } = options;
  const open = new Set<BunServer>();
  if (certificate && !options.sharesPort) assertFree(options);
  let current: BunServer | undefined = start(options.port);
  const port = current.port ?? options.port;

  function start(onPort: number): BunServer {
    const server = listen(app, {
      hostname: options.host,
      port: onPort,
      // Bun cannot change the certificate of a listener, so for a moment two share the port.
      reusePort: options.sharesPort === true || certificate !== undefined,
      ...(certificate ? { tls: tlsOptions(certificate, options.tls_min_version) } : {}),
    });
    open.add(server);
    return server;
  }

  async function retire(server: BunServer): Promise<void> {
    await server.stop(false);
    open.delete(server);
  }

  function pause(): void {
    if (current) void retire(current);
    current = undefined;
  }

  return {
    port,
    renew(renewed) {
      const [before, old] = [certificate, current];
      certificate = renewed;
      if (!old) return;
      try {
        current = start(port);
      } catch (error) {
        certificate = before;
        throw error;
      }
      // What the system has queued for the old listener is accepted first, else it would be lost with it.
      setTimeout(() => setImmediate(() => void retire(old)), OVERLAP_MS);
    },
    pause,
    resume() {
      current ??= start(port);
    },
    async stop(force) {
      current = undefined;
      await Promise.all([...open].map((server) => server.stop(force)));
    },
  };
}

const tlsOptions = ({ cert, key }: Certificate, oldest: Settings["server"]["tls_min_version"]) => ({
  cert,
  key,
  // Bun speaks nothing older than 1.2.
  secureOptions: oldest === "1.3" ? constants.SSL_OP_NO_TLSv1_2 : 0,
});

/** A port that is shared would be shared with another primer as well: so it has to be free at the start. Throws the system's error. */
export function assertFree({ host, port }: Pick<ListenerOptions, "host" | "port">): void {
  Bun.listen({ hostname: host, port, socket: { data() {} } }).stop(true);
}

/**
 * Elysia adds a listener of the process's end at each start; nothing here needs it, and with each certificate there would
 * be one more.
 */
function listen(
  app: AnyElysia,
  options: { hostname: string; port: number; reusePort: boolean; tls?: Bun.TLSOptions },
): BunServer {
  const before = process.listeners("beforeExit");
  (http as { maxHeaderSize: number }).maxHeaderSize = MAX_HEADER_BYTES;
  app.listen({ idleTimeout: IDLE_TIMEOUT_SECONDS, development: false, maxRequestBodySize: MAX_BODY_BYTES, ...options });
  for (const added of process.listeners("beforeExit")) {
    if (!before.includes(added)) process.off("beforeExit", added);
  }
  if (!app.server) throw new Error("Elysia has started no server");
  return app.server;
}
