import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { runPrimer } from "../support/server.ts";
import { ADMIN, jsonOf, openScratch, type Scratch, when } from "./support/home.ts";
import { login, type Serving, serve } from "./support/serve.ts";

const PASSWORD = "tangerine dream sequence";
const FULL = when(process.env.TEST_FULL, "users commands, every one of them, in a process of their own (TEST_FULL)");

interface Step {
  readonly args: readonly string[];
  readonly input?: string;
  readonly exitCode: number;
  /** What the JSON document must have in it. */
  readonly json?: object;
  /** Also part of the short form where nothing serves: each such step starts and ends a database. */
  readonly short?: true;
}

const create = (name: string, email: string, ...more: string[]): readonly string[] => [
  "create",
  name,
  "--email",
  email,
  "--password-stdin",
  ...more,
];
const refused = (exit_code: number) => ({ error: { exit_code, message: expect.any(String) } });
const named = (...usernames: string[]) => usernames.map((username) => expect.objectContaining({ username }));

/** A day in the life of users, in order. Each line is one command. */
const STEPS: readonly Step[] = [
  {
    args: create("ada", "Ada@example.org"),
    input: `${PASSWORD}\n`,
    exitCode: 0,
    json: { username: "ada", email: "Ada@example.org", status: "active", roles: ["user"], email_verified: true },
    short: true,
  },
  { args: create("ada", "other@example.org"), input: PASSWORD, exitCode: 1, json: refused(1), short: true },
  { args: create("ADA", "other@example.org"), input: PASSWORD, exitCode: 1, json: refused(1) },
  { args: create("bob", "ada@EXAMPLE.org"), input: PASSWORD, exitCode: 1, json: refused(1) },
  { args: create("bob", "bob@example.org"), input: "too short", exitCode: 2, json: refused(2), short: true },
  { args: create("bob", "bob@example.org"), input: "x".repeat(1025), exitCode: 2, json: refused(2) },
  { args: create("b@b", "bob@example.org"), input: PASSWORD, exitCode: 2, json: refused(2) },
  { args: create("bob", "bob"), input: PASSWORD, exitCode: 2, json: refused(2) },
  { args: create("bob", "bob@example.org", "--role", "king"), input: PASSWORD, exitCode: 2, json: refused(2) },
  {
    args: create("bob", "bob@example.org", "--role", "user", "admin"),
    input: PASSWORD,
    exitCode: 0,
    json: { username: "bob", roles: ["admin", "user"] },
  },
  { args: ["list"], exitCode: 0, json: { data: named("bob", "ada", "admin"), next_cursor: null } },
  { args: ["list", "--limit", "1"], exitCode: 0, json: { data: named("bob"), next_cursor: expect.any(String) } },
  { args: ["list", "--after", "bob"], exitCode: 0, json: { data: named("ada", "admin") } },
  { args: ["list", "--query", "EXAMPLE.org"], exitCode: 0, json: { data: named("bob", "ada") } },
  { args: ["list", "--query", "%"], exitCode: 0, json: { data: [] } },
  { args: ["list", "--limit", "201"], exitCode: 2, json: refused(2) },
  { args: ["show", "ada"], exitCode: 0, json: { username: "ada" } },
  { args: ["show", "ADA@example.ORG"], exitCode: 0, json: { username: "ada" } },
  { args: ["show", "nobody"], exitCode: 1, json: refused(1) },
  { args: ["show", "019b76da-a800-7000-8000-000000000000"], exitCode: 1, json: refused(1) },
  { args: ["show", "' OR 1=1 --"], exitCode: 1, json: refused(1) },
  { args: ["set-roles", "ada", "user", "king"], exitCode: 2, json: refused(2) },
  { args: ["set-roles", "ada", "admin", "user", "admin"], exitCode: 0, json: { roles: ["admin", "user"] } },
  { args: ["set-roles", "ada", "user"], exitCode: 0, json: { roles: ["user"] } },
  { args: ["disable", "bob"], exitCode: 0, json: { username: "bob", status: "disabled" } },
  { args: ["enable", "bob"], exitCode: 0, json: { username: "bob", status: "active" } },
  { args: ["disable", "bob"], exitCode: 0, json: { status: "disabled" } },
  { args: ["disable", "nobody"], exitCode: 1, json: refused(1) },
  // Bob is disabled, so only the first administrator is left: nothing takes that one away.
  { args: ["disable", "admin"], exitCode: 1, json: refused(1), short: true },
  { args: ["set-roles", "admin", "user"], exitCode: 1, json: refused(1) },
  { args: ["show", "admin"], exitCode: 0, json: { status: "active", roles: ["admin"] } },
  { args: ["set-password", "ada", "--password-stdin"], input: "short", exitCode: 2, json: refused(2) },
  {
    args: ["set-password", "ada", "--password-stdin"],
    input: `${PASSWORD} two\n`,
    exitCode: 0,
    json: { username: "ada" },
  },
  { args: ["set-password", "nobody", "--password-stdin"], input: PASSWORD, exitCode: 1, json: refused(1) },
];

const describeStep = ({ args, input }: Step) =>
  `users ${args.join(" ")}${input ? ` < ${input.trim().slice(0, 12)}` : ""}`;

let scratch: Scratch;
beforeAll(() => {
  scratch = openScratch();
});
afterAll(() => scratch.remove());

/** The same commands give the same exit code and the same document, whoever has the database. */
function runSteps(steps: readonly Step[], home: () => string): void {
  test.each(steps.map((step) => [step.exitCode, describeStep(step), step] as const))(
    "exit %d: %s",
    async (exitCode, _name, step) => {
      const input = step.input === undefined ? {} : { input: step.input };
      const ran = await runPrimer(["users", ...step.args, "--json", "--dir", home()], input);
      expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({ exitCode, json: step.json ?? {} });
      // Neither a password nor a hash is ever printed.
      for (const secret of [PASSWORD, ADMIN.password, "$argon2"]) expect(ran.stdout + ran.stderr).not.toContain(secret);
    },
  );
}

describe("users, through the process that serves", () => {
  let serving: Serving;
  beforeAll(async () => {
    serving = await serve(await scratch.home());
  });
  afterAll(() => serving.stop());

  runSteps(STEPS, () => serving.home);

  test("what they did counts for the next login", async () => {
    const logins = await Promise.all([
      login(serving.url, "ada", `${PASSWORD} two`),
      login(serving.url, "ada", PASSWORD),
      login(serving.url, "bob", PASSWORD),
    ]);
    expect(logins.map(({ status, body }) => [status, body.error?.code])).toEqual([
      [200, undefined],
      [401, "AUTH_INVALID_CREDENTIALS"],
      [403, "AUTH_ACCOUNT_DISABLED"],
    ]);
  });

  // Disabling and a new password end every session at once, also in the process that serves.
  test.each([
    ["disable", [], ""],
    ["set-password", ["--password-stdin"], `${PASSWORD} three`],
  ])("%s ends the sessions that are open", async (verb, options, input) => {
    const name = `eve-${verb}`;
    const args = ["users", ...create(name, `${name}@example.org`), "--dir", serving.home];
    expect((await runPrimer(args, { input: PASSWORD })).exitCode).toBe(0);
    const { body } = await login(serving.url, name, PASSWORD);
    const verify = () =>
      fetch(`${serving.url}/api/v1/auth/verify`, { headers: { authorization: `Bearer ${body.access_token}` } });
    expect((await verify()).status).toBe(200);
    expect((await runPrimer(["users", verb, name, ...options, "--dir", serving.home], { input })).exitCode).toBe(0);
    expect((await verify()).status).toBe(401);
  });

  test("text for people is a table without escape codes on a pipe", async () => {
    const { stdout } = await runPrimer(["users", "list", "--dir", serving.home]);
    expect(stdout.split("\n")[0]).toMatch(/^USERNAME +E-MAIL +STATUS +ROLES/);
    expect(stdout).not.toContain("\u001b");
  });
});

describe("users, in a process of their own", () => {
  let home: string;
  beforeAll(async () => {
    home = await scratch.home();
  });

  runSteps(
    STEPS.filter((step) => FULL || step.short),
    () => home,
  );
});
