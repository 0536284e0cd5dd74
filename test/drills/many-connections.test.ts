/** Clients keep their connections: ten thousand of them cost memory that is known, and nobody is cut off. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Held, HeldReport, HeldSession } from "./held.ts";
import { percentile } from "./load.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import {
  canRun,
  FULL,
  initHome,
  inShort,
  login,
  residentMiB,
  root,
  type Server,
  scratchFolder,
  serve,
  start,
} from "./processes.ts";
import { tableRow } from "./table.ts";

inShort(
  "500 connections used every 2 s for 4 s, 10,000 used every 20 s for 100 s with TEST_FULL; what one of them takes is coarse",
);
const WANTED = FULL ? 10_000 : 500;
/** The server closes those that were idle for 30 s. */
const EVERY_MS = FULL ? 20_000 : 2000;
const DURATION_MS = FULL ? 100_000 : 4000;
const FEW = 16;
const LOGINS_AT_A_TIME = 4;
const MOST_KIB_EACH = 20;
/** Files that the server has open besides, and connections beside these. */
const BESIDES = 500;

/** @returns so many connections as this machine lets one process have, with the reason where that is fewer than wanted */
function connectionsHere(): { readonly count: number; readonly reason: string | undefined } {
  if (!existsSync("/proc/self/limits")) return { count: 0, reason: "/proc has to tell of memory and open files" };
  const files = Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1]);
  const [from = 0, to = 0] = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").split(/\s+/).map(Number);
  const allowed = Math.min(files - BESIDES, to - from - BESIDES);
  if (allowed >= WANTED) return { count: WANTED, reason: undefined };
  return {
    count: allowed,
    reason: `${allowed} connections at most: ${files} open files, local ports ${from} to ${to}`,
  };
}

const { count, reason } = connectionsHere();
if (reason) process.stderr.write(`${count} connections instead of ${WANTED}: ${reason}\n`);
const possible = canRun(whyNoPostgres() ?? (count < WANTED / 10 ? reason : undefined), "drill of many connections");

const scratch = scratchFolder();
let postgres: OwnPostgres;
let server: Server;
let sessions: HeldSession[];
beforeAll(async () => {
  if (!possible) return;
  postgres = await ownPostgres();
  const home = join(scratch.path, "home");
  const variables = { DATABASE_URL: postgres.url, PRIMER_SERVER__MAX_CONNECTIONS: String(count + BESIDES) };
  await initHome(home, variables);
  server = await serve(home, variables);
  sessions = await logIn(FEW + Math.ceil(count / 10));
}, 120_000);
afterAll(async () => {
  if (!possible) return;
  await server.kill();
  await postgres.remove();
  scratch.remove();
});

async function logIn(wanted: number): Promise<HeldSession[]> {
  const made: HeldSession[] = [];
  const one = async () => {
    while (made.length < wanted) made.push((await login(server.url)).body);
  };
  await Promise.all(Array.from({ length: LOGINS_AT_A_TIME }, one));
  return made;
}

interface Seen {
  readonly opened: HeldReport;
  readonly report: HeldReport;
  /** Of the server, at the end, while they are still open (MiB). */
  readonly memory: number;
}

/** Holds connections open and uses them. @param everyMs each of them once in this time */
async function hold(connections: number, everyMs: number, own: readonly HeldSession[]): Promise<Seen> {
  const held: Held = {
    url: server.url,
    connections,
    everyMs,
    durationMs: DURATION_MS,
    sessions: own,
  };
  const child = start([join(root, "test/drills/children/hold-connections.ts")], {}, JSON.stringify(held));
  try {
    const lines = await child.until((out) => out.split("\n").length > 2 && out.split("\n"), DURATION_MS + 120_000);
    const memory = await residentMiB(server.pid);
    const [opened, report] = lines.slice(0, 2).map((line) => JSON.parse(line) as HeldReport);
    if (!opened || !report) throw new Error("Nothing was told of the connections");
    return { opened, report, memory };
  } finally {
    await child.kill();
  }
}

// A client that keeps its connection and uses it is never cut off, and what it costs is a little memory.
test.if(possible)(
  `${count} connections that are kept and used: no error, none closed`,
  async () => {
    // As many requests over few connections: what those take is no part of it.
    const few = await hold(FEW, (EVERY_MS * FEW) / count, sessions.slice(0, FEW));
    const many = await hold(count, EVERY_MS, sessions.slice(FEW));
    for (const [connections, { opened, report }] of [[FEW, few] as const, [count, many] as const]) {
      expect([opened.open, opened.failures]).toEqual([connections, []]);
      expect([report.open, report.closed, report.failures]).toEqual([connections, 0, []]);
      expect(report.refreshed).toBeGreaterThan(opened.refreshed);
      expect(report.verified).toBeGreaterThan(opened.verified);
    }
    const { report } = many;
    const each = ((many.memory - few.memory) * 1024) / (count - FEW);
    if (FULL) expect(each).toBeLessThan(MOST_KIB_EACH); // in the short form the process still grows by itself
    tableRow(
      `${count} connections kept and used every ${EVERY_MS / 1000} s for ${DURATION_MS / 1000} s`,
      `no error, none closed, less than ${MOST_KIB_EACH} KiB for each`,
      [
        `${report.refreshed} refreshes and ${report.verified} verifications without an error`,
        `p50/p99 ${percentile(report.latencies, 50).toFixed(1)}/${percentile(report.latencies, 99).toFixed(1)} ms`,
        `${many.memory} MiB, ${few.memory} MiB with ${FEW} connections and as many requests: ${each.toFixed(1)} KiB for each`,
        ...(reason ? [reason] : []),
      ].join("; "),
    );
  },
  600_000,
);
