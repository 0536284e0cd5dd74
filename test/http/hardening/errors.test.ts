import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Statement } from "../../../db/database.ts";
import { PASSWORD } from "../../support/app.ts";
import { EVERY_ANSWER } from "../support/contract.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { brokenDatabase, replaceDeps } from "../support/observe.ts";
import { countRows, play, type Scenario } from "../support/scenario.ts";

const LOGIN = { method: "POST", path: "/api/v1/auth/login" };

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
  await app.createUser({ username: "ada" });
});
afterAll(() => app.close());

const nested = (depth: number) => `{"username":${"[".repeat(depth)}${"]".repeat(depth)}}`;
const bytes = (...values: number[]) => Buffer.from(values).toString("latin1");
const BAD = { status: 400, code: "BAD_REQUEST" } as const;
const MISSING = { status: 404, code: "NOT_FOUND" } as const;
const WRONG_METHOD = { status: 405, code: "METHOD_NOT_ALLOWED" } as const;
const GOOD = JSON.stringify({ username: "ada", password: PASSWORD });

const SCENARIOS: readonly Scenario[] = [
  { name: "no such path", method: "GET", path: "/nowhere", ...MISSING },
  { name: "the root", method: "GET", path: "/", ...MISSING },
  { name: "a slash at the end", path: `${LOGIN.path}/`, body: GOOD, ...MISSING },
  { name: "capitals", path: LOGIN.path.toUpperCase(), body: GOOD, ...MISSING },
  { name: "two slashes", path: LOGIN.path.replace("/auth", "//auth"), body: GOOD, ...MISSING },
  { name: "another version", path: LOGIN.path.replace("v1", "v2"), body: GOOD, ...MISSING },
  { name: "a path that climbs", method: "GET", path: "/docs/%2e%2e/%2e%2e/etc/passwd", ...MISSING },
  { name: "a path with NUL", method: "GET", path: "/%00", ...MISSING },
  { name: "a path that is no UTF-8", method: "GET", path: "/%ff%fe", ...MISSING },
  { name: "a path with a lone percent sign", method: "GET", path: "/%", ...MISSING },
  { name: "a path of 8000 characters", method: "GET", path: `/${"a".repeat(8000)}`, ...MISSING },
  { name: "a set-up route", path: "/api/v1/setup", body: GOOD, ...MISSING },

  { name: "cut off", body: GOOD.slice(0, -1), ...BAD },
  { name: "single quotes", body: "{'username':'ada'}", ...BAD },
  { name: "a comment", body: `/* */${GOOD}`, ...BAD },
  { name: "a comma too many", body: GOOD.replace("}", ",}"), ...BAD },
  { name: "NaN", body: '{"username":NaN}', ...BAD },
  { name: "the same key twice", body: GOOD.replace("{", '{"username":"eve",'), ...BAD },
  { name: "the same key twice, once escaped", body: GOOD.replace("{", '{"\\u0075sername":"eve",'), ...BAD },
  { name: "the same key twice further in", body: '{"username":{"a":1,"a":2}}', ...BAD },
  { name: "__proto__", body: GOOD.replace("{", '{"__proto__":{"polluted":true},'), ...BAD },
  { name: "__proto__ escaped", body: GOOD.replace("{", '{"\\u005f_proto__":{"polluted":true},'), ...BAD },
  { name: "__proto__ further in", body: '{"username":{"__proto__":{"polluted":true}}}', ...BAD },
  { name: "constructor", body: GOOD.replace("{", '{"constructor":{"prototype":{"polluted":true}},'), ...BAD },
  { name: "100 levels", body: nested(100), ...BAD },
  { name: "20,000 levels", body: nested(20_000), ...BAD },
  { name: "20,000 levels never closed", body: "[".repeat(20_000), ...BAD },
  { name: "2000 keys", body: `{${Array.from({ length: 2000 }, (_, i) => `"k${i}":1`).join(",")}}`, ...BAD },
  { name: "a query parameter twice", method: "GET", path: "/livez?a=1&a=2", ...BAD },
  { name: "a query parameter twice, once escaped", method: "GET", path: "/livez?a=1&%61=2", ...BAD },
  { name: "access_token in the URL", method: "GET", path: "/api/v1/health?access_token=secret-in-url", ...BAD },
  { name: "api_key in the URL", method: "GET", path: "/api/v1/health?api_key=secret-in-url", ...BAD },
  { name: "a password in the URL", path: `${LOGIN.path}?password=secret-in-url`, body: GOOD, ...BAD },
  {
    name: "a token in the URL where there is nothing",
    method: "GET",
    path: "/nowhere?access_token=secret-in-url",
    ...BAD,
  },

  { name: "65 KiB", body: `{"username":"${"a".repeat(66_560)}"}`, status: 413, code: "PAYLOAD_TOO_LARGE" },
  {
    name: "65 KiB announced",
    body: GOOD,
    headers: { "content-length": "66560" },
    status: 413,
    code: "PAYLOAD_TOO_LARGE",
  },
  {
    name: "a form",
    body: "username=ada&password=x",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    status: 415,
    code: "UNSUPPORTED_MEDIA_TYPE",
  },
  {
    name: "a multipart form",
    body: '--x\r\ncontent-disposition: form-data; name="username"\r\n\r\nada\r\n--x--',
    headers: { "content-type": "multipart/form-data; boundary=x" },
    status: 415,
    code: "UNSUPPORTED_MEDIA_TYPE",
  },
  {
    name: "a type that is nearly right",
    body: GOOD,
    headers: { "content-type": "application/jsonx" },
    status: 415,
    code: "UNSUPPORTED_MEDIA_TYPE",
  },
];

describe("errors", () => {
  // Whatever is wrong with a request, the answer is the envelope with the right status, and nothing was done.
  for (const scenario of SCENARIOS) {
    test(`${scenario.status} ${scenario.name}`, async () => {
      await play(app, { notInAnswer: ["secret-in-url", PASSWORD, "passwd"], ...scenario }, LOGIN);
      expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
    });
  }

  // A body that is no UTF-8 is refused, not repaired: else two texts could become one.
  for (const [name, broken] of [
    ["a lone continuation byte", bytes(0x80)],
    ["an overlong slash", bytes(0xc0, 0xaf)],
    ["half of a surrogate pair", bytes(0xed, 0xa0, 0x80)],
  ] as const) {
    test(`400 ${name}`, async () => {
      const body = Buffer.from(`{"username":"ada${broken}","password":"x"}`, "latin1");
      const request = new Request(`http://localhost${LOGIN.path}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      });
      const response = await app.app.handle(request);
      expect({ status: response.status, code: (await response.json()).error.code }).toEqual(BAD);
    });
  }

  const METHODS: readonly (readonly [string, string, string])[] = [
    ["GET", LOGIN.path, "POST"],
    ["PUT", LOGIN.path, "POST"],
    ["PATCH", LOGIN.path, "POST"],
    ["DELETE", LOGIN.path, "POST"],
    ["TRACE", LOGIN.path, "POST"],
    ["PROPFIND", LOGIN.path, "POST"],
    ["POST", "/api/v1/auth/verify", "GET, HEAD"],
    ["POST", "/livez", "GET, HEAD"],
    ["TRACE", "/livez", "GET, HEAD"],
    ["DELETE", "/.well-known/jwks.json", "GET, HEAD"],
  ];

  // A method that a path does not have is told so with those that it has (RFC 9110, section 15.5.6).
  for (const [method, path, allow] of METHODS) {
    test(`405 ${method} ${path}`, async () => {
      const answer = await play(app, { name: method, method, path, ...WRONG_METHOD }, LOGIN);
      expect(answer.headers.get("allow")).toBe(allow);
    });
  }

  // HEAD is GET without the body.
  test("HEAD", async () => {
    const response = await app.app.handle(new Request("http://localhost/livez", { method: "HEAD" }));
    expect({ status: response.status, text: await response.text() }).toEqual({ status: 200, text: "" });
  });
});

describe("thrown faults", () => {
  const SECRET = "SELECT secret FROM vault WHERE path = '/srv/vault.ts:12'";
  /** A database that fails, asked by a process that remembers nothing. */
  const failing = (error: Error) => {
    app.deps.sessions.forget(undefined);
    return brokenDatabase(app.db, error);
  };
  const calls = async () => {
    const tokens = await app.login("ada");
    return [
      () => app.request("POST", LOGIN.path, { body: { username: "ada", password: PASSWORD } }),
      () => app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token: tokens.refresh_token } }),
      () => app.request("POST", "/api/v1/auth/logout", { token: tokens.access_token }),
      () => app.request("GET", "/api/v1/auth/verify", { token: tokens.access_token }),
    ];
  };

  // A fault of ours says nothing to the caller but the request id; the log has the rest under the same id.
  test("500 with a generic body", async () => {
    for (const call of await calls()) {
      const restore = replaceDeps(app.deps, { db: failing(new Error(SECRET)) });
      const answer = await call().finally(restore);
      expect(answer.status).toBe(500);
      expect(answer.body.error).toEqual({
        code: "INTERNAL_SERVER_ERROR",
        message: expect.any(String),
        timestamp: app.clock.now().toISOString(),
        request_id: answer.headers.get("x-request-id"),
      });
      expect(answer.text).not.toContain("vault");
      const line = app.logLines
        .map((text) => JSON.parse(text))
        .find((entry) => entry.event === "request.failed" && entry.request_id === answer.body.error.request_id);
      expect(line).toMatchObject({ level: "error" });
      expect(JSON.stringify(line)).toContain("vault");
      expect(JSON.stringify(line)).toContain("    at ");
    }
  });

  // What is thrown may be anything; the answer is the same.
  for (const thrown of ["text", 42, { status: 200 }, { code: "NOT_FOUND" }, { code: "VALIDATION", status: 404 }]) {
    test(`500 for a thrown ${JSON.stringify(thrown)}`, async () => {
      const [call] = await calls();
      const restore = replaceDeps(app.deps, { db: failing(thrown as unknown as Error) });
      const answer = await (call?.() ?? Promise.reject(new Error("No call"))).finally(restore);
      expect({ status: answer.status, code: answer.body?.error?.code }).toEqual({
        status: 500,
        code: "INTERNAL_SERVER_ERROR",
      });
    });
  }

  // A database that is away is said to be that: 503 with a time to come back, and it is all well again afterwards.
  for (const code of ["ECONNREFUSED", "CONNECTION_ENDED", "57P01", "53300", "57014"]) {
    test(`503 with Retry-After for ${code}`, async () => {
      for (const call of await calls()) {
        const restore = replaceDeps(app.deps, { db: failing(Object.assign(new Error("gone"), { code })) });
        const answer = await call().finally(restore);
        expect({ status: answer.status, code: answer.body.error.code }).toEqual({
          status: 503,
          code: "SERVICE_UNAVAILABLE",
        });
        expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d?$/);
      }
      expect((await app.login("ada")).access_token).not.toBe("");
    });
  }

  // A login that fails half-way leaves nothing half-done: session, record and audit row commit together or not at all.
  test("a fault in the transaction leaves no row", async () => {
    const before = await countRows(app);
    const { db } = app;
    const restore = replaceDeps(app.deps, {
      db: {
        ...db,
        transaction: (work) =>
          db.transaction(async (tx) => {
            const last: Statement[] = [];
            await work(tx, (...statements) => last.push(...statements));
            for (const statement of last) await statement;
            throw new Error("The very last statement failed");
          }),
      },
    });
    const [right, wrong] = [PASSWORD, "not the right horse battery staple"];
    for (const password of [right, wrong]) {
      const answer = await app.request("POST", LOGIN.path, { body: { username: "ada", password } });
      expect(answer.status).toBe(500);
    }
    restore();
    expect(await countRows(app)).toEqual(before);
  });

  // Probes that need no database go on answering without one; readiness says that it is gone.
  test("probes without a database", async () => {
    const restore = replaceDeps(app.deps, { db: failing(Object.assign(new Error("gone"), { code: "ECONNREFUSED" })) });
    try {
      for (const path of ["/livez", "/api/v1/health", "/.well-known/jwks.json"])
        expect((await app.request("GET", path)).status).toBe(200);
      expect((await app.request("GET", "/readyz")).status).toBe(503);
    } finally {
      restore();
    }
  });
});

describe("headers", () => {
  // The headers that protect a browser are on every answer there is; the contract check looks at each. Behind https
  // browsers are told to stay there.
  test("HSTS over https, and not over http", async () => {
    const secure = await openHttpApp({ PRIMER_SERVER__PUBLIC_URL: "https://primer.test" });
    try {
      for (const [method, path] of [
        ["GET", "/livez"],
        ["GET", "/nowhere"],
        ["POST", LOGIN.path],
      ] as const) {
        const hsts = (await secure.request(method, path)).headers.get("strict-transport-security") ?? "";
        expect(Number(/^max-age=(\d+); includeSubDomains/.exec(hsts)?.[1])).toBeGreaterThanOrEqual(31_536_000);
        expect((await app.request(method, path)).headers.get("strict-transport-security")).toBeNull();
      }
    } finally {
      await secure.close();
    }
  });

  test("nothing says what we are made of", async () => {
    const { headers } = await app.request("GET", "/nowhere");
    for (const name of ["server", "x-powered-by", "via"]) expect(headers.get(name)).toBeNull();
    expect(Object.keys(EVERY_ANSWER).every((name) => headers.has(name))).toBe(true);
  });
});
