/** Homes and processes of their own for drills: everything that is started here is ended here, by its own handle. */
import { setDefaultTimeout } from "bun:test";
import { cpSync, existsSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NO_LIMITS } from "../support/no-limits.ts";
import { PRIMER } from "../support/server.ts";
import { freePort } from "../support/services.ts";

export const root = join(import.meta.dir, "../..");
/** The long form of each drill, with as many rounds as the promise names. */
export const FULL = Boolean(process.env.TEST_FULL);

if (FULL) setDefaultTimeout(20 * 60_000);

/** Says what the short form leaves out. */
export function inShort(what: string): void {
  if (!FULL) process.stderr.write(`short form of a drill: ${what}\n`);
}

/** Whether a drill can run here. What is missing is a printed reason, and a failure where CI is set. */
export function canRun(reason: string | undefined, drill: string): boolean {
  if (reason === undefined) return true;
  process.stderr.write(`DID NOT RUN: ${drill} (${reason})\n`);
  if (process.env.CI) throw new Error(`${drill} cannot run here: ${reason}`);
  return false;
}

export function scratchFolder(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "primer-drill-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** The environment of a child, whose load comes from one address and one account: this one's without anything that would configure primer, and what the drill sets. */
export function environmentOf(variables: Record<string, string> = {}): Record<string, string> {
  const foreign = /^(PRIMER_|OTEL_|DATABASE_URL|REDIS_URL|SMTP_URL|TEST_)/;
  const kept = Object.entries(process.env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && !foreign.test(entry[0]),
  );
  return { ...Object.fromEntries(kept), ...NO_LIMITS, ...variables };
}

export interface Finished {
  readonly exitCode: number;
  readonly out: string;
  readonly notes: string;
}

/**
 * Starts a program and collects what it writes; `input` is its standard input.
 *
 * @param maxFiles how many files it may have open; as many as this process where it is not given
 */
function startProgram(
  command: readonly string[],
  variables: Record<string, string> = {},
  input = "",
  maxFiles?: number,
) {
  const limited = maxFiles === undefined ? [] : ["sh", "-c", `ulimit -n ${maxFiles} && exec "$@"`, "sh"];
  const child = Bun.spawn([...limited, ...command], {
    cwd: root,
    env: environmentOf(variables),
    stdin: new Blob([input]),
    stdout: "pipe",
    stderr: "pipe",
  });
  let out = "";
  let notes = "";
  const watchers = new Set<() => void>();
  const collect = async (stream: ReadableStream<Uint8Array>, add: (text: string) => void) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      add(decoder.decode(chunk, { stream: true }));
      for (const watcher of watchers) watcher();
    }
  };
  const finished: Promise<Finished> = Promise.all([
    collect(child.stdout, (text) => {
      out += text;
    }),
    collect(child.stderr, (text) => {
      notes += text;
    }),
    child.exited,
  ]).then(([, , exitCode]) => ({ exitCode, out, notes }));

  return {
    pid: child.pid,
    finished,
    out: () => out,
    notes: () => notes,
    running: () => child.exitCode === null && child.signalCode === null,
    signal: (name: NodeJS.Signals) => void process.kill(child.pid, name),
    /** Waits until `seen` answers something for what was written to standard output so far. */
    async until<T>(seen: (out: string) => T | undefined | false, deadlineMs = 20_000): Promise<T> {
      const { promise, resolve } = Promise.withResolvers<void>();
      let found: T | undefined | false;
      const look = () => {
        found = seen(out);
        if (found) resolve();
      };
      watchers.add(look);
      look();
      await Promise.race([promise, finished, Bun.sleep(deadlineMs)]);
      watchers.delete(look);
      if (found) return found;
      throw new Error(`Not seen within ${deadlineMs} ms (exit ${child.exitCode}):\n${out.slice(-2000)}\n${notes}`);
    },
    async kill(): Promise<void> {
      child.kill("SIGKILL");
      await finished;
    },
  };
}

export type Child = ReturnType<typeof startProgram>;

/** Starts `bun ...script`. */
export const start = (script: readonly string[], variables?: Record<string, string>, input?: string): Child =>
  startProgram([process.execPath, ...script], variables, input);

export const primer = (
  home: string,
  words: readonly string[],
  variables?: Record<string, string>,
  input?: string,
  maxFiles?: number,
) => startProgram([...PRIMER, ...words, "--dir", home], variables, input, maxFiles);

export const ADMIN_PASSWORD = "correct horse battery staple";

/**
 * Sets a home up. Where no drill is about the key it is an elliptic one: making it takes no time. On the embedded database
 * all drills of a run begin with copies of one.
 */
export async function initHome(home: string, variables?: Record<string, string>, algorithm = "ES256"): Promise<void> {
  const shared = process.env.TEST_HOMES; // a folder of this run's own, set by test/support/run.ts
  if (!shared || variables || algorithm !== "ES256") return init(home, variables, algorithm);
  const prepared = join(shared, "initialised");
  if (!existsSync(prepared)) {
    const unfinished = join(shared, `unfinished-${process.pid}`);
    await init(unfinished, undefined, algorithm);
    renameSync(unfinished, prepared);
  }
  cpSync(prepared, home, { recursive: true });
}

async function init(home: string, variables: Record<string, string> | undefined, algorithm: string): Promise<void> {
  const words = ["init", "--yes", "--algorithm", algorithm, "--admin-password-stdin"];
  const { exitCode, notes } = await primer(home, words, variables, ADMIN_PASSWORD).finished;
  if (exitCode !== 0) throw new Error(`init ended with ${exitCode}: ${notes}`);
}

export interface Server extends Child {
  readonly url: string;
  /** Milliseconds from the start of the process to its first 200 at /readyz. */
  readonly readyAfterMs: number;
}

/** Runs `primer serve` on a free port until it is ready. */
export async function serve(
  home: string,
  variables?: Record<string, string>,
  maxFiles?: number,
  flags: readonly string[] = [],
): Promise<Server> {
  const began = performance.now();
  const child = primer(home, ["serve", "--port", String(await freePort()), ...flags], variables, "", maxFiles);
  const url = await child.until((out) => /"event":"server.started","url":"([^"]+)"/.exec(out)?.[1]);
  await waitFor("readiness", async () => (await fetch(`${url}/readyz`)).status === 200);
  return { ...child, url, readyAfterMs: performance.now() - began };
}

/** Asks again and again until `holds` answers true. */
export async function waitFor(what: string, holds: () => Promise<boolean> | boolean, deadlineMs = 20_000) {
  const began = performance.now();
  while (!(await holds())) {
    if (performance.now() - began > deadlineMs) throw new Error(`${what}: not within ${deadlineMs} ms`);
    await Bun.sleep(20);
  }
  return performance.now() - began;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: drills look into whatever was answered
  readonly body: any;
  readonly tookMs: number;
}

/** A request; whatever happens, it ends within 10 seconds. */
export async function send(url: string, options: RequestInit = {}): Promise<Answer> {
  const began = performance.now();
  const response = await fetch(url, { ...options, signal: AbortSignal.timeout(10_000) });
  const { status, headers } = response;
  const text = await response.text();
  const tookMs = performance.now() - began;
  const isJson = text !== "" && (headers.get("content-type")?.includes("json") ?? false);
  return { status, headers, body: isJson ? JSON.parse(text) : undefined, tookMs };
}

/** A POST with a JSON body. */
export const post = (url: string, path: string, body: unknown): Promise<Answer> =>
  send(url + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });

export const login = (url: string) => post(url, "/api/v1/auth/login", { username: "admin", password: ADMIN_PASSWORD });

export const refresh = (url: string, refresh_token: string) => post(url, "/api/v1/auth/refresh", { refresh_token });

/** Whatever happened, no row of the audit log was lost or changed: its chain says so. */
export async function expectAuditWhole(home: string, variables?: Record<string, string>): Promise<void> {
  const { exitCode, out, notes } = await primer(home, ["audit", "verify"], variables).finished;
  if (exitCode !== 0) throw new Error(`primer audit verify ended with ${exitCode}: ${out}${notes}`);
}

/** The lines of a log that are JSON, parsed. */
export const logLines = (out: string): { event?: string; level?: string; msg?: string }[] =>
  out
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));

/** Resident memory of a process in MiB, where the system tells (Linux). */
export async function residentMiB(pid: number): Promise<number> {
  const text = await Bun.file(`/proc/${pid}/status`).text();
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(text)?.[1]) / 1024);
}
