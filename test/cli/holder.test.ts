import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { appendFileSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runPrimer } from "../support/server.ts";
import { ADMIN, jsonOf, openScratch } from "./support/home.ts";
import { idleConnection, login, type Serving, serve, socketOf, until } from "./support/serve.ts";

const scratch = openScratch();
afterAll(() => scratch.remove());

const exitCodeOf = async (...args: string[]) => (await runPrimer(args)).exitCode;

describe("while a process serves", () => {
  let serving: Serving;
  beforeAll(async () => {
    serving = await serve(await scratch.home());
  });
  afterAll(() => serving.stop());
  const primer = (...args: string[]) => runPrimer([...args, "--dir", serving.home]);

  // Nobody but the owner of the home can have commands run.
  test("the socket is its owner's alone", () => {
    expect(statSync(socketOf(serving.home)).mode & 0o777).toBe(0o600);
  });

  // Two processes in one embedded database lose rows: the second one never opens it.
  test("a second serve exits 3 and names the pid of the first", async () => {
    const ran = await primer("serve", "--json");
    expect(ran.exitCode).toBe(3);
    expect(jsonOf(ran).error.message).toContain(String(serving.pid));
  });

  test.each([
    [
      ["doctor", "--json"],
      { ok: true, findings: expect.arrayContaining([expect.objectContaining({ check: "keys" })]) },
    ],
    [["migrate", "--status", "--json"], { pending: 0 }],
    [["migrate", "--json"], { applied: [] }],
    [["users", "list", "--json"], { data: [{ username: ADMIN.username }] }],
    [["users", "show", "admin", "--json"], { username: ADMIN.username }],
    [["config", "check", "--json"], { ok: true }],
    [["config", "show", "--json"], { environment: { value: "development" } }],
    [["init", "--yes", "--json"], { changed: false }],
  ])("%j works", async (args, json) => {
    const ran = await primer(...args);
    expect(ran).toMatchObject({ exitCode: 0, stderr: "" });
    expect(jsonOf(ran)).toMatchObject(json);
  });

  // Standard input reaches the command wherever it runs.
  test("a password on standard input is the one that is set", async () => {
    const password = "another horse, another staple";
    const args = ["users", "set-password", "admin", "--password-stdin", "--dir", serving.home];
    expect((await runPrimer(args, { input: `${password}\n` })).exitCode).toBe(0);
    expect((await login(serving.url, "admin", password)).status).toBe(200);
    expect((await login(serving.url, "admin", ADMIN.password)).status).toBe(401);
    expect((await runPrimer(args, { input: ADMIN.password })).exitCode).toBe(0);
  });

  test("several commands at once each get their own answer", async () => {
    const names = ["admin", "nobody", "admin", "nobody"];
    const ran = await Promise.all(names.map((name) => primer("users", "show", name, "--json")));
    expect(ran.map(({ exitCode }) => exitCode)).toEqual([0, 1, 0, 1]);
    expect(ran.map((each) => jsonOf(each).username)).toEqual(["admin", undefined, "admin", undefined]);
  });

  // What comes through the socket is not trusted to be a command of ours.
  test.each([
    ["no JSON", "{"],
    ["nothing in it", "{}"],
    ["no such command", JSON.stringify({ version: "0.1.0", command: "rm", arguments: [], options: {}, input: "" })],
    [
      "a command that never runs for others",
      JSON.stringify({ version: "0.1.0", command: "serve", arguments: [], options: {} }),
    ],
  ])("a request with %s harms nothing", async (_name, body) => {
    const answer = await fetch("http://primer/", { unix: socketOf(serving.home), method: "POST", body }).catch(
      () => undefined,
    );
    await answer?.text().catch(() => "");
    expect(await exitCodeOf("users", "list", "--dir", serving.home)).toBe(0);
    expect((await fetch(`${serving.url}/readyz`)).status).toBe(200);
  });
});

describe("after the process that served", () => {
  let serving: Serving | undefined;
  afterEach(async () => {
    serving?.signal("SIGKILL");
    await serving?.exited;
  });

  // The lock dies with its holder, however it dies; what it left lying around stops nobody.
  test("was killed, several commands at once and another serve work", async () => {
    const home = await scratch.home();
    serving = await serve(home);
    serving.signal("SIGKILL");
    await serving.exited;
    expect(existsSync(socketOf(home))).toBe(true);
    const lists = await Promise.all([1, 2, 3].map(() => exitCodeOf("users", "list", "--dir", home)));
    expect(lists).toEqual([0, 0, 0]);
    serving = await serve(home);
    expect((await login(serving.url, ADMIN.username, ADMIN.password)).status).toBe(200);
    expect(await serving.stop()).toBe(0);
  });

  // A deploy or a restart loses nobody's login: requests under way are answered, then it ends with 0 and leaves no socket.
  test("is told to stop, a login under way is answered and it exits 0, idle connections or not", async () => {
    const home = await scratch.home();
    serving = await serve(home, {
      environment: {
        PRIMER_PASSWORD__MEMORY_KIB: "262144",
        PRIMER_PASSWORD__ITERATIONS: "4",
      },
    });
    const idle = await idleConnection(serving.url);
    const answer = login(serving.url, ADMIN.username, "a wrong password that is long");
    await Bun.sleep(50); // the request is with the server by now, and its hash takes far longer
    const began = performance.now();
    expect(await serving.stop()).toBe(0);
    expect((await answer).status).toBe(401);
    expect(performance.now() - began).toBeLessThan(10_000);
    idle.close();
    expect(existsSync(socketOf(home))).toBe(false);
    expect(serving.log().map((line) => line.event)).toEqual(
      expect.arrayContaining(["process.stopping", "process.stopped"]),
    );
  });

  test("is told to stop at the terminal, it exits 0 and the home can be used at once", async () => {
    const home = await scratch.home();
    serving = await serve(home);
    serving.signal("SIGINT");
    expect(await serving.exited).toBe(0);
    expect(await exitCodeOf("users", "list", "--dir", home)).toBe(0);
  });
});

describe("a home with a path longer than a socket address", () => {
  let serving: Serving;
  beforeAll(async () => {
    serving = await serve(await scratch.home(`${"deep/".repeat(20)}${"x".repeat(120)}`));
  });
  afterAll(() => serving.stop());

  test("serves, and runs commands for others, from wherever they are started", async () => {
    expect(serving.home.length).toBeGreaterThan(200);
    expect(statSync(socketOf(serving.home)).mode & 0o777).toBe(0o600);
    for (const cwd of ["/", serving.home, scratch.folder]) {
      const ran = await runPrimer(["users", "list", "--json", "--dir", serving.home], { cwd });
      expect(ran).toMatchObject({ exitCode: 0, stderr: "" });
      expect(jsonOf(ran).data).toHaveLength(1);
    }
  });
});

describe("SIGHUP", () => {
  let serving: Serving;
  beforeAll(async () => {
    serving = await serve(await scratch.home());
  });
  afterAll(() => serving.stop());
  const settingsFile = () => join(serving.home, "primer.toml");
  const docs = async () => (await fetch(`${serving.url}/docs/json`)).status;

  /** Puts a line into a table of primer.toml, in place of what stood there for it. */
  function change(name: string, value: string): void {
    const text = readFileSync(settingsFile(), "utf8");
    const pattern = new RegExp(`^(# )?${name} = .*$`, "m");
    expect(text).toMatch(pattern);
    writeFileSync(settingsFile(), text.replace(pattern, `${name} = ${value}`));
  }

  test("settings are read again, and count from then on", async () => {
    expect(await docs()).toBe(200);
    change("enabled", "false");
    serving.signal("SIGHUP");
    const line = await serving.untilLogged("settings.reloaded");
    expect(line.changed).toEqual(["docs.enabled"]);
    expect(await docs()).toBe(404);
  });

  // A mistake in the file never takes a running service down, and never takes effect in part.
  test("a faulty file is refused with its faults in the log, and the old settings stay", async () => {
    const good = readFileSync(settingsFile(), "utf8");
    change("enabled", "true");
    appendFileSync(settingsFile(), "[server]\nno_such = 1\n");
    serving.signal("SIGHUP");
    const line = await serving.untilLogged("settings.refused");
    expect(line.level).toBe("error");
    expect(await docs()).toBe(404);
    writeFileSync(settingsFile(), good);
    change("enabled", "true");
    serving.signal("SIGHUP");
    await serving.untilLogged("settings.reloaded", 1);
    expect(await docs()).toBe(200);
  });

  // Whether it was read is seen at /docs, which changes with it; what was logged at each level, by the path asked for.
  test("the level of the log follows", async () => {
    // A line is written some time after its answer; when twenty have been answered, the first one's was.
    const ask = async (level: string) => {
      for (let number = 0; number < 20; number++) await fetch(`${serving.url}/asked-at-level/${level}/${number}`);
    };
    const asked = () => serving.log().map((line) => line.path);
    for (const [level, enabled, status] of [
      ["error", "false", 404],
      ["info", "true", 200],
    ] as const) {
      change("level", `"${level}"`);
      change("enabled", enabled);
      serving.signal("SIGHUP");
      await until(`/docs to answer ${status}`, async () => (await docs()) === status);
      await ask(level);
    }
    await until("the second request to be logged", () => asked().includes("/asked-at-level/info/0"));
    expect(asked()).not.toContain("/asked-at-level/error/0");
  });
});
