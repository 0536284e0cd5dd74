import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runPrimer } from "../support/server.ts";
import { jsonOf, openScratch, type Scratch } from "./support/home.ts";
import { type Serving, serve } from "./support/serve.ts";

const PASSWORD = "correct horse battery staple";
const FILE = `roles:
  lead:
    includes: [support]
  support:
    description: Looks after users
    permissions: [users:read, "sessions:*"]
`;

let scratch: Scratch;
let serving: Serving;
let folder: string;
beforeAll(async () => {
  scratch = openScratch();
  serving = await serve(await scratch.home());
  folder = scratch.path("elsewhere");
  mkdirSync(folder);
});
afterAll(async () => {
  await serving.stop();
  scratch.remove();
});

const roles = (...args: string[]) => runPrimer(["roles", ...args, "--json", "--dir", serving.home], { cwd: folder });
const written = (text: string, name = "roles.yaml") => writeFileSync(join(folder, name), text);

describe("roles, through the process that serves", () => {
  // Roles as code: what would change can be seen before, and applying twice changes nothing more.
  test("apply: told, done, and done once; each path from where the command stands", async () => {
    written(FILE);
    const told = await roles("apply", "roles.yaml", "--dry-run");
    expect(told.exitCode).toBe(0);
    const created = { change: "create", removed: [] };
    const changes = [
      { role: "support", ...created, added: ["users:read", "sessions:*"] },
      { role: "lead", ...created, added: ["includes support"] },
    ];
    expect(jsonOf(told)).toEqual({ applied: false, changes });
    expect((await roles("show", "support")).exitCode).toBe(1);

    expect(jsonOf(await roles("apply", "roles.yaml"))).toEqual({ applied: true, changes });
    const again = jsonOf(await roles("apply", "roles.yaml"));
    expect(again.changes.map(({ change }: { change: string }) => change)).toEqual(["none", "none"]);
    expect(jsonOf(await roles("show", "lead"))).toMatchObject({
      includes: ["support"],
      effective: ["sessions:*", "users:read"],
    });
  });

  test("apply: what a role loses is told; roles that are not named stay", async () => {
    written("roles:\n  support:\n    permissions: [users:read]\n", "less.yaml");
    expect(jsonOf(await roles("apply", "less.yaml")).changes).toEqual([
      { role: "support", change: "update", added: [], removed: ["sessions:*"] },
    ]);
    const names = jsonOf(await roles("list")).data.map(({ name }: { name: string }) => name);
    expect(names.sort()).toEqual(["admin", "lead", "support", "user"]);
  });

  // A file is applied whole or not at all.
  test.each([
    ["roles:\n  new-one: {}\n  other:\n    permissions: [nonsense]\n", 2],
    ["roles:\n  new-one: {}\n  other:\n    includes: [nowhere]\n", 2],
    ["roles:\n  new-one: {}\n  admin:\n    permissions: []\n", 1],
    ["roles:\n  new-one:\n    includes: [other]\n  other:\n    includes: [new-one]\n", 2],
    ["roles:\n  new-one:\n    permission: [a:b]\n", 2],
    ["roles: [new-one]\n", 2],
    ["rules:\n  new-one: {}\n", 2],
    ["roles:\n  new-one: {permissions: [1]}\n", 2],
    ["roles: {", 2],
  ])("%j is refused whole", async (text, exitCode) => {
    written(text, "bad.yaml");
    const ran = await roles("apply", "bad.yaml");
    expect([ran.exitCode, jsonOf(ran).error.exit_code]).toEqual([exitCode, exitCode]);
    expect((await roles("show", "new-one")).exitCode).toBe(1);
  });

  test("a file that is not there", async () => {
    expect((await roles("apply", "nowhere.yaml")).exitCode).toBe(2);
  });
});

// Somebody else knows the password: whoever is in is out at once.
test("users compromise", async () => {
  const run = (...args: string[]) =>
    runPrimer(["users", ...args, "--json", "--dir", serving.home], { input: PASSWORD });
  expect((await run("create", "ada", "--email", "ada@example.org", "--password-stdin")).exitCode).toBe(0);
  const logIn = () =>
    fetch(`${serving.url}/api/v1/auth/login`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ username: "ada", password: PASSWORD }),
    });
  const { access_token } = (await (await logIn()).json()) as { access_token: string };
  expect((await run("compromise", "ada")).exitCode).toBe(0);
  const headers = { authorization: `Bearer ${access_token}` };
  expect((await fetch(`${serving.url}/api/v1/auth/verify`, { headers })).status).toBe(401);
});
