import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openHttpApp, openListeningApp } from "../support/http-app.ts";
import { brokenDatabase, replaceDeps } from "../support/observe.ts";
import { storedHash } from "../support/scenario.ts";

const LOGIN = "/api/v1/auth/login";
const WRONG = "canary-of-a-wrong-password";

let app: HttpApp;
let ada: { id: string };
beforeAll(async () => {
  app = await openHttpApp({ PRIMER_LOG__LEVEL: "debug" });
  ada = await app.createUser({ username: "ada", email: "canary.mail@example.test" });
});
afterAll(() => app.close());

type Line = Record<string, unknown>;
const parsed = (): Line[] => app.logLines.map((line) => JSON.parse(line));

/** The lines of one request. The line that ends it is written after the answer, so it is waited for. */
async function linesOf(requestId: string): Promise<Line[]> {
  const deadline = Date.now() + 5000;
  for (;;) {
    const lines = parsed().filter((line) => line.request_id === requestId);
    if (lines.some((line) => line.event === "request.answered")) return lines;
    if (Date.now() > deadline) throw new Error(`No line says that ${requestId} was answered`);
    await Bun.sleep(1);
  }
}

describe("request ids", () => {
  // A request can be followed through answer, logs and records by its id, which only a well-formed one of the client sets.
  const OFFERED: Readonly<Record<string, [string, boolean]>> = {
    "a UUID": ["019b76da-a800-7000-8000-000000000000", true],
    "a ULID": ["01J0000000000000000000000A", true],
    "eight characters": ["abcd_1.2", true],
    "128 characters": ["a".repeat(128), true],
    "too short": ["abc", false],
    "too long": ["a".repeat(129), false],
    "with a space": ["abcd efgh", false],
    "with a quote": ['abcdefgh"', false],
    "an object": ['{"a":"bcdefg"}', false],
    "a script": ["<script>alert(1)</script>", false],
    "with ANSI": ["abcdefgh\u001b[31m", false],
    "not ASCII": ["abcdefgé", false],
    "two in one": ["abcdefgh, ijklmnop", false],
  };
  for (const [name, [offered, taken]] of Object.entries(OFFERED)) {
    test(`${name} is ${taken ? "taken" : "made anew"}`, async () => {
      for (const [path, status] of [
        ["/livez", 200],
        ["/nowhere", 404],
      ] as const) {
        const answer = await app.request("GET", path, { headers: { "x-request-id": offered } });
        const id = answer.headers.get("x-request-id") ?? "";
        expect(answer.status).toBe(status);
        if (taken) expect(id).toBe(offered);
        else expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
        expect((await linesOf(id)).length).toBeGreaterThan(0);
      }
    });
  }

  test("two requests never have the same", async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, () => app.request("GET", "/livez")));
    expect(new Set(answers.map((answer) => answer.headers.get("x-request-id"))).size).toBe(50);
  });
});

describe("log lines", () => {
  // Every line is one JSON object with what a search needs.
  test("a request's line", async () => {
    const answer = await app.request("GET", "/api/v1/health?x=1", { headers: { "user-agent": "Agent/7" } });
    const lines = await linesOf(answer.headers.get("x-request-id") ?? "");
    expect(lines).toEqual([
      {
        time: app.clock.now().toISOString(),
        level: "info",
        msg: expect.any(String),
        event: "request.answered",
        request_id: answer.headers.get("x-request-id"),
        method: "GET",
        path: "/api/v1/health",
        status: 200,
        duration_ms: 0,
        ip: null,
        user_agent: "Agent/7",
      },
    ]);
  });

  test("errors are logged with their status", async () => {
    for (const [method, path, status] of [
      ["GET", "/nowhere", 404],
      ["DELETE", "/livez", 405],
      ["POST", LOGIN, 422],
      ["GET", "/api/v1/auth/verify", 401],
      ["GET", "/livez?a=1&a=2", 400],
    ] as const) {
      const answer = await app.request(method, path);
      const lines = await linesOf(answer.headers.get("x-request-id") ?? "");
      expect(lines.map((line) => line.status)).toEqual([status]);
    }
  });

  test("a refused login is logged once, with its reason", async () => {
    const answer = await app.request("POST", LOGIN, { body: { username: "ada", password: WRONG } });
    const lines = await linesOf(answer.headers.get("x-request-id") ?? "");
    expect(lines.filter((line) => line.event === "login.refused")).toEqual([
      expect.objectContaining({ level: "info", reason: "wrong_password", user_id: ada.id }),
    ]);
  });

  // What was tried with a wrong password is told apart, so that an alert on one is not set off by another.
  for (const [method, path, body, event] of [
    ["POST", "/api/v1/auth/step-up", { password: WRONG }, "step_up.refused"],
    [
      "PATCH",
      "/api/v1/users/me/password",
      { current_password: WRONG, new_password: `${WRONG} 2` },
      "password_change.refused",
    ],
    ["PUT", "/api/v1/users/me", { current_password: WRONG, email: "new@example.test" }, "email_change.refused"],
  ] as const) {
    test(`a wrong password at ${method} ${path} is ${event}`, async () => {
      const { access_token: token } = await app.login("ada");
      const answer = await app.request(method, path, { token, body });
      const lines = await linesOf(answer.headers.get("x-request-id") ?? "");
      const refusals = lines.filter((line) => String(line.event).endsWith(".refused"));
      expect(refusals).toEqual([expect.objectContaining({ event, reason: "wrong_password", user_id: ada.id })]);
    });
  }

  const AGENTS: Readonly<Record<string, string>> = {
    "ANSI colours": "\u001b[31mred\u001b[0m\u001b[2J",
    "a JSON line": '","level":"error","msg":"forged"}',
    "C1 control characters": "\u009b31mred",
    "5000 characters": "a".repeat(5000),
    "an e-mail address": "canary.mail@example.test",
  };

  // Whatever a client says of itself stays inside one field of one line.
  for (const [name, agent] of Object.entries(AGENTS)) {
    test(`a user agent with ${name}`, async () => {
      const answer = await app.request("GET", "/livez", { headers: { "user-agent": agent } });
      const lines = await linesOf(answer.headers.get("x-request-id") ?? "");
      expect(lines).toHaveLength(1);
      expect(lines[0]).toMatchObject({ level: "info", msg: "A request was answered" });
      expect(String(lines[0]?.user_agent).length).toBeLessThanOrEqual(512);
      for (const line of app.logLines) {
        expect(line.indexOf("\n")).toBe(line.length - 1);
        expect(line).not.toContain("\u001b");
      }
    });
  }

  // A header that is cut in two by CR and LF never becomes a second line, whatever the server makes of it.
  test("CRLF in a header, over TCP", async () => {
    const listening = await openListeningApp();
    try {
      const { port } = new URL(listening.url);
      const socket = await Bun.connect({ hostname: "127.0.0.1", port: Number(port), socket: { data() {} } });
      socket.write(
        'GET /livez HTTP/1.1\r\nHost: x\r\nUser-Agent: one\r\n\r\n{"level":"error","msg":"forged"}\r\nX: y\r\n\r\n',
      );
      socket.flush();
      const deadline = Date.now() + 5000;
      while (!listening.logLines.some((line) => line.includes('"user_agent":"one"'))) {
        if (Date.now() > deadline) throw new Error("The request was not logged");
        await Bun.sleep(1);
      }
      socket.end();
      for (const line of listening.logLines) {
        expect(line.indexOf("\n")).toBe(line.length - 1);
        expect(JSON.parse(line).msg).not.toBe("forged");
      }
    } finally {
      await listening.close();
    }
  });
});

// Whoever goes in the middle of a request is no fault of ours: nobody is woken for it.
test.each([
  ["whose length was told", "Content-Length: 100\r\n\r\n{"],
  ["in chunks", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"],
])("a body %s that breaks off is a bad request", async (_name, begun) => {
  const listening = await openListeningApp();
  try {
    const { port } = new URL(listening.url);
    const socket = await Bun.connect({ hostname: "127.0.0.1", port: Number(port), socket: { data() {} } });
    socket.write(`POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${begun}`);
    socket.flush();
    await Bun.sleep(50); // the server has begun to read
    socket.terminate();
    const line = async () => {
      for (let waited = 0; waited < 5000; waited++) {
        const found = listening.logLines.find((one) => /"method":"POST".*"status"/.test(one));
        if (found) return JSON.parse(found);
        await Bun.sleep(1);
      }
    };
    expect(await line()).toMatchObject({ path: "/api/v1/auth/login", status: 400 });
    expect(listening.logLines.filter((one) => one.includes('"level":"error"'))).toEqual([]);
  } finally {
    await listening.close();
  }
});

describe("secrets", () => {
  /** Everything that a client may send or get, and that no log may ever hold. */
  async function exercise(): Promise<string[]> {
    const tokens = await app.login("ada");
    const refreshed = await app.request("POST", "/api/v1/auth/refresh", {
      body: { refresh_token: tokens.refresh_token },
    });
    app.clock.advance(11_000);
    const canaries = [PASSWORD, WRONG, tokens.access_token, tokens.refresh_token, refreshed.body.refresh_token];
    const bearer = { token: tokens.access_token };
    const calls: Parameters<HttpApp["request"]>[] = [
      ["POST", LOGIN, { body: { username: "ada", password: WRONG } }],
      ["POST", LOGIN, { body: { username: "canary.mail@example.test", password: WRONG } }],
      ["POST", LOGIN, { body: { username: "ada", password: PASSWORD, extra: WRONG } }],
      ["POST", LOGIN, { body: `{"username":"ada","password":"${PASSWORD}"` }],
      ["POST", LOGIN, { body: { username: "ada", password: `${WRONG}${"x".repeat(1100)}` } }],
      ["GET", "/api/v1/auth/verify", bearer],
      ["GET", "/api/v1/auth/verify", { token: `${tokens.access_token}=` }],
      ["GET", `/api/v1/auth/verify?access_token=${tokens.access_token}`],
      ["GET", `/api/v1/${tokens.access_token}`],
      ["GET", "/livez", { headers: { "user-agent": tokens.refresh_token, cookie: `a=${tokens.refresh_token}` } }],
      ["POST", "/api/v1/auth/refresh", { body: { refresh_token: `${tokens.refresh_token}x` } }],
      ["POST", "/api/v1/auth/refresh", { body: { refresh_token: tokens.refresh_token } }],
      ["POST", "/api/v1/auth/logout", { ...bearer, body: { refresh_token: refreshed.body.refresh_token } }],
    ];
    for (const [method, path, options] of calls) await app.request(method, path, options);
    return canaries;
  }

  async function expectClean(canaries: readonly string[]): Promise<void> {
    const answer = await app.request("GET", "/livez");
    await linesOf(answer.headers.get("x-request-id") ?? "");
    const logged = app.logLines.join("");
    expect(logged).toContain("login.refused");
    for (const canary of canaries) expect(logged).not.toContain(canary);
    // Not in parts either: what stands between the dots of a token is as secret as the whole.
    for (const part of canaries.flatMap((canary) => canary.split(".")).filter((part) => part.length > 60))
      expect(logged).not.toContain(part);
  }

  // What proves who somebody is never reaches a log, at the most talkative level, whether requests go well or not.
  test("passwords, tokens and hashes", async () => {
    const canaries = await exercise();
    await expectClean([...canaries, (await storedHash(app, ada.id)) ?? ""]);
  });

  // A statement that fails is logged with its values left out.
  test("when the database fails in the middle of it", async () => {
    const hash = (await storedHash(app, ada.id)) ?? "";
    const failed = new Error(
      `Failed query: update credentials set secret = $1\nparams: ${hash},canary.mail@example.test`,
    );
    const restore = replaceDeps(app.deps, { db: brokenDatabase(app.db, failed) });
    const answer = await app
      .request("POST", LOGIN, { body: { username: "canary.mail@example.test", password: PASSWORD } })
      .finally(restore);
    expect(answer.status).toBe(500);
    await expectClean([PASSWORD, hash, hash.split("$").at(-1) ?? hash]);
  });

  // People appear in logs by id; an address, where one gets in, keeps its first letter and its domain.
  test("e-mail addresses are masked", async () => {
    for (const options of [
      { headers: { "user-agent": "written by canary.mail@example.test" } },
      { headers: { "user-agent": "canary.mail+tag@example.test" } },
    ])
      await app.request("GET", "/livez", options);
    await expectClean(["canary.mail@", "canary.mail+tag@"]);
    expect(app.logLines.join("")).toContain("c***@example.test");
  });
});
