/**
 * Runs the tests: `bun run test` the short form, `bun run test:full` with everything that takes long, `bun run
 * test:drills` the drills alone, in their long form and with a table of what was seen. Starts the servers
 * that suites need, builds the binary that is tested, runs the suites on both databases, and ends with one line
 * "N passed, N failed".
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { migratedDump, sharedSigningKey } from "./fixtures.ts";
import { startPostgres } from "./services.ts";

const root = join(import.meta.dir, "../..");
const drillsAlone = process.argv.includes("--drills");
const full = drillsAlone || process.argv.includes("--full");
const inCi = Boolean(process.env.CI);
const LEAST_COVERAGE = 0.8;
const scratch = mkdtempSync(join(tmpdir(), "primer-test-run-"));

interface Suite {
  readonly name: string;
  readonly paths: readonly string[];
  readonly environment?: Record<string, string>;
  /** Files whose path matches are left out. */
  readonly without?: string;
  readonly coverage?: boolean;
  /** How many files run at the same time. */
  readonly atATime?: number;
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

const say = (text: string) => process.stdout.write(`\n== ${text}\n`);

const DRILLS = "test/drills";
/** Suites that look at behaviour through the database, and so must hold on both. */
const ON_BOTH = ["test/http", "test/db", "test/flows"];

async function runSuite(suite: Suite): Promise<Counts> {
  say(`${suite.name}: ${suite.paths.join(" ")}`);
  const report = join(scratch, `${suite.name.replaceAll(" ", "-")}.xml`);
  const coverage = suite.coverage
    ? ["--coverage", "--coverage-reporter=text", "--coverage-reporter=lcov", `--coverage-dir=${scratch}`]
    : [];
  const child = Bun.spawn(
    [
      process.execPath,
      "test",
      "--isolate",
      "--timeout=120000",
      "--reporter=junit",
      `--reporter-outfile=${report}`,
      ...coverage,
      ...(suite.without ? [`--path-ignore-patterns=${suite.without}`] : []),
      ...(suite.atATime ? [`--parallel=${suite.atATime}`] : []),
      ...suite.paths.map((path) => `./${path}`),
    ],
    {
      cwd: root,
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...process.env, TEST_HOMES: scratch, ...suite.environment, ...(full ? { TEST_FULL: "1" } : {}) },
    },
  );
  const exitCode = await child.exited;
  const counts = await readCounts(report);
  if (exitCode !== 0 && counts.failed === 0) {
    say(`${suite.name} ended with exit code ${exitCode} although no test failed`);
    counts.failed = 1;
  }
  if (suite.coverage) counts.failed += await coverageShortfall();
  return counts;
}

/** 1 where fewer of the lines ran than {@link LEAST_COVERAGE}, over all files together; what child processes ran counts for none. */
async function coverageShortfall(): Promise<number> {
  const report = await Bun.file(join(scratch, "lcov.info")).text();
  const sum = (field: string) =>
    [...report.matchAll(new RegExp(`^${field}:(\\d+)$`, "gm"))].reduce((total, [, count]) => total + Number(count), 0);
  const share = sum("LH") / sum("LF");
  say(`${(share * 100).toFixed(1)} % of the lines were run (at least ${LEAST_COVERAGE * 100} %)`);
  return share >= LEAST_COVERAGE ? 0 : 1;
}

async function readCounts(report: string): Promise<Counts> {
  const head = await Bun.file(report)
    .text()
    .then((xml) => /<testsuites[^>]*>/.exec(xml)?.[0] ?? "")
    .catch(() => "");
  const of = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(head)?.[1] ?? 0);
  const [tests, failed, skipped] = [of("tests"), of("failures"), of("skipped")];
  return { passed: tests - failed - skipped, failed, skipped };
}

async function step(name: string, command: string[]): Promise<void> {
  say(name);
  const child = Bun.spawn(command, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  if ((await child.exited) !== 0) throw new Error(`${name} failed`);
}

/** The drills in their long form, all or those that are named. What was seen is printed as one table when they are over. */
async function runDrills(): Promise<Counts> {
  const table = join(scratch, "drills.md");
  const named = process.argv.slice(2).filter((word) => !word.startsWith("--"));
  const paths = named.length > 0 ? named : [DRILLS];
  const counts = await runSuite({ name: "drills", paths, environment: { TEST_DRILL_TABLE: table } });
  const rows = await Bun.file(table)
    .text()
    .catch(() => "");
  process.stdout.write(`\n| drill | promise | seen |\n|---|---|---|\n${rows}`);
  rmSync(scratch, { recursive: true, force: true });
  return counts;
}

async function runAll(): Promise<Counts> {
  await step("Build the binary", [process.execPath, "run", "build"]);
  await Promise.all([migratedDump(), sharedSigningKey()]);
  const postgres = await startPostgres();
  const missing: string[] = [];
  try {
    const environment: Record<string, string> = postgres ? { TEST_DATABASE_URL: postgres.url } : {};
    const suites: Suite[] = [
      { name: "embedded database", paths: ["test"], without: `${DRILLS}/**`, environment, coverage: true },
      // They wait for other processes most of the time. In the long form they also measure, and so run alone.
      { name: "drills", paths: [DRILLS], environment, ...(full ? {} : { atATime: 2 }) },
    ];
    if (postgres) {
      suites.push({ name: "PostgreSQL", paths: ON_BOTH, environment: { ...environment, TEST_DATABASE: "postgres" } });
    } else missing.push("PostgreSQL (no TEST_DATABASE_URL, no server binaries, no Docker engine)");
    const total: Counts = { passed: 0, failed: 0, skipped: 0 };
    for (const suite of suites) {
      const counts = await runSuite(suite);
      total.passed += counts.passed;
      total.failed += counts.failed;
      total.skipped += counts.skipped;
    }
    for (const name of missing) say(`DID NOT RUN: the suites on ${name}`);
    if (inCi) total.failed += missing.length;
    return total;
  } finally {
    await postgres?.stop();
    rmSync(scratch, { recursive: true, force: true });
  }
}

const { passed, failed, skipped } = drillsAlone ? await runDrills() : await runAll();
process.stdout.write(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}\n`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
