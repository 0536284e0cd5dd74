import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { once } from "node:events";
import { createWriteStream, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { createPostgresDatabase } from "../support/database.ts";
import { EXPORT_PASSWORD, EXPORTS, exportText, FIREBASE_CONFIG } from "../support/moving/exports.ts";
import { PRIMER, plainEnvironment, runPrimer } from "../support/server.ts";
import { ADMIN, jsonOf, openScratch, when } from "./support/home.ts";
import { login, type Serving, serve } from "./support/serve.ts";

const FULL = when(
  process.env.TEST_FULL && process.env.TEST_DATABASE_URL,
  "importing 1,000,000 users into PostgreSQL, with its time and memory (TEST_FULL and TEST_DATABASE_URL); the short form imports 8,000",
);
const scratch = openScratch();
afterAll(() => scratch.remove());

const HASH = "$2b$06$VVrBq.RqNoxaxY/e90uHIOW1Ki6gXytPx.mZiFVGu6xlMBMS0Cqdu";

function fileOf(content: string, name = "users.ndjson"): string {
  const path = `${scratch.path("given")}-${name}`;
  writeFileSync(path, content);
  return path;
}

const importing = (home: string, ...args: string[]) => runPrimer(["users", "import", ...args, "--dir", home, "--json"]);
const modeOf = (path: string) => statSync(path).mode & 0o777;

describe("beside a server on the embedded database", () => {
  let serving: Serving;
  beforeAll(async () => {
    serving = await serve(await scratch.home());
  });
  afterAll(() => serving.stop());

  // The files of whoever imports are read with their rights, wherever the server runs; logins work at once.
  test("users come in from a file named from where one stands, and log in", async () => {
    const path = fileOf(exportText("hand-made.csv"), "users.csv");
    const ran = await runPrimer(
      ["users", "import", basename(path), "--format", "csv", "--dir", serving.home, "--json"],
      { cwd: dirname(path) },
    );
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({
      exitCode: 0,
      json: { format: "csv", dry_run: false, read: 3, imported: 3, rejected: 0, rejects_file: null },
    });
    expect((await login(serving.url, "cleo@csv.example", EXPORT_PASSWORD)).status).toBe(200);
    expect((await login(serving.url, "cora", `${EXPORT_PASSWORD}!`)).status).toBe(401);
    expect((await login(serving.url, "cora", EXPORT_PASSWORD)).status).toBe(200);
    expect((await login(serving.url, "cyd", EXPORT_PASSWORD)).status).toBe(403);
    expect(ran.stdout + ran.stderr).not.toContain("$6$");
  });

  test("from standard input", async () => {
    const input = exportText("hand-made.ndjson");
    const ran = await runPrimer(["users", "import", "-", "--format", "ndjson", "--dir", serving.home, "--json"], {
      input,
    });
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({ exitCode: 0, json: { imported: 3 } });
  });

  // Who was not taken is in a file that names them, and that nobody else can read; nothing of a hash is in it.
  test("rejects", async () => {
    const [product] = EXPORTS;
    const path = fileOf(exportText("keycloak-realm.json"), "realm.json");
    const dry = await importing(serving.home, path, "--format", "keycloak", "--dry-run");
    const ran = await importing(serving.home, path, "--format", "keycloak");
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({ exitCode: 1, json: { ...product?.report } });
    expect({ ...jsonOf(dry), seconds: 0, dry_run: false }).toEqual({ ...jsonOf(ran), seconds: 0 });
    const rejects = `${path}.rejects.ndjson`;
    expect([jsonOf(ran).rejects_file, modeOf(rejects)]).toEqual([rejects, 0o600]);
    const lines = readFileSync(rejects, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines).toEqual([
      {
        file: basename(path),
        at: 6,
        code: "password_hash_refused",
        reason: expect.any(String),
        username: "kip",
        email: "kip@keycloak.example",
      },
    ]);
    const again = await importing(
      serving.home,
      path,
      "--format",
      "keycloak",
      "--without-password",
      "--rejects",
      `${path}.r`,
    );
    expect({ exitCode: again.exitCode, json: jsonOf(again) }).toMatchObject({
      exitCode: 0,
      json: { imported: 1, existing: 5 },
    });
    expect(existsSync(`${path}.r`)).toBe(false);
  });

  const MISUSES: readonly (readonly [string, readonly string[]])[] = [
    ["no format", []],
    ["an unknown format", ["--format", "ldap"]],
    ["what every object has as a format", ["--format", "constructor"]],
    ["Firebase without the project's parameters", ["--format", "firebase"]],
    ["parameters that are none", ["--format", "firebase", "--hash-config", import.meta.path]],
    ["a role that is not here", ["--format", "keycloak", "--role-map", "editors=king"]],
    ["half a pair of roles", ["--format", "keycloak", "--role-map", "editors"]],
  ];
  test.each(MISUSES)("%s is refused", async (_name, args) => {
    const ran = await importing(serving.home, fileOf("{}"), ...args);
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({
      exitCode: 2,
      json: { error: { exit_code: 2 } },
    });
  });

  // What is imported is never written to.
  test("rejects cannot go where the export is", async () => {
    const path = fileOf("{}");
    expect((await importing(serving.home, path, "--format", "ndjson", "--rejects", path)).exitCode).toBe(2);
    expect(readFileSync(path, "utf8")).toBe("{}");
  });

  test("a file that is not there, is empty, or is damaged", async () => {
    const exitCodes = await Promise.all(
      [scratch.path("nowhere"), fileOf(""), fileOf('{"users":[{"id":')].map(
        async (path) => (await importing(serving.home, path, "--format", "keycloak")).exitCode,
      ),
    );
    expect(exitCodes).toEqual([2, 1, 1]);
  });

  // The project's signer key is a secret: neither the command line nor anything that is written has it.
  test("Firebase's parameters come from a file", async () => {
    const path = fileOf(exportText("firebase.json"), "firebase.json");
    const ran = await importing(serving.home, path, "--format", "firebase", "--hash-config", FIREBASE_CONFIG);
    expect(jsonOf(ran)).toMatchObject({ imported: 2 });
    const exported = await runPrimer(["users", "export", "--dir", serving.home]);
    for (const text of [exported.stdout, ran.stdout, ran.stderr, readFileSync(`${path}.rejects.ndjson`, "utf8")])
      expect(text).not.toContain("jxspr8Ki0RYycVU8zykb");
    expect((await login(serving.url, "fay", "user1password")).status).toBe(200);
  });

  // What goes out by the one format comes in by it elsewhere, with every password; the pepper is the same there.
  test.each(["primer", "csv"])("out and in again (%s)", async (format) => {
    const path = scratch.path("out");
    const out = await runPrimer(["users", "export", path, "--format", format, "--dir", serving.home, "--json"]);
    const { users } = jsonOf(out);
    expect({ exitCode: out.exitCode, mode: modeOf(path), users: users > 3 }).toEqual({
      exitCode: 0,
      mode: 0o600,
      users: true,
    });
    expect(out.stderr).toContain("pepper");
    const there = await scratch.home();
    const ran = await importing(there, path, "--format", format);
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({
      exitCode: 0,
      json: { imported: users - 1, existing: 1 },
    });
    const back = await runPrimer(["users", "export", "--format", format, "--dir", there]);
    const isAdmin = (line: string) => line.includes("admin");
    const linesOf = (text: string) =>
      text
        .split("\n")
        .filter((line) => !isAdmin(line))
        .sort();
    expect(linesOf(back.stdout)).toEqual(linesOf(readFileSync(path, "utf8")));
  });

  test("an export to standard output has nothing but users in it", async () => {
    const { stdout, exitCode } = await runPrimer(["users", "export", "--dir", serving.home]);
    const users = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(exitCode).toBe(0);
    expect(users.map(({ username }) => username)).toContain(ADMIN.username);
    expect((await runPrimer(["users", "export", "--json", "--dir", serving.home])).exitCode).toBe(2);
  });
});

/** A realm of so many users in one list. */
async function realmOf(users: number): Promise<string> {
  const path = scratch.path("realm");
  const file = createWriteStream(path);
  file.write('{"realm":"big","users":[');
  for (let at = 0; at < users; at++) {
    const credentials = [
      {
        type: "password",
        secretData: JSON.stringify({ value: HASH }),
        credentialData: JSON.stringify({ algorithm: "bcrypt" }),
      },
    ];
    const user = {
      id: `kc-${at}`,
      createdTimestamp: 1_577_836_800_000 + at,
      username: `user-${at}`,
      email: `user-${at}@big.example`,
      emailVerified: true,
      enabled: true,
      credentials,
      realmRoles: ["default-roles-big"],
    };
    if (!file.write(`${at > 0 ? "," : ""}${JSON.stringify(user)}`)) await once(file, "drain");
  }
  file.end("]}");
  await once(file, "finish");
  return path;
}

function spawnImport(path: string, home: string, environment: Record<string, string> = {}) {
  return Bun.spawn([...PRIMER, "users", "import", path, "--format", "keycloak", "--dir", home, "--json"], {
    env: plainEnvironment(environment),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
}

/** What a process took of memory at most so far, in bytes; the last answer stays once it is gone. */
function watchMemory(pid: number) {
  let peak = 0;
  const look = () => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      peak = Math.max(peak, Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024);
    } catch {
      // It has ended.
    }
  };
  const timer = setInterval(look, 50);
  return () => {
    clearInterval(timer);
    return peak;
  };
}

/** Runs an import to its end, and tells what its process took of memory at most. */
async function measured(path: string, home: string, environment: Record<string, string> = {}) {
  const child = spawnImport(path, home, environment);
  const peakOf = watchMemory(child.pid);
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const exitCode = await child.exited;
  const peak = peakOf();
  expect(peak).toBeGreaterThan(0);
  return { exitCode, json: jsonOf({ stdout }), stderr, peak };
}

const MB = 1024 * 1024;
const MOST_MEMORY = 400 * MB;

describe("many users", () => {
  test("Ctrl-C also ends what waits for standard input", async () => {
    const home = await scratch.home();
    const child = Bun.spawn([...PRIMER, "users", "import", "-", "--format", "csv", "--dir", home], {
      env: plainEnvironment(),
      cwd: scratch.folder,
      stdin: "pipe",
      stderr: "pipe",
    });
    const reader = child.stderr.getReader();
    let said = "";
    const noted = reader.read().then(({ value }) => {
      said = new TextDecoder().decode(value);
    });
    child.stdin.write("email\n");
    // It says how far it is after a batch; from then on nothing comes any more.
    while (said === "") {
      child.stdin.write("x@example.test\n".repeat(500));
      child.stdin.flush();
      await Promise.race([noted, Bun.sleep(100)]);
    }
    child.kill("SIGINT");
    expect(await child.exited).toBe(1);
    expect(said).toContain("read");
  });

  // Interrupted or killed at any moment, an import leaves whole users, and the same command brings the others in; its memory
  // does not grow with their number. It runs beside the server, so that the memory is its own.
  test("8,000: interrupted, killed with kill -9, then run to the end within bounded memory", async () => {
    const serving = await serve(await scratch.home());
    try {
      const path = await realmOf(8_000);
      const underWay = async () => {
        const child = spawnImport(path, serving.home);
        await child.stderr.getReader().read(); // the first word on how far it is
        return child;
      };
      const interrupted = await underWay();
      interrupted.kill("SIGINT");
      const answer = JSON.parse(await new Response(interrupted.stdout).text());
      expect({ exitCode: await interrupted.exited, answer }).toMatchObject({
        exitCode: 1,
        answer: { error: { exit_code: 1, hint: expect.stringContaining("goes on") } },
      });
      const killed = await underWay();
      killed.kill("SIGKILL");
      await killed.exited;
      const { exitCode, json, peak } = await measured(path, serving.home);
      expect({ exitCode, json }).toMatchObject({ exitCode: 0, json: { read: 8_000, rejected: 0 } });
      expect(json.imported + json.existing).toBe(8_000);
      expect(Math.min(json.imported, json.existing)).toBeGreaterThan(0);
      process.stdout.write(`8,000 users: ${json.seconds} s for the rest, at most ${Math.round(peak / MB)} MB\n`);
      expect(peak).toBeLessThan(MOST_MEMORY);
      const exported = await runPrimer(["users", "export", "--dir", serving.home]);
      const lines = exported.stdout.trim().split("\n");
      expect(lines).toHaveLength(8_001);
      for (const line of lines) expect(JSON.parse(line).password_hash).toMatch(/^\$(2b|argon2id)\$/);
    } finally {
      await serving.stop();
    }
  });

  test.if(FULL)(
    "1,000,000 on PostgreSQL",
    async () => {
      const database = await createPostgresDatabase();
      const home = scratch.path("big");
      const environment = { DATABASE_URL: database.url };
      try {
        const init = await runPrimer(["init", "--yes", "--algorithm", "ES256", "--dir", home], { environment });
        expect(init.exitCode).toBe(0);
        const path = await realmOf(1_000_000);
        const { json, peak } = await measured(path, home, environment);
        expect(json).toMatchObject({ imported: 1_000_000, rejected: 0 });
        process.stdout.write(`1,000,000 users: ${json.seconds} s, at most ${Math.round(peak / MB)} MB\n`);
        const again = await measured(path, home, environment);
        expect(again.json).toMatchObject({ imported: 0, existing: 1_000_000 });
        process.stdout.write(
          `again, all of them there: ${again.json.seconds} s, at most ${Math.round(again.peak / MB)} MB\n`,
        );
        expect(Math.max(peak, again.peak)).toBeLessThan(MOST_MEMORY);
      } finally {
        await database.drop();
      }
    },
    3_600_000,
  );
});
