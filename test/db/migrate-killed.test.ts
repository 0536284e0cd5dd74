import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { Database } from "../../db/database.ts";
import { isMigrated, migrate } from "../../db/migrate.ts";
import { openPglite } from "../../db/pglite.ts";
import { FULL, inShort, primer, scratchFolder } from "../drills/processes.ts";
import { createPostgresDatabase, openPostgresAt, openTestDatabase, TEST_DATABASE } from "../support/database.ts";

const ROUNDS = FULL ? 12 : 1;
const KILLS = FULL ? 10 : 3;
inShort(`migrate is killed ${ROUNDS * KILLS} times, ${12 * 10} with TEST_FULL`);

const scratch = scratchFolder();
let expected: string[];
beforeAll(async () => {
  const whole = await openTestDatabase();
  expected = await shapeOf(whole);
  await whole.close();
});
afterAll(() => scratch.remove());

/** The job queue has a table for today and one for tomorrow, and what it is compared with may be from yesterday. */
const DAY_IN_NAME = /_20\d{6}(?=\b|_)/g;

/** Every column, index, constraint, function and row that migrations make, in both schemas; days left out of names. */
async function shapeOf(db: Database): Promise<string[]> {
  const rows = await db.query<{ part: string }>(`
    SELECT 'column ' || table_schema || '.' || table_name || '.' || column_name || ' ' || data_type AS part
    FROM information_schema.columns WHERE table_schema IN ('public', 'jobs')
    UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname IN ('public', 'jobs')
    UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
      WHERE connamespace IN ('public'::regnamespace, 'jobs'::regnamespace)
    UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'jobs'::regnamespace
    UNION ALL SELECT 'right ' || role || ' ' || permission FROM role_permissions
    UNION ALL SELECT 'role ' || name FROM roles
    UNION ALL SELECT 'queue ' || name || ' ' || retention_seconds FROM jobs.queue
    UNION ALL SELECT 'version ' || version FROM jobs.version
    UNION ALL SELECT 'applied ' || name || ' ' || hash FROM schema_migrations`);
  return rows.map(({ part }) => part.replace(DAY_IN_NAME, "_DAY")).sort();
}

interface Target {
  readonly home: string;
  readonly variables: Record<string, string>;
  open(): Promise<Database>;
  remove(): Promise<void>;
}

async function newTarget(round: number): Promise<Target> {
  const home = join(scratch.path, `home${round}`);
  if (TEST_DATABASE === "pglite") {
    await (await openPglite(home)).close(); // migrate makes no database where there is none
    return { home, variables: {}, open: () => openPglite(home), remove: async () => {} };
  }
  const { url, drop } = await createPostgresDatabase();
  return { home, variables: { DATABASE_URL: url }, open: () => openPostgresAt(url), remove: drop };
}

/** How long a whole run takes on this machine now (milliseconds). */
async function wholeRun(): Promise<number> {
  const target = await newTarget(-1);
  try {
    const began = performance.now();
    const { exitCode, notes } = await primer(target.home, ["migrate"], target.variables).finished;
    expect(notes).toBe("");
    expect(exitCode).toBe(0);
    return performance.now() - began;
  } finally {
    await target.remove();
  }
}

// A migration that is cut off at any moment is finished by the next run, and what comes out is the same.
describe("migrate, killed again and again at later and later moments", () => {
  test(`${ROUNDS} times ${KILLS} kills, then left alone: it finishes, and the schema is the same`, async () => {
    const takes = await wholeRun();
    let cut = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const target = await newTarget(round);
      try {
        for (let kill = 0; kill < KILLS; kill++) {
          const child = primer(target.home, ["migrate"], target.variables);
          await Bun.sleep(takes * (0.3 + (0.65 * (kill + round / ROUNDS)) / KILLS));
          if (child.running()) cut++;
          await child.kill();
        }
        const last = await primer(target.home, ["migrate", "--json"], target.variables).finished;
        expect(last.notes).toBe("");
        expect(last.exitCode).toBe(0);
        const db = await target.open();
        expect(await isMigrated(db)).toBe(true);
        expect(await shapeOf(db)).toEqual(expected);
        expect(await migrate(db, () => new Date())).toEqual([]);
        await db.close();
      } finally {
        await target.remove();
      }
    }
    // How long a run takes differs with what else the machine does, so that not every kill finds one.
    expect(cut).toBeGreaterThanOrEqual(ROUNDS);
  });
});

// Two commands at once on one database: one does the work, the other waits for it and finds nothing to do.
describe("migrate, twice at once", () => {
  test("both end well, and one of them has done it all", async () => {
    const target = await newTarget(1000);
    try {
      const both = await Promise.all(
        [1, 2].map(() => primer(target.home, ["migrate", "--json"], target.variables).finished),
      );
      expect(both.map(({ exitCode, notes }) => [exitCode, notes])).toEqual([
        [0, ""],
        [0, ""],
      ]);
      const applied = both.map(({ out }) => (JSON.parse(out) as { applied: string[] }).applied.length);
      expect(applied.filter((count) => count > 0)).toHaveLength(1);
      const db = await target.open();
      expect(await shapeOf(db)).toEqual(expected);
      await db.close();
    } finally {
      await target.remove();
    }
  });
});
