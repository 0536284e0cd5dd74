/** `primer bench` as operators and pipelines run it. Nothing here says how fast anything is. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PRIMER, plainEnvironment, type Ran, runPrimer } from "../support/server.ts";
import { freePort } from "../support/services.ts";
import { ADMIN, jsonOf, openScratch, type Scratch, temporaryFilesIn, when } from "./support/home.ts";
import { type Serving, serve } from "./support/serve.ts";

let scratch: Scratch;
beforeAll(() => {
  scratch = openScratch();
});
afterAll(() => scratch.remove());

/** A key that takes no time to make, and a folder for what the bench puts into the system's temporary one. */
const environmentIn = (folder: string, more: Record<string, string> = {}) => ({
  TMPDIR: folder,
  PRIMER_TOKENS__ALGORITHM: "ES256",
  ...more,
});

const bench = (
  args: readonly string[],
  options: { folder?: string; more?: Record<string, string>; input?: string } = {},
) =>
  runPrimer(["bench", "--dir", scratch.path("none"), ...args], {
    environment: environmentIn(options.folder ?? scratch.folder, options.more),
    ...(options.input === undefined ? {} : { input: options.input }),
  });

const QUICK = ["--duration", "500ms", "--users", "20", "--connections", "4"];
const SCENARIOS = ["login", "refresh", "verify", "introspect", "register", "mixed"];

const refused = (ran: Ran, exitCode: number) =>
  expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toEqual({
    exitCode,
    json: { error: { exit_code: exitCode, message: expect.any(String), hint: expect.anything() } },
  });

/** Whose variables say that their temporary folder is this one: whatever a bench has started, and what those have. */
function processesOf(folder: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const isOurs = readFileSync(`/proc/${pid}/environ`, "latin1").includes(`TMPDIR=${folder}\0`);
        return isOurs ? [`${pid} ${readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ")}`] : [];
      } catch {
        return [];
      }
    });
}

async function untilHolds(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within a minute`);
    await Bun.sleep(100); // a look at every process costs some milliseconds
  }
}

function expectWhole(folder: string): void {
  expect(temporaryFilesIn(folder)).toEqual([]);
  expect(processesOf(folder)).toEqual([]);
}

function folderOf(name: string): string {
  const folder = scratch.path(name);
  mkdirSync(folder);
  return folder;
}

describe("by itself", () => {
  let ran: Ran;
  let folder: string;
  let out: string;
  beforeAll(async () => {
    folder = folderOf("temporary");
    out = scratch.path("reports");
    // Addresses in the environment are somebody's: the bench has no business there.
    const more = { DATABASE_URL: "postgres://nobody@127.0.0.1:1/nothing", REDIS_URL: "redis://127.0.0.1:1" };
    const files = ["report.json", "report.html", "report.md"].map((name) => join(out, name));
    const rules = ["login.errors<=0%", "verify.throughput>0"];
    ran = await bench([...QUICK, "--json", "--assert", ...rules, "--out", ...files], { folder, more });
  });

  test("every scenario is measured against what the machine can do", () => {
    expect({ exitCode: ran.exitCode, stderr: ran.exitCode === 0 ? "" : ran.stderr }).toEqual({
      exitCode: 0,
      stderr: "",
    });
    const report = jsonOf(ran);
    expect(report).toMatchObject({
      format: "primer-bench/1",
      target: { kind: "own", database: "embedded", redis: false, users: 20, signature: "ES256" },
      load: { connections: 4, rate: null, duration_s: 0.5, rounds: 1 },
      assertions: [{ held: true }, { held: true }],
    });
    for (const rate of Object.values(report.ceiling)) expect(rate).toBeGreaterThan(0);
    expect(report.scenarios.map(({ scenario }: { scenario: string }) => scenario)).toEqual(SCENARIOS);
    for (const found of report.scenarios) {
      expect({ scenario: found.scenario, errors: found.errors }).toEqual({ scenario: found.scenario, errors: {} });
      const { p50, p90, p99, max } = found.latency_ms;
      expect([p50, p90, p99, max]).toEqual([p50, p90, p99, max].sort((a, b) => a - b));
      expect(found.server.peak_memory_mib).toBeGreaterThan(10);
      expect(found.ceiling).toBeGreaterThan(0);
    }
    // Of those that take long none may be through in so short a time on a busy machine.
    const verify = report.scenarios[SCENARIOS.indexOf("verify")];
    expect(verify.throughput).toBeGreaterThan(0);
    expect(verify.share_of_ceiling).toBeGreaterThan(0);
    expect(verify.share_of_ceiling).toBeLessThan(1.5);
    expect(verify.server.cpu_seconds_per_operation).toBeGreaterThan(0);
    const drawn = verify.histogram.reduce((sum: number, [, count]: [number, number]) => sum + count, 0);
    expect(drawn).toBeGreaterThanOrEqual(verify.requests);
  });

  test("it leaves nothing behind", () => expectWhole(folder));

  test("the JSON file is what was printed", () => {
    expect(JSON.parse(readFileSync(join(out, "report.json"), "utf8"))).toEqual(jsonOf(ran));
  });

  test("the page stands by itself: no script, nothing from elsewhere", () => {
    const page = readFileSync(join(out, "report.html"), "utf8");
    expect(page).not.toMatch(/<script|<link|<img|url\(|@import|https?:\/\/(?!127\.0\.0\.1)/i);
    for (const name of SCENARIOS) expect(page).toContain(`<strong>${name}</strong>`);
    expect(page.match(/<svg/g)).toHaveLength(SCENARIOS.length + 1);
  });

  test("the table for a README has a row for each", () => {
    const rows = readFileSync(join(out, "report.md"), "utf8")
      .split("\n")
      .filter((line) => line.startsWith("|"));
    expect(rows).toHaveLength(SCENARIOS.length + 2);
  });
});

describe("what ends it", () => {
  /** A bench that would run for minutes, in its own temporary folder, once its server is there. */
  async function running(name: string) {
    const folder = folderOf(name);
    const child = Bun.spawn(
      [...PRIMER, "bench", "--dir", scratch.path("none"), "--scenario", "verify", "--duration", "5m", "--users", "5"],
      { env: plainEnvironment(environmentIn(folder)), stdin: "ignore", stdout: "ignore", stderr: "ignore" },
    );
    await untilHolds("its server", () => processesOf(folder).some((line) => line.includes(" serve ")));
    expect(temporaryFilesIn(folder)).toHaveLength(1);
    return { child, folder };
  }

  // Ctrl-C takes everything away that the bench has made.
  test("SIGINT leaves no process and no folder", async () => {
    const { child, folder } = await running("interrupted");
    child.kill("SIGINT");
    expect(await child.exited).toBe(1);
    expectWhole(folder);
  });

  // Also where nothing of the bench itself can run any more.
  test("neither does the end of the bench by SIGKILL", async () => {
    const { child, folder } = await running("killed");
    child.kill("SIGKILL");
    await child.exited;
    await untilHolds("everything away", () => processesOf(folder).length === 0);
    expectWhole(folder);
  });

  test("neither does SIGTERM while it is being set up", async () => {
    const folder = folderOf("early");
    const child = Bun.spawn([...PRIMER, "bench", "--dir", scratch.path("none"), "--users", "100000"], {
      env: plainEnvironment(environmentIn(folder)),
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    });
    await untilHolds("its home", () => processesOf(folder).some((line) => line.includes(" init ")));
    child.kill("SIGTERM");
    expect(await child.exited).toBe(1);
    expectWhole(folder);
  });
});

describe("a server that is there", () => {
  let serving: Serving;
  let client: { id: string; client_secret: string };
  const secretFile = () => join(scratch.folder, "client-secret");
  beforeAll(async () => {
    serving = await serve(await scratch.home());
    client = jsonOf(await runPrimer(["clients", "create", "bench", "--json", "--dir", serving.home]));
    writeFileSync(secretFile(), `${client.client_secret}\n`);
  });
  afterAll(() => serving.stop());

  const account = ["--username", ADMIN.username, "--password-stdin"];
  const against = (args: readonly string[], input: string = ADMIN.password) =>
    bench(["--url", serving.url, "--duration", "300ms", "--connections", "2", "--json", ...args], { input });
  const sessions = async () => {
    const listed = await runPrimer(["sessions", "list", ADMIN.username, "--json", "--dir", serving.home]);
    return jsonOf(listed).data.length;
  };

  test("is measured with the account that was given, which is logged out again", async () => {
    const login = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(ADMIN) };
    expect((await fetch(`${serving.url}/api/v1/auth/login`, login)).status).toBe(200);
    const before = await sessions();
    const ran = await against([...account, "--client", client.id, "--client-secret-file", secretFile()]);
    expect({ exitCode: ran.exitCode, stderr: ran.exitCode === 0 ? "" : ran.stderr }).toEqual({
      exitCode: 0,
      stderr: "",
    });
    const report = jsonOf(ran);
    const measured = report.scenarios.map(({ scenario }: { scenario: string }) => scenario);
    expect(measured).toEqual(["login", "refresh", "verify", "introspect", "mixed"]);
    expect(report.scenarios.every(({ errors }: { errors: object }) => Object.keys(errors).length === 0)).toBe(true);
    expect(report.scenarios.at(-1).mix).not.toHaveProperty("register");
    expect(report.scenarios[0].server).toMatchObject({ cpu_seconds_per_operation: null, peak_memory_mib: null });
    expect(await sessions()).toBe(before);
  });

  // Whoever ends it, and however: the sessions of somebody's account do not stay behind.
  test.each(["SIGINT", "SIGKILL"] as const)(
    "a bench that ends by %s logs out what it has logged in",
    async (signal) => {
      const before = await sessions();
      const flags = ["--url", serving.url, "--scenario", "login", "--duration", "5m", "--connections", "2"];
      const folder = folderOf(signal);
      const child = Bun.spawn([...PRIMER, "bench", "--dir", scratch.path("none"), ...flags, ...account], {
        env: plainEnvironment(environmentIn(folder)),
        stdin: new Blob([ADMIN.password]),
        stdout: "ignore",
        stderr: "ignore",
      });
      await untilHolds("more sessions", async () => (await sessions()) > before + 3);
      child.kill(signal);
      await child.exited;
      await untilHolds("its end", () => processesOf(folder).length === 0);
      expect(await sessions()).toBe(before);
    },
  );

  test("at a rate: as many as were due, and how late they were sent", async () => {
    const ran = await against([...account, "--scenario", "verify", "--rate", "1000", "--warm-up", "0s"]);
    const [verify] = jsonOf(ran).scenarios;
    expect(verify).toMatchObject({ requests: 300, uncorrected_latency_ms: null });
    expect(verify.generator.late_p99_ms).toBeGreaterThanOrEqual(0);
  });

  // A rate that the server cannot follow is not made lighter by its slowness.
  test("over a rate that it cannot follow, those that were never sent count with the time that they waited", async () => {
    const ran = await against([...account, "--scenario", "login", "--rate", "5000", "--warm-up", "0s"]);
    const [login] = jsonOf(ran).scenarios;
    expect(login.requests).toBe(1500);
    expect(login.errors["not sent"]).toBeGreaterThan(1000);
    expect(login.latency_ms.p50).toBeGreaterThan(100);
  });

  test("accounts that are registered are named where they stay", async () => {
    const ran = await against(["--scenario", "register"], "");
    expect(jsonOf(ran).notes.join(" ")).toContain("bench.invalid");
  });

  test("an account that does not get in is exit 1", async () => {
    refused(await against([...account, "--scenario", "verify"], "not the password"), 1);
  });

  test("what does not hold is exit 4, and the report is there all the same", async () => {
    const ran = await against([
      ...account,
      "--scenario",
      "verify",
      "--assert",
      "verify.p50<0.001us",
      "verify.errors<=0%",
    ]);
    expect(ran.exitCode).toBe(4);
    expect(jsonOf(ran).assertions).toMatchObject([{ held: false }, { held: true }]);
  });

  test("a comparison with what was ten thousand times as fast is exit 4", async () => {
    const quick = [...account, "--scenario", "verify"];
    const before = jsonOf(await against(quick));
    const [round] = before.scenarios[0].rounds;
    before.load.rounds = 5;
    before.scenarios[0].rounds = Array(5).fill({ ...round, throughput: round.throughput * 10_000 });
    const file = join(scratch.folder, "before.json");
    writeFileSync(file, JSON.stringify(before));
    const ran = await against([...quick, "--compare", file]);
    expect({ exitCode: ran.exitCode, found: jsonOf(ran).comparisons }).toMatchObject({
      exitCode: 4,
      found: [{ scenario: "verify", verdict: "slower" }],
    });
  });
});

describe("exit codes", () => {
  test("an address where nothing listens is exit 3", async () => {
    refused(await bench(["--url", `http://127.0.0.1:${await freePort()}`, "--scenario", "register", "--json"]), 3);
  });

  test("a server that is no primer is exit 2, and is asked one thing only", async () => {
    let asked = 0;
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => Response.json({ asked: ++asked }) });
    refused(await bench(["--url", `http://127.0.0.1:${server.port}`, "--scenario", "register", "--json"]), 2);
    await server.stop(true);
    expect(asked).toBe(1);
  });

  const report = join("not", "there.json");
  test.each([
    [["--scenario", "login,logout"]],
    [["--duration", "soon"]],
    [["--rate", "0"]],
    [["--connections", "many"]],
    [["--assert", "login.p98<1ms"]],
    [["--scenario", "login", "--assert", "verify.p99<1ms"]],
    [["--compare", report]],
    [["--out", "report.pdf"]],
    [["--username", "ada"]],
    [["--url", "ftp://127.0.0.1"]],
    [["--url", "http://127.0.0.1:1", "--users", "5"]],
    [["--url", "http://127.0.0.1:1", "--workers", "2"]],
    [["--workers", "2"]],
    [["--workers", "none"]],
    [["--workers", "1/2", "--database-url", "postgres://127.0.0.1/x"]],
    [["--url", "http://127.0.0.1:1", "--database-url", "postgres://127.0.0.1/x"]],
    [["--url", "http://127.0.0.1:1", "--username", "ada"]],
    [["--url", "http://127.0.0.1:1", "--client", "orders"]],
    [["--calibrate", "--url", "http://127.0.0.1:1"]],
    [["--calibrate", "--logins-per-second", "none"]],
  ])("%j is exit 2", async (args) => {
    const ran = await bench([...args, "--json"]);
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({
      exitCode: 2,
      json: { error: { exit_code: 2 } },
    });
  });

  test("a PostgreSQL that is not there is exit 3", async () => {
    const folder = folderOf("unreachable");
    const port = await freePort();
    refused(await bench(["--database-url", `postgres://primer@127.0.0.1:${port}/x`, "--json"], { folder }), 3);
    expectWhole(folder);
  });
});

const database = process.env.TEST_DATABASE_URL ?? "";
const databases = async () => {
  const sql = new Bun.SQL(database);
  const rows = await sql`SELECT datname FROM pg_database WHERE datname LIKE 'primer_bench_%'`;
  await sql.close();
  return rows.length;
};

// The database that was given is not touched; the one that is made beside it is gone at the end.
test.if(when(database, "a bench on PostgreSQL needs TEST_DATABASE_URL"))("on PostgreSQL", async () => {
  const before = await databases();
  const ran = await bench([...QUICK, "--database-url", database, "--scenario", "login,refresh", "--json"]);
  expect({ exitCode: ran.exitCode, stderr: ran.exitCode === 0 ? "" : ran.stderr }).toEqual({ exitCode: 0, stderr: "" });
  const report = jsonOf(ran);
  expect(report.target.database).toBe("postgresql");
  for (const { errors, server } of report.scenarios) {
    expect(errors).toEqual({});
    expect(server.stages.map(({ stage }: { stage: string }) => stage)).toContain("sign");
  }
  expect(await databases()).toBe(before);
});

// What several processes cost is what they cost together, and none of them outlives the bench.
describe("with --workers", () => {
  const isPossible = when(database, "a bench of several processes needs TEST_DATABASE_URL");
  const flags = ["--workers", "2", "--database-url", database, "--scenario", "verify"];

  test.if(isPossible)("all of its processes are measured together", async () => {
    const [before, folder] = [await databases(), folderOf("workers")];
    const ran = await bench([...QUICK, ...flags, "--json"], { folder });
    expect({ exitCode: ran.exitCode, stderr: ran.exitCode === 0 ? "" : ran.stderr }).toEqual({
      exitCode: 0,
      stderr: "",
    });
    const { target, scenarios } = jsonOf(ran);
    expect(target).toMatchObject({ kind: "own", database: "postgresql", workers: 2, processes: 3 });
    expect(scenarios).toMatchObject([{ scenario: "verify", errors: {} }]);
    expect(scenarios[0].server.cpu_seconds_per_operation).toBeGreaterThan(0);
    expectWhole(folder);
    expect(await databases()).toBe(before);
  });

  test.if(isPossible)("all of them go, also where the bench ends by SIGKILL", async () => {
    const [before, folder] = [await databases(), folderOf("workers-killed")];
    const serving = () => processesOf(folder).filter((line) => / serve .*--workers [12]\/2/.test(line));
    const child = Bun.spawn([...PRIMER, "bench", "--dir", scratch.path("none"), ...flags, "--duration", "5m"], {
      env: plainEnvironment(environmentIn(folder)),
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    });
    await untilHolds("its server", () => serving().length === 2);
    child.kill("SIGKILL");
    await child.exited;
    await untilHolds("everything away", () => processesOf(folder).length === 0);
    expectWhole(folder);
    expect(await databases()).toBe(before);
  });
});

describe("init", () => {
  const init = (home: string, perSecond: string) =>
    runPrimer(["init", "--yes", "--json", "--logins-per-second", perSecond, "--dir", home], {
      environment: environmentIn(scratch.folder),
    });
  const strength = async (home: string) => {
    const settings = jsonOf(await runPrimer(["config", "show", "--json", "--dir", home]));
    return settings["password.memory_kib"].value * settings["password.iterations"].value;
  };

  // A wish for speed never makes hashes weaker than the defaults.
  test("hashes as strongly as a rate of logins allows, and never weaker than by default", async () => {
    const [few, many] = [scratch.path("few"), scratch.path("many")];
    const made = await Promise.all([init(few, "10"), init(many, "100000")]);
    expect(made.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect(await strength(many)).toBe(19_456 * 2);
    expect(await strength(few)).toBeGreaterThanOrEqual(19_456 * 2);
    const before = await strength(few);
    expect(jsonOf(await init(few, "100000"))).toMatchObject({ changed: false });
    expect(await strength(few)).toBe(before);
  });

  test("a rate that is none is exit 2", async () => {
    expect((await init(scratch.path("none"), "fast")).exitCode).toBe(2);
  });
});

test("--calibrate says what the machine does, and recommends nothing weaker than the defaults", async () => {
  const ran = await bench([
    "--calibrate",
    "--hash-time",
    "20ms",
    "--logins-per-second",
    "1000000",
    "--duration",
    "100ms",
    "--json",
  ]);
  expect(ran.exitCode).toBe(0);
  const { current, measured, recommended } = jsonOf(ran);
  expect(current).toMatchObject({ password_hash: "argon2id m=19456 t=2", signature: "ES256" });
  expect(measured[0]).toMatchObject({ memory_kib: 19_456, iterations: 2 });
  expect(recommended).toMatchObject({ "password.memory_kib": 19_456, "password.iterations": 2 });
  expect(recommended.machines).toBeGreaterThan(1);
});
