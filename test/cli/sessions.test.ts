import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { runPrimer } from "../support/server.ts";
import { ADMIN, jsonOf, openScratch, type Scratch } from "./support/home.ts";
import { login, type Serving, serve } from "./support/serve.ts";

const PASSWORD = "tangerine dream sequence";
const MISSING = "019b76da-a800-7000-8000-000000000000";

let scratch: Scratch;
let serving: Serving;
beforeAll(async () => {
  scratch = openScratch();
  serving = await serve(await scratch.home());
  for (const name of ["ada", "bob"]) {
    const args = ["users", "create", name, "--email", `${name}@example.org`, "--password-stdin", "--dir", serving.home];
    expect((await runPrimer(args, { input: PASSWORD })).exitCode).toBe(0);
  }
});
afterAll(async () => {
  await serving.stop();
  scratch.remove();
});

interface Tokens {
  readonly access_token: string;
  readonly refresh_token: string;
  readonly session_id: string;
}

async function loginAs(username: string): Promise<Tokens> {
  const { status, body } = await login(serving.url, username, username === "admin" ? ADMIN.password : PASSWORD);
  expect(status).toBe(200);
  return body;
}

const run = (...args: string[]) => runPrimer(["sessions", ...args, "--json", "--dir", serving.home]);

const verify = async ({ access_token }: Tokens) =>
  (await fetch(`${serving.url}/api/v1/auth/verify`, { headers: { authorization: `Bearer ${access_token}` } })).status;
const refresh = async ({ refresh_token }: Tokens) =>
  (
    await fetch(`${serving.url}/api/v1/auth/refresh`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ refresh_token }),
    })
  ).status;

async function expectEnded(...ended: Tokens[]): Promise<void> {
  for (const tokens of ended) expect([await verify(tokens), await refresh(tokens)]).toEqual([401, 401]);
}

const idsOf = async (user: string): Promise<string[]> =>
  jsonOf(await run("list", user)).data.map((session: { id: string }) => session.id);

describe("sessions, through the process that serves", () => {
  // The operator sees where somebody is logged in, and never a token.
  test("list", async () => {
    const [first, second] = [await loginAs("ada"), await loginAs("ada")];
    await loginAs("bob");
    const ran = await run("list", "ADA@example.org");
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({
      exitCode: 0,
      json: {
        data: [
          { id: second.session_id, ip: "127.0.0.1", current: false },
          { id: first.session_id, ip: "127.0.0.1", current: false },
        ],
        next_cursor: null,
      },
    });
    for (const secret of [first.access_token, first.refresh_token, second.refresh_token])
      expect(ran.stdout + ran.stderr).not.toContain(secret);
    const page = jsonOf(await run("list", "ada", "--limit", "1"));
    expect(page.next_cursor).toBe(second.session_id);
    expect(jsonOf(await run("list", "ada", "--after", page.next_cursor)).data).toHaveLength(1);
    const { stdout } = await runPrimer(["sessions", "list", "ada", "--dir", serving.home]);
    expect(stdout).toMatch(/^DEVICE +NAME +ADDRESS +CREATED +LAST SEEN +EXPIRES +ID\n/);
    await run("revoke", "--user", "ada");
  });

  // One session ends and no other; ending it again fails and says so.
  test("revoke SESSION", async () => {
    const [ended, kept] = [await loginAs("ada"), await loginAs("ada")];
    const ran = await run("revoke", ended.session_id);
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toEqual({ exitCode: 0, json: { sessions_ended: 1 } });
    await expectEnded(ended);
    expect(await verify(kept)).toBe(200);
    expect((await run("revoke", ended.session_id)).exitCode).toBe(1);
    expect(await idsOf("ada")).toEqual([kept.session_id]);
  });

  // Every session of a user ends, and nobody else's.
  test("revoke --user USER", async () => {
    const [mine, others] = [await loginAs("ada"), await loginAs("bob")];
    const open = await idsOf("ada");
    const ran = await run("revoke", "--user", "ada");
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toEqual({
      exitCode: 0,
      json: { sessions_ended: open.length },
    });
    await expectEnded(mine);
    expect(await verify(others)).toBe(200);
    expect(jsonOf(await run("revoke", "--user", "ada"))).toEqual({ sessions_ended: 0 });
  });

  // Everybody is logged out, the administrator too, but only where the operator says so twice.
  test("revoke --all --yes", async () => {
    const everybody = [await loginAs("ada"), await loginAs("bob"), await loginAs("admin")];
    expect((await run("revoke", "--all")).exitCode).toBe(2);
    for (const tokens of everybody) expect(await verify(tokens)).toBe(200);
    const ran = await run("revoke", "--all", "--yes");
    expect(ran.exitCode).toBe(0);
    expect(jsonOf(ran).sessions_ended).toBeGreaterThanOrEqual(everybody.length);
    await expectEnded(...everybody);
    expect(jsonOf(await run("revoke", "--all", "--yes"))).toEqual({ sessions_ended: 0 });
    expect((await login(serving.url, "ada", PASSWORD)).status).toBe(200);
  });

  // What is asked for in no way, in two ways or of nobody changes nothing.
  test.each([
    [2, ["revoke"]],
    [2, ["revoke", "--yes"]],
    [2, ["revoke", MISSING, "--user", "ada"]],
    [2, ["revoke", "--user", "ada", "--all", "--yes"]],
    [2, ["revoke", MISSING, "--all", "--yes"]],
    [2, ["list"]],
    [2, ["list", "ada", "--limit", "201"]],
    [2, ["list", "ada", "--after", "x"]],
    [1, ["revoke", MISSING]],
    [1, ["revoke", "x"]],
    [1, ["revoke", "' OR 1=1 --"]],
    [1, ["revoke", "--user", "nobody"]],
    [1, ["list", "nobody"]],
  ])("exit %d: %p", async (exitCode, args) => {
    const tokens = await loginAs("bob");
    const ran = await run(...args);
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({
      exitCode,
      json: { error: { exit_code: exitCode } },
    });
    expect(await verify(tokens)).toBe(200);
  });
});

// The same in a process of its own, once nothing serves any more.
test("list and revoke --all --yes while nothing serves", async () => {
  await loginAs("bob");
  await serving.stop();
  expect((await idsOf("bob")).length).toBeGreaterThan(0);
  const ran = await run("revoke", "--all", "--yes");
  expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toEqual({
    exitCode: 0,
    json: { sessions_ended: expect.any(Number) },
  });
  expect(await idsOf("bob")).toEqual([]);
});
