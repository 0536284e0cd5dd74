import { afterAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { openPglite } from "../../db/pglite.ts";
import {
  FULL,
  initHome,
  inShort,
  login,
  primer,
  root,
  type Server,
  scratchFolder,
  serve,
  start,
  waitFor,
} from "./processes.ts";
import { tableRow } from "./table.ts";

const ROWS = FULL ? 10_000 : 40;
const STALL_MS = FULL ? 60_000 : 500;
const RACES = 50;
inShort(`${ROWS} rows and a stall of ${STALL_MS / 1000} s, 10000 rows and 60 s with TEST_FULL`);

const scratch = scratchFolder();
afterAll(() => scratch.remove());
const child = (name: string, ...words: string[]) => start([join(root, `test/drills/children/${name}.ts`), ...words]);

const thrownBy = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: unknown) => error as Error & { exitCode?: number; reason?: string },
  );

async function expectHeldBy(home: string, pid: number): Promise<void> {
  const error = await thrownBy(openPglite(home));
  expect(error).toMatchObject({ name: "OperatorError", exitCode: 3, reason: "held" });
  expect(error?.message).toContain(String(pid));
}

// Two processes in one data folder lose rows; so there is never more than one.
describe("the lock of the embedded database", () => {
  test("a second opener stops with exit 3 and the holder's pid, also while the holder is stalled", async () => {
    const home = join(scratch.path, "stalled");
    const holder = child("commit-rows", home, "1");
    try {
      await holder.until((out) => out.includes("ack 1\n"));
      await expectHeldBy(home, holder.pid);
      holder.signal("SIGSTOP");
      const stalled = performance.now();
      while (performance.now() - stalled < STALL_MS) {
        await expectHeldBy(home, holder.pid);
        await Bun.sleep(100);
      }
      const before = holder.out().length;
      holder.signal("SIGCONT");
      await holder.until((out) => out.length > before);
      await expectHeldBy(home, holder.pid);
    } finally {
      await holder.kill();
    }
  });

  test("a killed holder's lock is free at once, a stopped one's too", async () => {
    const home = join(scratch.path, "killed");
    const holder = child("commit-rows", home, "1");
    await holder.until((out) => out.includes("ack 1\n"));
    await holder.kill();
    const db = await openPglite(home);
    expect((await db.query("SELECT id FROM drill")).length).toBeGreaterThan(0);
    await db.close();
    await (await openPglite(home)).close();
  });

  test("whoever cannot open the database gives the lock back", async () => {
    const home = join(scratch.path, "given-back");
    await Bun.write(join(home, "pgdata/PG_VERSION"), "not a database");
    expect(await thrownBy(openPglite(home))).toMatchObject({ exitCode: 1 });
    expect(await thrownBy(openPglite(home))).toMatchObject({ exitCode: 1 });
  });

  // The kernel forgets a process's lock on a file when that process closes the file anywhere: so it must not.
  test("a second attempt in the holder's own process is refused, and does not lose it the lock", async () => {
    const home = join(scratch.path, "twice");
    const db = await openPglite(home);
    await expectHeldBy(home, process.pid);
    const { exitCode } = await child("hold-lock", home, "1", "once").finished;
    expect(exitCode).toBe(3);
    await db.close();
    expect((await child("hold-lock", home, "1", "once").finished).exitCode).toBe(0);
  });

  test(`two that race for it, ${RACES} times each: never both`, async () => {
    const home = join(scratch.path, "raced");
    const racers = await Promise.all([1, 2].map(() => child("hold-lock", home, String(RACES)).finished));
    expect(racers.map(({ exitCode, notes }) => [exitCode, notes])).toEqual([
      [0, ""],
      [0, ""],
    ]);
    const refused = racers.map(({ out }) => Number(/refused (\d+)/.exec(out)?.[1]));
    expect(Math.max(...refused)).toBeGreaterThan(0);
    expect(existsSync(join(home, "held-by-one"))).toBe(false);
  });

  test("two that open a new home at once: one gets it, and it is whole", async () => {
    const home = join(scratch.path, "both-first");
    const both = [child("commit-rows", home, "1", "20"), child("commit-rows", home, "1001", "20")];
    const outcomes = await Promise.all(both.map((one) => one.finished));
    const winners = outcomes.filter(({ exitCode }) => exitCode === 0).length;
    expect(winners).toBeGreaterThanOrEqual(1);
    const db = await openPglite(home);
    expect(await db.query("SELECT count(*)::int AS count FROM drill")).toEqual([{ count: 20 * winners }]);
    await db.close();
  });
});

/** Logs in until as many sessions were acknowledged; answers their ids. */
async function logInManyTimes(server: Server, count: number): Promise<string[]> {
  const ids: string[] = [];
  const client = async () => {
    while (ids.length < count) {
      const answer = await login(server.url);
      expect(answer.status).toBe(200);
      ids.push(answer.body.session_id);
    }
  };
  await Promise.all([client(), client(), client(), client()]);
  return ids;
}

/** Runs commands through the holder's socket, one after the other, until told to stop. */
async function commandsMeanwhile(home: string, stop: () => boolean): Promise<number> {
  let ran = 0;
  while (!stop()) {
    const { exitCode, out, notes } = await primer(home, ["users", "list", "--json"]).finished;
    expect([exitCode, notes]).toEqual([0, ""]);
    expect(JSON.parse(out).data).toMatchObject([{ username: "admin" }]);
    ran++;
  }
  return ran;
}

/** A second process is told within two seconds, so that a supervisor's log says at once what is wrong. */
async function refusedWithinTwoSeconds(home: string, holder: number, command: string): Promise<number> {
  let tookMs = Number.POSITIVE_INFINITY;
  await waitFor("a refusal within 2 s, whatever else this machine is doing", async () => {
    const began = performance.now();
    const { exitCode, out, notes } = await primer(home, [command, "--json"]).finished;
    tookMs = performance.now() - began;
    expect([exitCode, JSON.parse(out).error.exit_code]).toEqual([3, 3]);
    expect(notes).toContain(String(holder));
    return tookMs < 2000;
  });
  return tookMs;
}

// While one process serves, a second server is turned away, every other command works through it, and no row is lost.
describe("a home that is being served", () => {
  test(`${ROWS} logins while other commands run, and a second server and a worker are tried`, async () => {
    const home = join(scratch.path, "served");
    await initHome(home);
    const server = await serve(home);
    let ids: string[] = [];
    let ran = 0;
    let slowestMs = 0;
    try {
      let done = false;
      const commands = commandsMeanwhile(home, () => done);
      const seconds = ["serve", "worker"].map((command) => primer(home, [command]).finished);
      ids = await logInManyTimes(server, ROWS);
      done = true;
      expect((await Promise.all(seconds)).map(({ exitCode }) => exitCode)).toEqual([3, 3]);
      ran = await commands;
      expect(ran).toBeGreaterThan(0);
      for (const command of ["serve", "worker"])
        slowestMs = Math.max(slowestMs, await refusedWithinTwoSeconds(home, server.pid, command));
    } finally {
      server.signal("SIGTERM");
    }
    expect((await server.finished).exitCode).toBe(0);

    const db = await openPglite(home);
    const rows = await db.query<{ id: string }>("SELECT id FROM sessions");
    await db.close();
    const found = new Set(rows.map((row) => row.id));
    expect(ids.filter((id) => !found.has(id))).toEqual([]);
    tableRow(
      "D10 a second process on one embedded database",
      "serve and worker exit 3 within 2 s naming the holder's pid; a live holder's lock is never stolen; commands work through the holder; no row is lost",
      `refused in ${Math.round(slowestMs)} ms at most, ${ran} commands ran in the holder, 0 of ${ids.length} logins lost`,
    );
  });
});
