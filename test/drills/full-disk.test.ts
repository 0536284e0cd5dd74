import { afterEach, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openPglite } from "../../db/pglite.ts";
import { type Disk, mountDisk, whyNoDisk } from "./disk.ts";
import {
  ADMIN_PASSWORD,
  type Answer,
  canRun,
  expectAuditWhole,
  FULL,
  initHome,
  inShort,
  login,
  logLines,
  primer,
  refresh,
  root,
  type Server,
  serve,
  start,
  waitFor,
} from "./processes.ts";
import { tableRow } from "./table.ts";

const possible = canRun(whyNoDisk(), "full disk drill");
inShort("two stages of init on a full disk, six with TEST_FULL; a kill on a full disk only there");
const BACK_WITHIN_MS = 10_000;

let disks: Disk[] = [];
function newDisk(sizeMib: number): Disk {
  const disk = mountDisk(sizeMib);
  disks.push(disk);
  return disk;
}
afterEach(() => {
  for (const disk of disks) disk.remove();
  disks = [];
});

const summaryOf = ({ status, headers, body }: Answer) => ({
  status,
  code: body?.error?.code,
  retryAfter: Number(headers.get("retry-after")),
});
const UNAVAILABLE = { status: 503, code: "SERVICE_UNAVAILABLE", retryAfter: expect.any(Number) };

/** Logs in until that is refused: undefined where the server ended instead. */
async function logInUntilRefused(server: Server, acknowledged: string[]): Promise<Answer | undefined> {
  for (let tries = 0; tries < 500; tries++) {
    const answer = await login(server.url).catch(() => undefined);
    if (answer?.status !== 200) return answer;
    acknowledged.push(answer.body.session_id);
  }
  throw new Error("The disk is full, and 500 logins were written all the same");
}

/** What callers see while nothing can be written: told to come again, and served where no disk is needed. */
async function expectRefusals(server: Server, home: string, tokens: { access_token: string; refresh_token: string }) {
  for (let tries = 0; tries < 10; tries++) {
    const answer = await login(server.url);
    const { retryAfter, ...summary } = summaryOf(answer);
    expect(summary).toEqual({ status: 503, code: "SERVICE_UNAVAILABLE" });
    expect(retryAfter).toBeGreaterThanOrEqual(1);
    expect(retryAfter).toBeLessThanOrEqual(60);
    expect(answer.tookMs).toBeLessThan(5000);
  }
  expect([200, 503]).toContain((await refresh(server.url, tokens.refresh_token)).status);
  for (const path of ["/livez", "/.well-known/jwks.json", "/api/v1/health"]) {
    expect((await fetch(server.url + path)).status).toBe(200);
  }
  const bearer = { headers: { authorization: `Bearer ${tokens.access_token}` } };
  expect((await fetch(`${server.url}/api/v1/auth/verify`, bearer)).status).toBe(200);
  expect((await primer(home, ["users", "list"]).finished).exitCode).toBe(0);
}

/** PostgreSQL gives up where its log cannot go on: then the process has said so and ended, and a restart mends it. */
async function expectCleanEnd(server: Server, home: string, disk: Disk): Promise<string | undefined> {
  const { exitCode, notes } = await server.finished;
  expect(exitCode).toBe(1);
  expect(notes).toMatch(/^primer: /m);
  disk.free();
  const again = await serve(home);
  expect((await login(again.url)).status).toBe(200);
  again.signal("SIGTERM");
  expect((await again.finished).exitCode).toBe(0);
  return notes.split("\nprimer: ")[1]?.trim().split("\n")[0];
}

const row = (seen: string) =>
  tableRow(
    "D9 full disk, embedded database",
    "writes 503, what needs no disk goes on, nothing acknowledged is lost, and each with its audit row; with space all is well again",
    seen,
  );

// On a full disk nothing that was acknowledged is lost, nobody gets a 500, and with space it works again.
describe("serve on a full disk", () => {
  test.if(possible)("logins answer 503 until there is space again; what needs no disk goes on", async () => {
    const disk = newDisk(64);
    const home = join(disk.path, "home");
    await initHome(home);
    const server = await serve(home);
    try {
      const first = (await login(server.url)).body;
      const acknowledged: string[] = [first.session_id];
      disk.fill(0);
      const refused = await logInUntilRefused(server, acknowledged);
      if (refused === undefined) {
        const said = await expectCleanEnd(server, home, disk);
        await expectComplete(home, acknowledged);
        return row(`${acknowledged.length} logins acknowledged, all there after a restart; it ended, saying: ${said}`);
      }
      expect(summaryOf(refused)).toEqual(UNAVAILABLE);
      await expectRefusals(server, home, first);
      disk.free();
      const back = await waitFor("a login", async () => (await login(server.url)).status === 200, BACK_WITHIN_MS);
      const lines = logLines(server.out());
      expect(lines.filter((line) => line.event === "request.unavailable").length).toBeGreaterThanOrEqual(11);
      expect(lines.filter((line) => line.level === "error")).toEqual([]);
      server.signal("SIGTERM");
      expect((await server.finished).exitCode).toBe(0);
      await expectComplete(home, acknowledged);
      row(
        `${acknowledged.length} logins acknowledged, all there with their audit rows; back after ${Math.round(back)} ms`,
      );
    } finally {
      await server.kill();
    }
  });

  test.if(possible && FULL)(
    "killed on the full disk and started again with space: everything acknowledged is there",
    async () => {
      const disk = newDisk(64);
      const home = join(disk.path, "home");
      await initHome(home);
      const server = await serve(home);
      const acknowledged: string[] = [];
      disk.fill(0);
      for (let status = 200; status === 200; ) {
        const answer = await login(server.url);
        status = answer.status;
        if (status === 200) acknowledged.push(answer.body.session_id);
      }
      await server.kill();
      disk.free();
      const again = await serve(home);
      expect((await login(again.url)).status).toBe(200);
      await again.kill();
      await expectComplete(home, acknowledged);
    },
  );

  /** Each acknowledged login has its session, its login record and its audit row. */
  async function expectComplete(home: string, ids: string[]): Promise<void> {
    await expectAuditWhole(home);
    const db = await openPglite(home);
    const [counts] = await db.query(
      `SELECT (SELECT count(*)::int FROM sessions WHERE id = ANY($1::uuid[])) AS sessions,
              (SELECT count(*)::int FROM login_records WHERE session_id = ANY($1::uuid[])) AS records,
              (SELECT count(*)::int FROM audit_log WHERE action = 'login' AND subject_id = ANY($1::text[])) AS audit`,
      [ids],
    );
    await db.close();
    expect(counts).toEqual({ sessions: ids.length, records: ids.length, audit: ids.length });
  }
});

// Where the write-ahead log cannot go on, PostgreSQL gives up (PANIC). Then the process ends and says why: it never
// hangs, and the next start with space recovers everything acknowledged.
describe("no space for the write-ahead log", () => {
  test.if(possible)("the process ends with exit 1 and a line that says so; nothing acknowledged is lost", async () => {
    const disk = newDisk(64);
    const home = join(disk.path, "home");
    const go = join(disk.path, "go");
    const child = start([join(root, "test/drills/children/fill-log.ts"), home, go]);
    await child.until((out) => out.includes("ack open"));
    disk.fill(3072);
    writeFileSync(go, "");
    const ended = await Promise.race([child.finished, Bun.sleep(10_000)]);
    await child.kill();
    const { out, notes } = await child.finished;
    disk.free();

    const db = await openPglite(home);
    const rows = await db.query<{ id: number }>("SELECT id FROM drill");
    await db.close();
    const ids = [...out.matchAll(/^ack (\d+)$/gm)].map((match) => Number(match[1]));
    const found = new Set(rows.map((row) => row.id));
    expect(ids.length).toBeGreaterThan(0);
    expect(ids.filter((id) => !found.has(id))).toEqual([]);
    expect(ended?.exitCode).toBe(1);
    expect(notes.trim()).not.toBe("");
    expect(notes).not.toContain("    at ");
  });
});

// Setting up on a full disk says so in one line, and is finished by the next run once there is space.
describe("init on a full disk", () => {
  const words = ["init", "--yes", "--algorithm", "ES256", "--admin-password-stdin"];
  const init = (home: string) => primer(home, words, {}, ADMIN_PASSWORD).finished;

  /** How much an unpacked, empty database takes. */
  async function templateKib(): Promise<number> {
    const disk = newDisk(96);
    await (await openPglite(join(disk.path, "home"))).close();
    return disk.usedKib();
  }

  test.if(possible)("at each stage: exit 1, one clear line; the second run finishes", async () => {
    const whole = await templateKib();
    const stages = FULL ? [16, 1024, Math.round(whole / 2), whole + 64, whole + 300, whole + 800] : [16, whole + 64];
    for (const spaceKib of stages) {
      const disk = newDisk(96);
      const home = join(disk.path, "home");
      disk.fill(spaceKib);
      const refused = await init(home);
      expect([spaceKib, refused.exitCode, refused.out]).toEqual([spaceKib, 1, ""]);
      expect(refused.notes).toMatch(/space|full/i);
      expect(refused.notes).not.toContain("    at ");
      expect(refused.notes.split("\n").filter((line) => line.startsWith("primer:"))).toHaveLength(1);
      disk.free();
      const finished = await init(home);
      expect([spaceKib, finished.exitCode]).toEqual([spaceKib, 0]);
      expect((await primer(home, ["users", "show", "admin"]).finished).exitCode).toBe(0);
    }
  });
});
