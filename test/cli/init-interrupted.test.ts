import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { createPostgresDatabase } from "../support/database.ts";
import { PRIMER, plainEnvironment, runPrimer } from "../support/server.ts";
import { jsonOf, openScratch, when } from "./support/home.ts";
import { standingOf } from "./support/installation.ts";

const scratch = openScratch();
afterAll(() => scratch.remove());

const FULL = when(process.env.TEST_FULL, "killing init at 40 moments instead of 8 (TEST_FULL)");
const POSTGRES = when(process.env.TEST_DATABASE_URL, "init on PostgreSQL: there is no TEST_DATABASE_URL");
const AT_A_TIME = 2;

const initArgs = (home: string, ...more: string[]) => [
  "init",
  "--yes",
  "--json",
  "--algorithm",
  "ES256",
  "--dir",
  home,
  ...more,
];

/** A moment in a run of init, seen from outside, and how long after it the run is killed. */
interface Moment {
  readonly name: string;
  reached(home: string, stderr: string): boolean;
  readonly afterMs: number;
}

const fileThere = (file: string, afterMs = 0): Moment => ({
  name: `${file} + ${afterMs} ms`,
  reached: (home) => existsSync(join(home, file)),
  afterMs,
});
const said = (text: string, afterMs = 0): Moment => ({
  name: `"${text}" + ${afterMs} ms`,
  reached: (_home, stderr) => stderr.includes(text),
  afterMs,
});
const KEY = "Making a signing key";
const PASSWORD = "Password";

type Pair = readonly [Moment, Moment];

/** In each home init is killed at both moments of a pair, one run after the other, before it may finish. */
const ON_PGLITE: readonly Pair[] = [
  [fileThere("lock.pid"), said(KEY)],
  [fileThere("pgdata", 100), said(KEY, 100)],
  [fileThere("secrets.env"), said(KEY, 300)],
  [fileThere("primer.toml", 200), said(PASSWORD)],
];
const ON_POSTGRES: readonly Pair[] = [
  [fileThere("secrets.env"), said(KEY, 50)],
  [fileThere("primer.toml", 100), said(PASSWORD)],
];
/** The long form: as many again as make 40 kills, each a little later than the one before. */
const SPREAD: readonly Pair[] = Array.from({ length: 16 }, (_, index) => [
  fileThere("secrets.env", index * 40),
  said(index % 4 === 3 ? PASSWORD : KEY, index * 15),
]);

/** Runs init and kills it at a moment. Answers what it had written to standard error by then. */
async function initKilledAt(home: string, args: readonly string[], { reached, afterMs }: Moment): Promise<string> {
  const child = Bun.spawn([...PRIMER, ...args], { env: plainEnvironment(), stdio: ["ignore", "ignore", "pipe"] });
  let stderr = "";
  const read = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) stderr += decoder.decode(chunk, { stream: true });
  })();
  while (child.exitCode === null && !reached(home, stderr)) await Bun.sleep(1);
  await Bun.sleep(afterMs);
  child.kill("SIGKILL");
  await Promise.all([child.exited, read]);
  return stderr;
}

/** The password that was last on the screen. */
const lastShown = (screen: string) => [...screen.matchAll(/Password +(\S{29})/g)].at(-1)?.[1] ?? "";

/** Everything is there exactly once, and the password last shown is the one that logs in. */
async function expectWhole(home: string, screen: string, environment: Record<string, string> = {}): Promise<void> {
  const standing = await standingOf(home, { username: "admin", password: lastShown(screen) }, environment);
  expect(standing).toMatchObject({
    activeSigningKeys: 1,
    activeRefreshKeys: 1,
    installations: 1,
    initialised: true,
    administrators: ["admin"],
    passwordFits: true,
  });
  expect([standing.kids.length, standing.refreshKeyIds.length]).toEqual([1, 1]);
}

interface Place {
  readonly home: string;
  readonly more: readonly string[];
  done(): Promise<void>;
}

async function interruptAndFinish([first, second]: Pair, { home, more, done }: Place): Promise<void> {
  const args = initArgs(home, ...more);
  const screens = [await initKilledAt(home, args, first), await initKilledAt(home, args, second)];
  const finishing = await runPrimer(args);
  expect({ moments: [first.name, second.name], ...finishing }).toMatchObject({ exitCode: 0 });
  await expectWhole(home, [...screens, finishing.stderr].join(""));
  await done();
}

async function interruptAll(pairs: readonly Pair[], prepare: () => Promise<Place>): Promise<void> {
  const waiting = [...pairs, ...(FULL ? SPREAD : [])];
  const next = async (): Promise<void> => {
    for (let pair = waiting.pop(); pair; pair = waiting.pop()) await interruptAndFinish(pair, await prepare());
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, next));
}

// A run of init that dies at any moment is finished by the next one: nothing is there twice, nothing is lost, and the
// password that was shown last works.
describe("init killed at many moments, then run again", () => {
  test("on the embedded database", async () => {
    await interruptAll(ON_PGLITE, async () => ({ home: scratch.path("home"), more: [], done: async () => {} }));
  }, 600_000);

  test.if(POSTGRES)(
    "on PostgreSQL",
    async () => {
      await interruptAll(ON_POSTGRES, async () => {
        const { url, drop } = await createPostgresDatabase();
        return { home: scratch.path("home"), more: ["--database-url", url], done: drop };
      });
    },
    600_000,
  );
});

describe("init on PostgreSQL", () => {
  /** Two homes that share their secrets, as two nodes do; nothing is in the database yet. */
  async function twoNodes() {
    const database = await createPostgresDatabase();
    const made = await scratch.home();
    const homes = [scratch.path("node"), scratch.path("node")];
    for (const home of homes) {
      mkdirSync(home, { mode: 0o700 });
      cpSync(join(made, "secrets.env"), join(home, "secrets.env"));
    }
    return { ...database, homes };
  }

  // Two nodes that are set up at the same moment make one installation.
  test.if(POSTGRES)("two at the same time: both succeed, and one key and one administrator come of it", async () => {
    for (let round = 0; round < (FULL ? 10 : 2); round++) {
      const { url, drop, homes } = await twoNodes();
      const environment = { DATABASE_URL: url };
      const ran = await Promise.all(homes.map((home) => runPrimer(initArgs(home), { environment })));
      expect(ran.map(({ exitCode, stderr }) => ({ exitCode, failed: /primer:/.test(stderr) }))).toEqual([
        { exitCode: 0, failed: false },
        { exitCode: 0, failed: false },
      ]);
      const first = ran.filter((each) => jsonOf(each).key_created);
      expect(first).toHaveLength(1);
      await expectWhole(homes[0] ?? "", first[0]?.stderr ?? "", environment);
      await drop();
    }
  });

  // A home without the secrets of a database never makes new ones for it.
  test.if(POSTGRES)("a home without the secrets of an installed database: exit 2, and nothing is written", async () => {
    const { url, drop, homes } = await twoNodes();
    expect((await runPrimer(initArgs(homes[0] ?? "", "--database-url", url))).exitCode).toBe(0);
    const stranger = scratch.path("stranger");
    expect((await runPrimer(initArgs(stranger, "--database-url", url))).exitCode).toBe(2);
    expect(existsSync(join(stranger, "secrets.env"))).toBe(false);
    expect((await standingOf(homes[0] ?? "")).kids).toHaveLength(1);
    await drop();
  });

  test.if(POSTGRES)("a database that does not exist, and a user that may not connect: exit 3", async () => {
    const { url, drop } = await createPostgresDatabase();
    await drop();
    const home = scratch.path("home");
    const ran = await runPrimer(initArgs(home, "--database-url", url));
    expect(ran.exitCode).toBe(3);
    expect(existsSync(home)).toBe(false);
  });
});
