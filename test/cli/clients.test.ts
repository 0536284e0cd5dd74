import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { runPrimer } from "../support/server.ts";
import { jsonOf, openScratch, type Scratch } from "./support/home.ts";
import { type Serving, serve } from "./support/serve.ts";

let scratch: Scratch;
beforeAll(() => {
  scratch = openScratch();
});
afterAll(() => scratch.remove());

interface Client {
  readonly id: string;
  readonly client_secret: string;
}

const refused = (exit_code: number) => ({ error: { exit_code, message: expect.any(String) } });

describe("clients, through the process that serves", () => {
  let serving: Serving;
  beforeAll(async () => {
    serving = await serve(await scratch.home());
  });
  afterAll(() => serving.stop());

  const clients = (...args: string[]) => runPrimer(["clients", ...args, "--json", "--dir", serving.home]);
  const introspect = async ({ id, client_secret }: Client) => {
    const body = new URLSearchParams({ token: "nothing of ours", client_id: id, client_secret });
    return (await fetch(`${serving.url}/oauth2/introspect`, { method: "POST", body })).status;
  };

  // What the command line does counts at once in the process that serves.
  test("a client's life", async () => {
    const created = await clients("create", "Orders service");
    expect(created).toMatchObject({ exitCode: 0, stderr: "" });
    const client: Client = jsonOf(created);
    expect(client.client_secret).toMatch(/^prs_[\w-]{43}$/);
    expect(await introspect(client)).toBe(200);

    const second: Client = jsonOf(await clients("rotate-secret", "Orders service", "--overlap", "1h"));
    expect(second).toMatchObject({
      id: client.id,
      secrets: [{ expires_at: null }, { expires_at: expect.any(String) }],
    });
    expect([await introspect(client), await introspect(second)]).toEqual([200, 200]);

    const third: Client = jsonOf(await clients("rotate-secret", client.id, "--overlap", "0s"));
    expect([await introspect(client), await introspect(second), await introspect(third)]).toEqual([401, 401, 200]);

    const listed = await clients("list");
    expect(jsonOf(listed)).toMatchObject({ data: [{ id: client.id, name: "Orders service" }], next_cursor: null });
    expect(listed.stdout + listed.stderr).not.toContain("prs_");

    expect(jsonOf(await clients("delete", "Orders service"))).toMatchObject({ id: client.id });
    expect(await introspect(third)).toBe(401);
    expect(jsonOf(await clients("list"))).toEqual({ data: [], next_cursor: null });
  });

  test.each([
    [["create", "a\nb"], 2],
    [["create", "<b>"], 2],
    [["create", "019b76da-a800-7000-8000-000000000000"], 2],
    [["delete", "nobody"], 1],
    [["delete", "019b76da-a800-7000-8000-000000000000"], 1],
    [["rotate-secret", "' OR 1=1 --"], 1],
    [["list", "--limit", "201"], 2],
    [["list", "--after", "nobody"], 1],
  ])("%j: exit %d", async (args, exitCode) => {
    const ran = await clients(...args);
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({ exitCode, json: refused(exitCode) });
  });

  test("a taken name is exit 1, a wrong overlap exit 2", async () => {
    await clients("create", "taken");
    const ran = await clients("create", "taken");
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toMatchObject({ exitCode: 1, json: refused(1) });
    for (const overlap of ["1", "soon", "31d"])
      expect((await clients("rotate-secret", "taken", "--overlap", overlap)).exitCode).toBe(2);
  });
});

describe("clients, in a process of their own", () => {
  test("text for people shows the secret once", async () => {
    const home = await scratch.home();
    const run = (...args: string[]) => runPrimer(["clients", ...args, "--dir", home]);
    const created = await run("create", "orders");
    const [secret = ""] = /prs_[\w-]{43}/.exec(created.stdout) ?? [];
    expect(secret).not.toBe("");
    const { stdout } = await run("list");
    expect(stdout.split("\n")[0]).toMatch(/^NAME +CREATED +SECRETS/);
    expect(stdout).not.toContain(secret);
    expect(jsonOf(await run("rotate-secret", "orders", "--json")).secrets).toHaveLength(2);
  });
});
