import { closeSync, openSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { NO_LIMITS } from "../../support/no-limits.ts";
import { PRIMER, plainEnvironment, untilReady } from "../../support/server.ts";
import { freePort } from "../../support/services.ts";

/** `primer serve` as a process of its own. */
export interface Serving {
  readonly url: string;
  readonly pid: number;
  readonly home: string;
  /** The lines of its log so far. */
  log(): readonly LogLine[];
  /** Waits for a log line with this event after the first `after` lines of its kind. */
  untilLogged(event: string, after?: number): Promise<LogLine>;
  signal(name: "SIGTERM" | "SIGINT" | "SIGHUP" | "SIGKILL" | "SIGSTOP" | "SIGCONT"): void;
  /** Stops it, and waits. @returns its exit code */
  stop(): Promise<number>;
  readonly exited: Promise<number>;
}

export interface LogLine {
  readonly event: string;
  readonly level: string;
  readonly [field: string]: unknown;
}

interface ServeOptions {
  readonly environment?: Record<string, string>;
  readonly primer?: readonly string[];
  readonly cwd?: string;
  /** A free one where it is not given. */
  readonly port?: number;
  /** The CA of its certificate, where the home has one: then it is reached over https. */
  readonly ca?: string;
}

/** Serves a home and waits until it is ready. Its log goes into a file beside the home. */
export async function serve(home: string, options: ServeOptions = {}): Promise<Serving> {
  const port = options.port ?? (await freePort());
  const url = `${options.ca === undefined ? "http" : "https"}://127.0.0.1:${port}`;
  const logPath = `${home}.log`;
  const output = openSync(logPath, "a");
  const child = Bun.spawn([...(options.primer ?? PRIMER), "serve", "--dir", home, "--port", String(port)], {
    env: plainEnvironment({ ...NO_LIMITS, ...options.environment }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    stdin: "ignore",
    stdout: output,
    stderr: output,
  });
  closeSync(output);
  const ended = child.exited.then((code) => {
    throw new Error(`serve ended with ${code}: ${readFileSync(logPath, "utf8")}`);
  });
  await Promise.race([untilReady(url, options.ca), ended]);
  ended.catch(() => {});
  return servingOf(child, { url, home, logPath });
}

function servingOf(child: Bun.Subprocess, at: { url: string; home: string; logPath: string }): Serving {
  const log = () => linesOf(at.logPath);
  return {
    url: at.url,
    home: at.home,
    pid: child.pid,
    exited: child.exited,
    log,
    async untilLogged(event, after = 0) {
      const found = await until(`the log line ${event}`, () => log().filter((line) => line.event === event)[after]);
      return found;
    },
    signal: (name) => child.kill(name),
    async stop() {
      child.kill("SIGTERM");
      return child.exited;
    },
  };
}

/** The JSON lines of a file; what people are told stands between them. */
function linesOf(path: string): readonly LogLine[] {
  const lines = readFileSync(path, "utf8").split("\n");
  return lines.filter((line) => line.startsWith("{") && line.endsWith("}")).map((line) => JSON.parse(line));
}

/** Waits until something is there, asking every few milliseconds. Throws after `seconds`. */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  seconds = 20,
): Promise<T> {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > deadline) throw new Error(`Waited ${seconds} seconds for ${what}`);
    await Bun.sleep(10);
  }
}

/** The socket that the holder of a home listens at. */
export const socketOf = (home: string): string => join(home, "primer.sock");

/** Logs in over HTTP. */
export async function login(url: string, username: string, password: string) {
  const response = await fetch(`${url}/api/v1/auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ username, password }),
  });
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever was answered
  return { status: response.status, body: (await response.json()) as any };
}

/** An open connection that asks for nothing. */
export function idleConnection(url: string): Promise<{ close(): void }> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => resolve({ close: () => void socket.destroy() }));
    socket.once("error", reject);
  });
}
