import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, existsSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openPglite } from "../../db/pglite.ts";
import { FULL, inShort, primer, root, scratchFolder, start, waitFor } from "./processes.ts";
import { tableRow } from "./table.ts";

const KILLS = FULL ? 50 : 2;
const STOPS = FULL ? 50 : 1;
const CUT_STARTS = FULL ? 50 : 1;
inShort(
  `${KILLS} kills, ${STOPS} SIGTERMs and ${CUT_STARTS} cut first starts, 50 each with TEST_FULL; open again within 20 s, 5 s there`,
);
const OPENS_WITHIN_MS = FULL ? 5000 : 20_000;

const scratch = scratchFolder();
/** A home whose database was opened and closed in order. */
const wholeHome = join(scratch.path, "whole");
beforeAll(async () => (await openPglite(wholeHome)).close());
afterAll(() => scratch.remove());
const writer = (home: string, first: number) =>
  start([join(root, "test/drills/children/commit-rows.ts"), home, String(first)]);

const acknowledged = (out: string) => [...out.matchAll(/^ack (\d+)\n/gm)].map((match) => Number(match[1]));

/** Ends a writer in the middle of its work, opens the database again, and answers which acknowledged rows are gone. */
async function endedBy(home: string, signal: "SIGKILL" | "SIGTERM", first: number) {
  const child = writer(home, first);
  await child.until((out) => acknowledged(out).length >= 2);
  await Bun.sleep(Math.random() * 300);
  child.signal(signal);
  const { out } = await child.finished;
  const ids = acknowledged(out);

  writeFileSync(join(home, "pgdata/postmaster.pid"), `${process.pid}\n/nowhere\n1\n5432\n`);
  const began = performance.now();
  const db = await openPglite(home);
  const opened = performance.now() - began;
  const rows = await db.query<{ id: number }>("SELECT id FROM drill WHERE id >= $1", [first]);
  await db.close();
  const found = new Set(rows.map((row) => row.id));
  return { ids, lost: ids.filter((id) => !found.has(id)), opened, next: Math.max(first, ...found) + 1 };
}

// What was acknowledged survives the process, however it ends, and the database opens again without help. A
// postmaster.pid that names a living process does not matter: the lock is our own.
describe("a writer ended in the middle of its work", () => {
  test.each([
    ["SIGKILL", KILLS],
    ["SIGTERM", STOPS],
  ] as const)("%s, %d times: nothing acknowledged is lost", async (signal, rounds) => {
    const home = join(scratch.path, signal);
    let next = 1;
    let total = 0;
    let slowest = 0;
    for (let round = 0; round < rounds; round++) {
      const outcome = await endedBy(home, signal, next);
      expect(outcome.lost).toEqual([]);
      expect(outcome.opened).toBeLessThan(OPENS_WITHIN_MS);
      next = outcome.next;
      total += outcome.ids.length;
      slowest = Math.max(slowest, outcome.opened);
    }
    expect(total).toBeGreaterThan(rounds);
    tableRow(
      `D11 ${signal} in mid-write, embedded database`,
      `nothing acknowledged is lost, opens again within ${OPENS_WITHIN_MS / 1000} s without help`,
      `${rounds} times, 0 of ${total} rows lost, open again in ${Math.round(slowest)} ms at most`,
    );
  });
});

/** Every file of a folder with the hash of what is in it; without the note that each opening process leaves there. */
function contentOf(folder: string): Record<string, string> {
  const all = [...new Bun.Glob("**/*").scanSync({ cwd: folder, dot: true })].sort();
  const names = all.filter((name) => name !== "postmaster.pid");
  const hash = (name: string) =>
    createHash("sha256")
      .update(readFileSync(join(folder, name)))
      .digest("hex");
  return Object.fromEntries(names.map((name) => [name, hash(name)]));
}

const thrownBy = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );

// A damaged database is told of and left as it is, never replaced by a new and empty one.
describe("a database that will not open", () => {
  test.each([
    ["without its control file's content", "global/pg_control"],
    ["without its version", "PG_VERSION"],
  ])("%s: exit 1 with what to do, and nothing is changed", async (_name, file) => {
    const home = join(scratch.path, `damaged ${file.replace("/", " ")}`);
    cpSync(wholeHome, home, { recursive: true });
    const folder = join(home, "pgdata");
    truncateSync(join(folder, file), 0);
    const before = contentOf(folder);
    const error = await thrownBy(openPglite(home));
    expect(error).toMatchObject({ name: "OperatorError", exitCode: 1, hint: expect.any(String) });
    const { exitCode, out, notes } = await primer(home, ["users", "list", "--json"]).finished;
    expect(exitCode).toBe(1);
    expect(JSON.parse(out).error).toMatchObject({ exit_code: 1, hint: expect.any(String) });
    expect(notes).toContain(folder);
    expect(contentOf(folder)).toEqual(before);
  });
});

// PostgreSQL writes a lock file of its own at each start; one that a killed process left half-written stops nobody.
test.each(["", "4", "1\n/elsewhere\n0\n5432\n", "garbage\0"])(
  "a postmaster.pid of %j is no obstacle",
  async (content) => {
    writeFileSync(join(wholeHome, "pgdata/postmaster.pid"), content);
    const db = await openPglite(wholeHome);
    expect(await db.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
    await db.close();
  },
);

// A first start that is cut off leaves nothing behind that looks like a database and is none.
describe("a first start, killed while the database is unpacked", () => {
  test(`${CUT_STARTS} times: the next start works`, async () => {
    let unfinished = 0;
    for (let round = 0; round < CUT_STARTS; round++) {
      const home = join(scratch.path, `first${round}`);
      const child = writer(home, 1);
      await waitFor("the unpacking", () => existsSync(join(home, "pgdata.new")) || existsSync(join(home, "pgdata")));
      await Bun.sleep((round * 200) / CUT_STARTS);
      await child.kill();
      if (!existsSync(join(home, "pgdata"))) unfinished++;
      const db = await openPglite(home);
      expect(await db.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
      await db.close();
      expect(existsSync(join(home, "pgdata.new"))).toBe(false);
    }
    expect(unfinished).toBeGreaterThan(0);
  });
});
