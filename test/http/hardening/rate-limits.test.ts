import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { addressKey } from "../../../server/address-key.ts";
import { setPassword, unlockUser } from "../../../server/features/users/service.ts";
import { openTestApp, PASSWORD, type TestAnswer, type TestApp } from "../../support/app.ts";

const LOGIN = "/api/v1/auth/login";
const WRONG = "not the right horse battery staple";
const OPERATOR = { actor: { kind: "operator" } } as const;
const MINUTE = 60_000;
const DEFAULTS = {
  PRIMER_RATE_LIMITS__LOGIN_IP: "5/1m",
  PRIMER_RATE_LIMITS__LOGIN_IP_ACCOUNT: "10/15m",
  PRIMER_RATE_LIMITS__LOGIN_SERVICE: "3000/1m",
  PRIMER_RATE_LIMITS__LOGIN_ACCOUNT: "10/15m",
  PRIMER_RATE_LIMITS__GENERAL: "100/1m",
  PRIMER_RATE_LIMITS__REFRESH: "10/1h",
};

let app: TestApp;
const open = async (variables: Record<string, string> = {}) => {
  await app?.close();
  app = await openTestApp({ ...DEFAULTS, ...variables });
  await app.createUser({ username: "ada" });
};
beforeEach(() => open());
afterEach(async () => {
  await app.close();
  app = undefined as unknown as TestApp;
});

const logIn = (username = "ada", password = PASSWORD) => app.request("POST", LOGIN, { body: { username, password } });
const codeOf = ({ status, body }: TestAnswer) => (status < 300 ? "ok" : `${status} ${body.error.code}`);
const LIMITED = "429 RATE_LIMIT_EXCEEDED";
const headersOf = ({ headers }: TestAnswer) =>
  ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after"].map((name) => headers.get(name));

// Nobody guesses faster than this, from wherever; and whoever is told to wait is told for how long.
describe("logins from one address", () => {
  test("five in a minute, right or wrong; the headers tell how many are left", async () => {
    const seen: (string | null)[][] = [];
    for (let count = 0; count < 5; count++) {
      const answer = await logIn("ada", count % 2 === 0 ? PASSWORD : WRONG);
      expect(answer.status).toBe(count % 2 === 0 ? 200 : 401);
      seen.push(headersOf(answer));
    }
    expect(seen.map(([limit, remaining]) => [limit, remaining])).toEqual(
      [4, 3, 2, 1, 0].map((left) => ["5", String(left)]),
    );
    const sixth = await logIn();
    expect(codeOf(sixth)).toBe(LIMITED);
    expect(headersOf(sixth)).toEqual(["5", "0", "60", "60"]);
  });

  test("waiting exactly as long as was said is enough, and a moment less is not", async () => {
    for (let count = 0; count < 5; count++) {
      await logIn();
      app.clock.advance(1000);
    }
    const wait = Number((await logIn()).headers.get("retry-after"));
    app.clock.advance(wait * 1000 - 1001);
    expect(codeOf(await logIn())).toBe(LIMITED);
    app.clock.advance(1001);
    expect(codeOf(await logIn())).toBe("ok");
  });

  test("a refused one writes nothing, takes no hash and does not prolong the wait", async () => {
    for (let count = 0; count < 5; count++) await logIn();
    const before = await app.db.query("SELECT count(*)::int AS count FROM login_records");
    for (let count = 0; count < 20; count++) expect(codeOf(await logIn())).toBe(LIMITED);
    expect(await app.db.query("SELECT count(*)::int AS count FROM login_records")).toEqual(before);
    app.clock.advance(MINUTE);
    expect(codeOf(await logIn())).toBe("ok");
  });

  test("one password on many accounts is slowed down like any other guessing", async () => {
    const codes: string[] = [];
    for (let count = 0; count < 30; count++) codes.push(codeOf(await logIn(`user${count}`, WRONG)));
    expect(codes.filter((code) => code === LIMITED)).toHaveLength(25);
  });

  test("100 at the same moment: five are let through", async () => {
    const codes = (await Promise.all(Array.from({ length: 100 }, () => logIn()))).map(codeOf);
    expect(codes.filter((code) => code === "ok")).toHaveLength(5);
    expect(codes.filter((code) => code === LIMITED)).toHaveLength(95);
  });
});

test.each([
  ["203.0.113.9", "203.0.113.9"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:db8:1:2::9", "2001:db8:1:2::/64"],
  ["2001:0DB8:0001:0002::9", "2001:db8:1:2::/64"],
  ["2001:db8::9", "2001:db8:0:0::/64"],
  ["::1", "0:0:0:0::/64"],
  ["fe80::", "fe80:0:0:0::/64"],
])("an address counts as one of IPv4 or a /64 of IPv6: %s", (ip, key) => {
  expect(addressKey(ip)).toBe(key);
});

describe("failures on one account", () => {
  const open10 = () => open({ PRIMER_RATE_LIMITS__LOGIN_IP: "off", PRIMER_RATE_LIMITS__LOGIN_IP_ACCOUNT: "off" });

  test("ten in a quarter of an hour, whatever the delay says; successes do not count", async () => {
    await open10();
    for (let count = 0; count < 12; count++) {
      expect(codeOf(await logIn())).toBe("ok");
      app.clock.advance(1);
    }
    for (let count = 0; count < 10; count++) expect((await logIn("ada", WRONG)).status).toBe(401);
    expect(codeOf(await logIn())).toBe(LIMITED);
    app.clock.advance(15 * MINUTE);
    expect(codeOf(await logIn())).toBe("ok");
  });

  // Whoever was let in again by hand must not meet the limit that the failures before have filled.
  test.each([
    ["an unlock", async (id: string) => void (await unlockUser(app.deps, id, OPERATOR))],
    ["a new password", async (id: string) => void (await setPassword(app.deps, id, PASSWORD, OPERATOR))],
  ])("%s begins a new count", async (_name, letIn) => {
    await open10();
    for (let count = 0; count < 10; count++) expect((await logIn("ada", WRONG)).status).toBe(401);
    expect(codeOf(await logIn())).toBe(LIMITED);
    const [ada] = await app.db.query<{ id: string }>("SELECT id FROM users WHERE username = 'ada'");
    app.clock.advance(1);
    await letIn(ada?.id ?? "");
    expect(codeOf(await logIn())).toBe("ok");
  });

  test("20 wrong at the same moment: ten are looked at", async () => {
    await open10();
    const answers = await Promise.all(Array.from({ length: 20 }, () => logIn("ada", WRONG)));
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(10);
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(10);
  });

  test("a device of its owner's keeps its way in", async () => {
    await open10();
    const remembered = await app.request("POST", LOGIN, {
      body: { username: "ada", password: PASSWORD, remember_device: true },
    });
    const { device_token } = remembered.body;
    for (let count = 0; count < 10; count++) await logIn("ada", WRONG);
    expect(codeOf(await logIn())).toBe(LIMITED);
    const body = { username: "ada", password: PASSWORD, device_token };
    expect(codeOf(await app.request("POST", LOGIN, { body }))).toBe("ok");
  });
});

describe("refreshes of one session", () => {
  const refresh = (refresh_token: string) => app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } });

  test("ten in an hour; what the grace repeats does not count, and the session is not harmed", async () => {
    let { refresh_token } = await app.login("ada");
    for (let count = 0; count < 10; count++) {
      const answer = await refresh(refresh_token);
      expect(codeOf(answer)).toBe("ok");
      for (let again = 0; again < 3; again++) expect(codeOf(await refresh(refresh_token))).toBe("ok");
      ({ refresh_token } = answer.body);
      app.clock.advance(MINUTE);
    }
    expect(codeOf(await refresh(refresh_token))).toBe(LIMITED);
    app.clock.advance(60 * MINUTE);
    expect(codeOf(await refresh(refresh_token))).toBe("ok");
  });
});

describe("requests in general", () => {
  test("100 a minute for each user, wherever they come from; one's do not count for another", async () => {
    await open({ PRIMER_RATE_LIMITS__LOGIN_IP: "off" });
    await app.createUser({ username: "rolf" });
    const [ada, rolf] = [(await app.login("ada")).access_token, (await app.login("rolf")).access_token];
    const list = (token: string) => app.request("GET", "/api/v1/users/me/sessions", { token });
    const codes = (await Promise.all(Array.from({ length: 110 }, () => list(ada)))).map(codeOf);
    expect(codes.filter((code) => code === LIMITED)).toHaveLength(10);
    expect(codeOf(await list(rolf))).toBe("ok");
  });

  // What gateways and probes ask at every request is not limited.
  test("verify, the keys, health and probes are not counted", async () => {
    const { access_token } = await app.login("ada");
    for (const path of ["/api/v1/auth/verify", "/.well-known/jwks.json", "/api/v1/health", "/livez"]) {
      const answers = await Promise.all(
        Array.from({ length: 120 }, () => app.request("GET", path, { token: access_token })),
      );
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
      expect(answers[0]?.headers.get("ratelimit-limit")).toBeNull();
    }
  });
});

// What is refused before anybody looks at limits asks for as much as any other request.
describe("requests that are refused early", () => {
  const ASKED = {
    "no token": ["GET", "/api/v1/users/me/sessions", "401 AUTH_TOKEN_MISSING"],
    "a wrong token": ["GET", "/api/v1/users/me/sessions", "401 AUTH_TOKEN_INVALID"],
    "no such path": ["GET", "/api/v1/nowhere", "404 NOT_FOUND"],
    "a wrong method": ["DELETE", "/api/v1/users/me/nothing", "404 NOT_FOUND"],
  } as const;
  test.each(Object.keys(ASKED) as (keyof typeof ASKED)[])("%s: 100 a minute from one address", async (name) => {
    const [method, path, code] = ASKED[name];
    const ask = () => app.request(method, path, name === "a wrong token" ? { token: "a.b.c" } : {});
    const answers = await Promise.all(Array.from({ length: 110 }, ask));
    expect(answers.map(codeOf).filter((each) => each === code)).toHaveLength(100);
    expect(answers.map(codeOf).filter((each) => each === LIMITED)).toHaveLength(10);
    expect(answers[0]?.headers.get("ratelimit-limit")).toBe("100");
    app.clock.advance(MINUTE);
    expect(codeOf(await ask())).toBe(code);
  });

  test("malformed registrations count, though the route has a limit of its own", async () => {
    const ask = () => app.request("POST", "/api/v1/auth/register", { body: "{" });
    const answers = await Promise.all(Array.from({ length: 110 }, ask));
    expect(answers.map(codeOf).filter((code) => code === LIMITED)).toHaveLength(10);
  });

  // Whoever comes with an old token is told so, and can go on: what was refused is counted by itself.
  test("they leave refreshes of the same address their room", async () => {
    const { refresh_token } = await app.login("ada");
    const refused = () => app.request("GET", "/api/v1/users/me/sessions", { token: "a.b.c" });
    await Promise.all(Array.from({ length: 110 }, refused));
    expect(codeOf(await app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } }))).toBe("ok");
  });

  test("tokens that verify refuses are not counted", async () => {
    for (let count = 0; count < 110; count++) {
      const { status } = await app.request("GET", "/api/v1/auth/verify?permission=a&permission=b", { token: "a.b.c" });
      expect([401, 403]).toContain(status);
    }
  });
});

describe("limits of single routes", () => {
  const SESSIONS = "/api/v1/users/me/sessions";
  test("count in place of the general one, for each user by itself; others go on with theirs", async () => {
    await open({ PRIMER_RATE_LIMITS__ROUTES: `GET ${SESSIONS} 3/1m, DELETE ${SESSIONS} off` });
    await app.createUser({ username: "rolf" });
    const [ada, rolf] = [(await app.login("ada")).access_token, (await app.login("rolf")).access_token];
    const list = (token: string) => app.request("GET", SESSIONS, { token });
    const answers = await Promise.all(Array.from({ length: 5 }, () => list(ada)));
    expect(answers.map(codeOf).sort()).toEqual([LIMITED, LIMITED, "ok", "ok", "ok"]);
    expect(answers[0]?.headers.get("ratelimit-limit")).toBe("3");
    expect(codeOf(await list(rolf))).toBe("ok");
    const others = await app.request("DELETE", SESSIONS, { token: ada });
    expect([others.status, others.headers.get("ratelimit-limit")]).toEqual([204, null]);
    const one = await app.request("DELETE", `${SESSIONS}/019b76da-a800-7000-8000-000000000000`, { token: ada });
    expect([one.status, one.headers.get("ratelimit-limit")]).toEqual([404, "100"]);
  });

  test("add to what else limits a route", async () => {
    await open({ PRIMER_RATE_LIMITS__ROUTES: `POST ${LOGIN} 2/1m` });
    const codes = [codeOf(await logIn()), codeOf(await logIn()), codeOf(await logIn())];
    expect(codes).toEqual(["ok", "ok", LIMITED]);
  });

  // What an operator has said of a route holds for those who are refused as well.
  test("requests that are refused early count under the limit of their route", async () => {
    await open({ PRIMER_RATE_LIMITS__ROUTES: `GET ${SESSIONS} 3/1m, DELETE ${SESSIONS} off` });
    const limitedOf = async (method: string) => {
      const answers = await Promise.all(Array.from({ length: 110 }, () => app.request(method, SESSIONS)));
      return answers.map(codeOf).filter((code) => code === LIMITED).length;
    };
    expect([await limitedOf("GET"), await limitedOf("DELETE")]).toEqual([107, 0]);
  });

  test("a route that there is not is refused at the start", async () => {
    await expect(openTestApp({ PRIMER_RATE_LIMITS__ROUTES: "GET /api/v1/nowhere 3/1m" })).rejects.toMatchObject({
      exitCode: 2,
    });
  });
});

test("in shadow mode nothing is refused, and the log tells what would be", async () => {
  await open({ PRIMER_RATE_LIMITS__MODE: "shadow" });
  for (let count = 0; count < 8; count++) expect(codeOf(await logIn())).toBe("ok");
  const events = app.logLines.map((line) => JSON.parse(line)).filter(({ event }) => event === "limit.would_refuse");
  expect(events).toHaveLength(3);
  expect(events[0]).toMatchObject({ limit: "login_ip" });
});
