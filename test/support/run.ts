/**
 * Runs the tests: `bun run test` the short form, `bun run test:full` with everything that takes long, `bun run
 * test:drills` the drills alone, in their long form and with a table of what was seen. Starts the servers
 * that suites need, builds the binary that is tested, runs the suites on both databases, and ends with one line
 * "N passed, N failed".
 */
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { createPostgresTemplate } from "./database.ts";
import { migratedDump, sharedSigningKey } from "./fixtures.ts";
import { startPostgres } from "./services.ts";

const root = join(import.meta.dir, "../..");
const drillsAlone = process.argv.includes("--drills");
const full = drillsAlone || process.argv.includes("--full");
const inCi = Boolean(process.env.CI);
const LEAST_COVERAGE = 0.8;
const cores = availableParallelism();
const scratch = mkdtempSync(join(tmpdir(), "primer-test-run-"));

interface Suite {
  readonly name: string;
  readonly paths: readonly string[];
  /** Files of those that are run elsewhere. */
  readonly without?: readonly string[];
  readonly environment?: Record<string, string>;
  readonly coverage?: boolean;
  /** Each file with modules of its own. Those who share them are done in half the time. */
  readonly isolated?: boolean;
  /** How many files are run at a time; a few more than there are cores, since tests wait, too. */
  readonly filesAtATime: number;
}

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** What failed, by its suite, file and name: said again at the end, where somebody looks first. */
  readonly failures: readonly string[];
}

const say = (text: string) => process.stdout.write(`\n== ${text}\n`);

/** What starts processes of its own, and waits for them more than it works. */
const COMMANDS = ["test/cli", "test/backup", "test/binary.test.ts", "test/browser"];
/** What looks at how long something takes while something else happens, and so wants a calm machine. */
const DRILLS = ["test/drills", "test/observability", "test/flows"];
/** What takes long, or says little where it is cut short: the short form is for each commit, and these for each day. */
const NOT_IN_SHORT = [
  "backup",
  "disaster",
  "full-disk",
  "killed-creation",
  "killed-sealer",
  "many-connections",
  "postgres-tls",
  "scale",
  "soak",
  "upgrade",
].map((name) => `test/drills/${name}.test.ts`);
/** What holds what the machine does now against what it did a moment ago: nothing may run beside it. */
const ALONE = ["test/drills/overload.test.ts"];
/** What looks at behaviour through the database, and so must hold on both. */
const ON_BOTH = ["test/http", "test/db", "test/worker"];
/** What of that is looked at on the embedded database where there is another one, too, and time is short. */
const ON_EMBEDDED_IN_SHORT = ["test/http/auth", "test/db"];
/** The rest. */
const ELSEWHERE = ["test/architecture.test.ts", "test/compose", "test/config", "test/ports"];

async function runSuite(suite: Suite): Promise<Counts> {
  say(`${suite.name} begins: ${suite.paths.join(" ")}`);
  const report = join(scratch, `${suite.name.replaceAll(" ", "-")}.xml`);
  const coverage = suite.coverage
    ? ["--coverage", "--coverage-reporter=text", "--coverage-reporter=lcov", `--coverage-dir=${scratch}`]
    : [];
  const child = Bun.spawn(
    [
      process.execPath,
      "test",
      ...(suite.filesAtATime > 1 ? [`--parallel=${suite.filesAtATime}`] : []),
      suite.isolated ? "--isolate" : "--no-isolate",
      ...(suite.without ?? []).map((path) => `--path-ignore-patterns=${path}`),
      "--timeout=120000",
      "--reporter=junit",
      `--reporter-outfile=${report}`,
      ...coverage,
      ...suite.paths.map((path) => `./${path}`),
    ],
    {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        TEST_HOMES: scratch,
        TEST_PRIMER: join(root, "dist/primer"),
        ...suite.environment,
        ...(full ? { TEST_FULL: "1" } : {}),
      },
    },
  );
  const [exitCode] = await Promise.all([
    child.exited,
    printWith(suite.name, child.stdout),
    printWith(suite.name, child.stderr),
  ]);
  const counts = await readCounts(suite.name, report);
  const broke = exitCode !== 0 && counts.failed === 0;
  if (broke) say(`${suite.name} ended with exit code ${exitCode} although no test failed`);
  const shortfall = suite.coverage ? await coverageShortfall() : 0;
  const others = [
    ...(broke ? [`${suite.name}: ended with exit code ${exitCode} although no test failed`] : []),
    ...(shortfall > 0 ? [`${suite.name}: too few lines were run`] : []),
  ];
  return { ...counts, failed: counts.failed + others.length, failures: [...counts.failures, ...others] };
}

async function printWith(name: string, output: ReadableStream<Uint8Array>): Promise<void> {
  const lines = createInterface({ input: Readable.fromWeb(output as never) });
  for await (const line of lines) process.stdout.write(`${name}: ${line}\n`);
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

async function readCounts(suite: string, report: string): Promise<Counts> {
  const xml = await Bun.file(report)
    .text()
    .catch(() => "");
  const head = /<testsuites[^>]*>/.exec(xml)?.[0] ?? "";
  const of = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(head)?.[1] ?? 0);
  const [tests, failed, skipped] = [of("tests"), of("failures"), of("skipped")];
  const failures = [...xml.matchAll(/<testcase ([^>]*[^/])>\s*<failure ([^>]*)>/g)].map(
    ([, test = "", failure = ""]) => {
      const value = (attributes: string, name: string) =>
        new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1]?.replaceAll("&quot;", '"').replaceAll("&#10;", "\n") ??
        "";
      return `${suite}: ${value(test, "file")}:${value(test, "line")} ${value(test, "name")}\n${value(failure, "message")}`;
    },
  );
  return { passed: tests - failed - skipped, failed, skipped, failures };
}

const sumOf = (one: Counts, other: Counts): Counts => ({
  passed: one.passed + other.passed,
  failed: one.failed + other.failed,
  skipped: one.skipped + other.skipped,
  failures: [...one.failures, ...other.failures],
});

async function step(name: string, command: string[]): Promise<void> {
  say(name);
  const child = Bun.spawn(command, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  if ((await child.exited) !== 0) throw new Error(`${name} failed`);
}

/** The drills in their long form, all or those that are named. What was seen is printed as one table when they are over. */
async function runDrills(): Promise<Counts> {
  const table = join(scratch, "drills.md");
  const named = process.argv.slice(2).filter((word) => !word.startsWith("--"));
  const paths = named.length > 0 ? named : ["test/drills"];
  const environment = { TEST_DRILL_TABLE: table };
  const counts = await runSuite({ name: "drills", paths, environment, isolated: true, filesAtATime: 1 });
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
  if (postgres) process.env.TEST_DATABASE_URL = postgres.url;
  const template = postgres && (await createPostgresTemplate());
  if (template) process.env.TEST_DATABASE_TEMPLATE = template.name;
  const missing: string[] = [];
  try {
    const isShort = postgres !== undefined && !full;
    if (!full) say(`Short form: only with --full run ${NOT_IN_SHORT.join(", ")}`);
    if (isShort)
      say(
        `Short form: on the embedded database run ${ON_EMBEDDED_IN_SHORT.join(", ")}; the others on PostgreSQL alone`,
      );
    const onEmbedded = isShort ? ON_EMBEDDED_IN_SHORT : ON_BOTH;
    const suites: Suite[] = [
      // What is measured at length needs quiet.
      { name: "commands", paths: COMMANDS, isolated: true, filesAtATime: full ? 1 : cores + 1 },
      {
        name: "drills",
        paths: DRILLS,
        without: [...ALONE, ...(full ? [] : NOT_IN_SHORT)],
        isolated: true,
        filesAtATime: full ? 1 : cores,
      },
      { name: "drills alone", paths: ALONE, isolated: true, filesAtATime: 1 },
      { name: "embedded database", paths: [...onEmbedded, ...ELSEWHERE], coverage: !isShort, filesAtATime: cores + 1 },
    ];
    if (postgres) {
      suites.push({
        name: "PostgreSQL",
        paths: ON_BOTH,
        environment: { TEST_DATABASE: "postgres" },
        coverage: isShort,
        filesAtATime: cores + 1,
      });
    } else missing.push("PostgreSQL (no TEST_DATABASE_URL, no server binaries, no Docker engine)");
    const counted: Counts[] = [];
    for (const suite of suites) counted.push(await runSuite(suite));
    for (const name of missing) say(`DID NOT RUN: the suites on ${name}`);
    const nothing: Counts = {
      passed: 0,
      failed: inCi ? missing.length : 0,
      skipped: 0,
      failures: inCi ? missing.map((name) => `the suites on ${name} did not run`) : [],
    };
    return counted.reduce(sumOf, nothing);
  } finally {
    await template?.drop();
    await postgres?.stop();
    rmSync(scratch, { recursive: true, force: true });
  }
}

const { passed, failed, skipped, failures } = drillsAlone ? await runDrills() : await runAll();
for (const failure of failures) process.stdout.write(`\nFAILED: ${failure}`);
process.stdout.write(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}\n`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
