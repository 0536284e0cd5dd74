/**
 * A server of the bench's own in a scratch home, kept by a process that outlives the bench for as long as it takes to put
 * everything away: it ends with its standard input, so also when the bench is killed.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { failed, OperatorError, textOf } from "../../config/errors.ts";
import { loadSettings, type Variables } from "../../config/load.ts";
import { ownProgram } from "../../config/own-program.ts";
import { openDatabase } from "../../db/open.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { type ChildProcess, type Handlers, startChild } from "./child.ts";
import type { Seeded } from "./seed.ts";

export interface ScratchWanted {
  /** Settings that differ from the defaults, as variables. */
  readonly settings: Readonly<Record<string, string>>;
  /** Null: the embedded database. */
  readonly databaseUrl: string | null;
  readonly users: number;
  /** How many processes serve. */
  readonly workers: number;
}

export interface ScratchServer {
  readonly url: string;
  readonly pid: number;
  readonly password: string;
  readonly client: Seeded["client"];
}

type Environment = Record<string, string>;
type Tell = (doing: string) => void;

const READY_WITHIN_MS = 60_000;
/** How long what is under way may take when it stops. */
const STOP_TIMEOUT = { PRIMER_SERVER__STOP_TIMEOUT: "5s" };
/** How long it may take to stop before it is ended: longer than it waits before it ends processes of its own. */
const STOP_WITHIN_MS = 20_000;

/** The handlers of the process that keeps it; `end` stops the server and removes all that was made. */
export function scratchServer(given: Variables): { handlers: Handlers; end(): Promise<void> } {
  const base = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Environment;
  const undo: (() => Promise<unknown>)[] = [];
  const running = new Set<Bun.Subprocess>();
  let seeding: ChildProcess | undefined;
  let begun: Promise<unknown> = Promise.resolve();
  let isEnding = false;

  /** Runs primer to its end. @throws OperatorError with what it wrote */
  async function primer(words: readonly string[], environment: Environment, input: string): Promise<void> {
    const child = start(words, environment, input);
    if ((await child.exited) !== 0) throw failed(`primer ${words[0]} failed: ${(await child.notes).trim()}`);
  }

  function start(words: readonly string[], environment: Environment, input = "") {
    if (isEnding) throw failed("The bench has ended.");
    const stdio = { stdin: new Blob([input]), stdout: "ignore", stderr: "pipe" } as const;
    const child = Bun.spawn([...ownProgram(), ...words], { env: environment, ...stdio });
    running.add(child);
    void child.exited.then(() => running.delete(child));
    return { pid: child.pid, exited: child.exited, notes: new Response(child.stderr).text() };
  }

  async function begin(wanted: ScratchWanted, tell: Tell): Promise<ScratchServer> {
    const folder = mkdtempSync(join(tmpdir(), "primer-bench-"));
    undo.push(async () => rmSync(folder, { recursive: true, force: true }));
    const environment: Environment = { ...base, ...wanted.settings, ...STOP_TIMEOUT };
    const database = wanted.databaseUrl === null ? null : await createDatabase(folder, wanted.databaseUrl, base, undo);
    if (database !== null) environment.DATABASE_URL = database;
    tell("Setting up a scratch home");
    const home = join(folder, "home");
    const password = systemRandom.token();
    await primer(["init", "--yes", "--admin-password-stdin", "--dir", home], environment, password);
    tell(`Making ${wanted.users} users`);
    const { client } = await seedHome(folder, environment, wanted.users, password);
    const { url, pid } = await serve(home, environment, wanted.workers);
    return { url, pid, password, client };
  }

  async function seedHome(folder: string, environment: Environment, users: number, password: string): Promise<Seeded> {
    if (isEnding) throw failed("The bench has ended.");
    seeding = startChild("seed", environment);
    const seeded = await seeding.ask<Seeded>("seed", { folder, users, password });
    await seeding.close();
    return seeded;
  }

  async function serve(home: string, environment: Environment, workers: number): Promise<{ url: string; pid: number }> {
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const words = ["serve", "--dir", home, "--port", String(port), "--workers", String(workers)];
    const child = start(words, environment);
    const ended = child.exited.then(async () => {
      throw failed(`The bench's own server ended: ${(await child.notes).trim()}`);
    });
    await Promise.race([untilReady(url, port, workers), ended]);
    return { url, pid: child.pid };
  }

  return {
    handlers: {
      begin(wanted: ScratchWanted, tell: Tell) {
        const beginning = begin(wanted, tell);
        begun = beginning.catch(() => {});
        return beginning;
      },
    },
    async end() {
      isEnding = true;
      await Promise.all([seeding?.close(), ...[...running].map(stopped)]);
      await begun; // what it is in the middle of may still make something
      for (let step = undo.pop(); step; step = undo.pop()) {
        await step().catch((error) => process.stderr.write(`primer bench could not clean up: ${textOf(error)}\n`));
      }
    },
  };
}

async function stopped(child: Bun.Subprocess): Promise<void> {
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_WITHIN_MS);
  await child.exited;
  clearTimeout(timer);
}

/** Until all of its processes listen: connections that are made before are not shared among them. */
async function untilReady(url: string, port: number, workers: number): Promise<void> {
  const deadline = performance.now() + READY_WITHIN_MS;
  while (performance.now() < deadline) {
    const status = await fetch(`${url}/readyz`).then(
      (response) => response.status,
      () => 0,
    );
    if (status === 200 && (listenersAt(port) ?? workers) >= workers) return;
    await Bun.sleep(20);
  }
  throw failed(`The bench's own server was not ready within ${READY_WITHIN_MS / 1000} s.`);
}

/** How many sockets listen at a port of 127.0.0.1, which several processes may share; undefined where Linux does not tell. */
function listenersAt(port: number): number | undefined {
  const table = "/proc/net/tcp";
  if (!existsSync(table)) return undefined;
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const listening = "0A";
  const rows = readFileSync(table, "utf8").split("\n");
  return rows.map((row) => row.trim().split(/\s+/)).filter((row) => row[1] === local && row[3] === listening).length;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

/** Makes a database beside the one that the URL names, and has it dropped at the end. @returns its URL */
async function createDatabase(
  folder: string,
  databaseUrl: string,
  base: Environment,
  undo: (() => Promise<unknown>)[],
): Promise<string> {
  const name = `primer_bench_${Buffer.from(systemRandom.bytes(6)).toString("hex")}`;
  const run = async (statement: string) => {
    const variables = { ...base, DATABASE_URL: databaseUrl, PRIMER_DATABASE__STATEMENT_TIMEOUT: "2m" };
    const database = await openDatabase(loadSettings(folder, variables).settings, folder, false);
    try {
      await database.query(statement);
    } finally {
      await database.close();
    }
  };
  try {
    await run(`CREATE DATABASE ${name}`);
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    throw failed(
      `No scratch database could be made: ${textOf((error as Error).cause ?? error)}`,
      "The role in --database-url needs the right to create databases: ALTER ROLE … CREATEDB.",
      error,
    );
  }
  undo.push(() => run(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
  const url = new URL(databaseUrl);
  url.pathname = `/${name}`;
  return url.href;
}
