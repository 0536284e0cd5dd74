import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readArchive } from "../../db/backup/archive.ts";
import { parseLines } from "../../db/backup/format.ts";
import type { Database } from "../../db/database.ts";
import { openPglite } from "../../db/pglite.ts";
import { seedMany } from "../backup/support/seed.ts";
import { when } from "../cli/support/home.ts";
import { createPostgresDatabase, openPostgresAt, TEST_DATABASE } from "../support/database.ts";
import { mountDisk, whyNoDisk } from "./disk.ts";
import {
  canRun,
  FULL,
  initHome,
  inShort,
  login,
  primer,
  refresh,
  residentMiB,
  scratchFolder,
  serve,
} from "./processes.ts";

const USERS = FULL ? 100_000 : 1000;
/** So many that each kill finds something under way, and the run that follows it does not last for minutes. */
const USERS_AT_KILLS = FULL ? 10_000 : USERS;
const KILLS = FULL ? 20 : 1;
/** What writers may wait on the embedded database while a backup is taken, with a hundred thousand users. */
const MAX_WAIT_MS = 2000;
inShort(
  `a backup of ${USERS} users, 100,000 with TEST_FULL; ${KILLS} kills of backup and of restore, 20 with it, each followed by a run that finishes`,
);

const PASSPHRASE = "a passphrase of enough length";
const scratch = scratchFolder();
const passphrase = join(scratch.path, "passphrase");
let home = join(scratch.path, "home");
let variables: Record<string, string> = {};
let drop = async () => {};

const open = (): Promise<Database> =>
  TEST_DATABASE === "pglite" ? openPglite(home) : openPostgresAt(variables.DATABASE_URL ?? "");
const backupTo = (file: string) => primer(home, ["backup", file, "--passphrase-file", passphrase, "--json"], variables);

async function sessionsIn(file: string): Promise<Set<string>> {
  let isSessions = false;
  const ids = new Set<string>();
  for await (const line of parseLines(readArchive(file, PASSPHRASE))) {
    if (line.kind === "table") isSessions = line.head.table === "public.sessions";
    if (line.kind !== "rows" || !isSessions) continue;
    for (const { id } of JSON.parse(line.json) as { id: string }[]) ids.add(id);
  }
  return ids;
}

beforeAll(async () => {
  writeFileSync(passphrase, PASSPHRASE);
  await install("home", USERS);
});

async function install(name: string, users: number): Promise<void> {
  home = join(scratch.path, name);
  await drop();
  if (TEST_DATABASE === "postgres") {
    const made = await createPostgresDatabase();
    variables = { DATABASE_URL: made.url };
    drop = made.drop;
  }
  await initHome(home, variables);
  const db = await open();
  await seedMany(db, users);
  await db.close();
}
afterAll(async () => {
  await drop();
  scratch.remove();
});

// A backup is of one moment, has whatever was acknowledged before it began, and hardly anybody waits for it.
test(`a backup under writes, ${USERS} users on ${TEST_DATABASE}`, async () => {
  const server = await serve(home, variables);
  const file = join(scratch.path, "busy.backup");
  try {
    const acknowledged: string[] = [];
    let tokens = (await login(server.url)).body;
    acknowledged.push(tokens.session_id, (await login(server.url)).body.session_id);
    let running = true;
    const waits: number[] = [];
    const writer = (async () => {
      while (running) {
        const answer = await refresh(server.url, tokens.refresh_token);
        expect(answer.status).toBe(200);
        waits.push(answer.tookMs);
        tokens = answer.body;
      }
    })();
    while (waits.length < 20) await Bun.sleep(10);
    const idle = Math.max(...waits.splice(0));
    const taken = await backupTo(file).finished;
    running = false;
    await writer;
    expect(taken.exitCode).toBe(0);
    const { rows, bytes, seconds } = JSON.parse(taken.out);
    const longest = Math.round(Math.max(...waits));
    process.stderr.write(
      `measured: ${USERS} users, ${rows} rows in ${seconds} s, ${(bytes / 2 ** 20).toFixed(1)} MiB; ${waits.length} writes meanwhile, the longest ${longest} ms (${Math.round(idle)} ms without), server at ${await residentMiB(server.pid)} MiB\n`,
    );
    expect(longest).toBeLessThan(MAX_WAIT_MS);
    // Whoever serves would go on with what it has in memory: nothing is restored under it.
    const words = ["restore", file, "--passphrase-file", passphrase, "--yes", "--force", "--json"];
    const refused = await primer(home, words, variables).finished;
    expect(refused.exitCode).toBe(TEST_DATABASE === "pglite" ? 3 : 1);
    expect((await refresh(server.url, tokens.refresh_token)).status).toBe(200);
    const found = await sessionsIn(file);
    expect(acknowledged.filter((id) => !found.has(id))).toEqual([]);
    expect(found.size).toBeGreaterThanOrEqual(USERS + acknowledged.length);
  } finally {
    server.signal("SIGTERM");
    await server.finished;
  }
  // Restoring it checks every reference between its rows, and what each table comes to.
  const began = performance.now();
  const words = ["backup", "--verify", file, "--passphrase-file", passphrase, "--json"];
  const verified = await primer(home, words, variables).finished;
  expect(verified.exitCode).toBe(0);
  expect(JSON.parse(verified.out)).toMatchObject({ verified: true, recorded: true });
  process.stderr.write(`measured: verified in ${Math.round((performance.now() - began) / 1000)} s\n`);
});

// Whatever is killed, there is a whole file or none, and what lies around does not harm the next one.
test(`backup killed ${KILLS} times`, async () => {
  if (USERS_AT_KILLS !== USERS) await install("smaller home", USERS_AT_KILLS);
  const file = join(scratch.path, "killed.backup");
  const began = performance.now();
  expect((await backupTo(file).finished).exitCode).toBe(0);
  const takes = performance.now() - began;
  for (let kill = 0; kill < KILLS; kill++) {
    rmSync(file);
    const child = backupTo(file);
    await Bun.sleep((takes * (kill + 1)) / (KILLS + 1));
    await child.kill();
    if (existsSync(file)) expect((await sessionsIn(file)).size).toBeGreaterThanOrEqual(USERS_AT_KILLS);
    const again = await backupTo(file).finished;
    expect([again.exitCode, again.notes.replace(/Reading: \d+ rows\n/g, "")]).toEqual([0, ""]);
  }
  expect(readdirSync(scratch.path).filter((name) => name.includes("partial"))).toEqual([]);
  expect(readdirSync(home).filter((name) => name.includes("snapshot"))).toEqual([]);
});

// A restore over an installation, killed anywhere: the old one or the new one, whole, and the next run finishes.
test(`restore --force killed ${KILLS} times`, async () => {
  const file = join(scratch.path, "over.backup");
  expect((await backupTo(file).finished).exitCode).toBe(0);
  const over = async (sql: string) => {
    const db = await open();
    const rows = await db.query<{ username: string }>(sql);
    await db.close();
    return rows.map(({ username }) => username);
  };
  const words = ["restore", file, "--passphrase-file", passphrase, "--yes", "--force", "--json"];
  const began = performance.now();
  expect((await primer(home, words, variables).finished).exitCode).toBe(0);
  const takes = performance.now() - began;
  const outcomes: string[] = [];
  for (let kill = 0; kill < KILLS; kill++) {
    await over("UPDATE users SET username = 'old' WHERE username = 'admin'");
    const child = primer(home, words, variables);
    await Bun.sleep(takes * (0.35 + (0.65 * kill) / KILLS));
    await child.kill();
    const found = await over("SELECT username FROM users WHERE username IN ('old', 'admin')");
    expect([["old"], ["admin"]]).toContainEqual(found);
    expect(await over("SELECT count(*)::text AS username FROM users")).toEqual([String(USERS_AT_KILLS + 1)]);
    outcomes.push(found[0] ?? "");
    if (!FULL && kill < KILLS - 1) continue;
    const again = await primer(home, words, variables).finished;
    expect(again.exitCode).toBe(0);
    expect(await over("SELECT username FROM users WHERE username IN ('old', 'admin')")).toEqual(["admin"]);
  }
  process.stderr.write(
    `measured: a restore takes ${Math.round(takes)} ms; after kills there was: ${outcomes.join(", ")}\n`,
  );
  expect(readdirSync(home).filter((name) => /snapshot|restor|replaced/.test(name))).toEqual([]);
});

// Ctrl-C leaves nothing half-written, whenever it comes: it was done, or it was not and says so.
describe("interrupted", () => {
  const temporary = join(scratch.path, "tmp");
  const left = () =>
    [scratch.path, temporary, home]
      .flatMap((folder) => readdirSync(folder))
      .filter((name) => /partial|primer-verify|snapshot|restor|replaced|unfinished/.test(name));
  const file = join(scratch.path, "interrupted.backup");
  const withPassphrase = ["--passphrase-file", passphrase, "--json"];

  test.each([
    ["SIGINT", "backup", ["backup", join(scratch.path, "second.backup")]],
    ["SIGTERM", "backup", ["backup", join(scratch.path, "third.backup")]],
    ["SIGINT", "backup --verify", ["backup", "--verify", file]],
    ["SIGINT", "restore", ["restore", file, "--yes", "--force"]],
  ] as const)("by %s: %s", async (signal, _, words) => {
    mkdirSync(temporary, { recursive: true });
    if (!existsSync(file)) expect((await backupTo(file).finished).exitCode).toBe(0);
    const child = primer(home, [...words, ...withPassphrase], { ...variables, TMPDIR: temporary });
    for (const deadline = performance.now() + 20_000; left().length === 0; await Bun.sleep(2))
      if (!child.running() || performance.now() > deadline) break;
    child.signal(signal);
    const { exitCode, out } = await child.finished;
    expect([0, 1]).toContain(exitCode);
    if (exitCode === 1) expect(JSON.parse(out).error.message).toStartWith("Interrupted");
    expect(left()).toEqual([]);
    const db = await open();
    expect(await db.query("SELECT id FROM users WHERE username = 'admin'")).toHaveLength(1);
    await db.close();
  });
});

// A swap that was cut off between its two renames is carried out by whoever opens the home next.
const inHome = when(TEST_DATABASE === "pglite", "a swap of folders is how the embedded database is restored");
test.if(inHome)("a restored database whose old one had made room is taken", async () => {
  const copy = join(scratch.path, "cut");
  await initHome(copy);
  cpSync(join(copy, "pgdata"), join(copy, "pgdata.restored"), { recursive: true });
  rmSync(join(copy, "pgdata"), { recursive: true });
  expect((await primer(copy, ["users", "show", "admin"]).finished).exitCode).toBe(0);
  expect(existsSync(join(copy, "pgdata.restored"))).toBe(false);
});

describe("on a full disk", () => {
  const possible = canRun(whyNoDisk(), "backup on a full disk");
  test.if(possible)("there is no file, one line says why, and the installation goes on", async () => {
    const disk = mountDisk(8);
    try {
      const file = join(disk.path, "full.backup");
      disk.fill(16);
      const refused = await backupTo(file).finished;
      expect([refused.exitCode, readdirSync(disk.path)]).toEqual([1, ["filler"]]);
      expect(JSON.parse(refused.out).error.message).toMatch(/full/);
      disk.free();
      expect((await backupTo(file).finished).exitCode).toBe(0);
      expect(statSync(file).size).toBeGreaterThan(1000);
    } finally {
      disk.remove();
    }
  });
});
