import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { insertLoginRecord } from "../../../db/queries/logins.ts";
import { assessSignIn, type Signal } from "../../../server/features/protection/service.ts";
import { changeUser, setPassword, unlockUser } from "../../../server/features/users/service.ts";
import { openTestApp, PASSWORD, type TestAnswer, type TestApp, type TestNode } from "../../support/app.ts";
import { replaceDeps } from "../support/observe.ts";

const LOGIN = "/api/v1/auth/login";
const WRONG = "not the right horse battery staple";
const OPERATOR = { actor: { kind: "operator" } } as const;
const MINUTE = 60_000;

let app: TestApp;
let ada: { id: string };
beforeEach(async () => {
  app = await openTestApp({ PRIMER_ACCOUNTS__DELAY_AFTER: "5", PRIMER_ACCOUNTS__LOCK_AFTER: "100" });
  ada = await app.createUser({ username: "ada" });
});
afterEach(() => app.close());

const logIn = (body: object, on: Pick<TestApp, "request"> = app, headers: Record<string, string> = {}) =>
  on.request("POST", LOGIN, { body: { username: "ada", password: PASSWORD, ...body }, headers });
const guess = (username = "ada", on: Pick<TestApp, "request"> = app) => logIn({ username, password: WRONG }, on);
const codeOf = ({ status, body }: TestAnswer) => (status === 200 ? "ok" : `${status} ${body.error.code}`);
const INVALID = "401 AUTH_INVALID_CREDENTIALS";
const LIMITED = "429 RATE_LIMIT_EXCEEDED";

async function fail(times: number, username = "ada"): Promise<string[]> {
  const codes: string[] = [];
  for (let count = 0; count < times; count++) codes.push(codeOf(await guess(username)));
  return codes;
}

/** Fails as often as is needed for that many in a row, waiting each time as long as is asked. */
async function failInARow(times: number, username = "ada"): Promise<number[]> {
  const waits: number[] = [];
  for (let count = 0; count < times; ) {
    const answer = await guess(username);
    if (answer.status === 401) count++;
    else {
      const seconds = Number(answer.headers.get("retry-after"));
      waits.push(seconds);
      app.clock.advance(seconds * 1000);
    }
  }
  return waits;
}

/** Counts how many passwords are checked, on these nodes. */
function countChecks(nodes: readonly Pick<TestApp, "deps">[]) {
  let checks = 0;
  const restore = nodes.map(({ deps }) => {
    const { hashPool } = deps;
    return replaceDeps(deps, {
      hashPool: {
        ...hashPool,
        run(hash) {
          checks++;
          return hashPool.run(hash);
        },
      },
    });
  });
  return () => {
    for (const put of restore) put();
    return checks;
  };
}

const mailsOf = async (template: string) =>
  (await app.db.query<{ data: { template: string; user_id: string } }>("SELECT data FROM jobs.job"))
    .map(({ data }) => data)
    .filter((data) => data.template === template);

// Guesses are slowed down long before they could succeed, and however many come at once, few are looked at.
describe("wrong passwords in a row", () => {
  test("five are answered, the sixth has to wait; waiting that long is enough", async () => {
    expect(await fail(5)).toEqual(Array.from({ length: 5 }, () => INVALID));
    const sixth = await guess();
    expect(codeOf(sixth)).toBe(LIMITED);
    expect(sixth.headers.get("retry-after")).toBe("5");
    expect(sixth.headers.get("ratelimit-remaining")).toBe("0");
    app.clock.advance(5000 - 1);
    expect(codeOf(await guess())).toBe(LIMITED);
    app.clock.advance(1);
    expect(codeOf(await guess())).toBe(INVALID);
  });

  test("the wait doubles up to 15 minutes", async () => {
    const waits = await failInARow(16);
    expect(waits).toEqual([5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900]);
  });

  test("inside of a delay the right password is not even looked at, and a try does not prolong it", async () => {
    await fail(5);
    const checks = countChecks([app]);
    for (let count = 0; count < 20; count++) expect(codeOf(await logIn({}))).toBe(LIMITED);
    expect(checks()).toBe(0);
    app.clock.advance(5000);
    expect(codeOf(await logIn({}))).toBe("ok");
    expect(await fail(5)).toEqual(Array.from({ length: 5 }, () => INVALID));
  });

  for (const count of [1, 2]) {
    test(`200 at the same moment on ${count} node(s): five are looked at, the others wait`, async () => {
      const nodes: (TestApp | TestNode)[] = count === 1 ? [app] : [app, await app.otherNode()];
      const checks = countChecks(nodes);
      const answers = await Promise.all(
        Array.from({ length: 200 }, (_, index) => guess("ada", nodes[index % nodes.length])),
      );
      expect(checks()).toBe(5);
      const codes = answers.map(codeOf);
      expect(codes.filter((code) => code === INVALID)).toHaveLength(5);
      // A machine that is too busy for so many at a time sends some away before they are looked at.
      expect(codes.filter((code) => code === LIMITED || code === "503 SERVICE_UNAVAILABLE")).toHaveLength(195);
      expect(codes).toContain(LIMITED);
    });
  }

  test("names that nobody has slow down at the same attempt", async () => {
    const [known, unknown] = [await fail(7), await fail(7, "nobody@example.test")];
    expect(unknown).toEqual(known);
    expect(unknown.slice(5)).toEqual([LIMITED, LIMITED]);
  });

  test("the account counts, however its name is spelt", async () => {
    const spellings = ["ada", "ADA", "ada@example.test", "Ada@Example.TEST", " ada "];
    for (const spelling of spellings) expect(codeOf(await guess(spelling))).toBe(INVALID);
    for (const spelling of spellings) expect(codeOf(await guess(spelling))).toBe(LIMITED);
  });

  test("one account's do not slow another's down", async () => {
    await app.createUser({ username: "rolf" });
    await fail(6);
    expect(codeOf(await logIn({ username: "rolf" }))).toBe("ok");
  });

  test("a disabled account and one without a password count the same", async () => {
    await changeUser(app.deps, ada.id, { status: "disabled" }, OPERATOR);
    expect((await fail(6))[5]).toBe(LIMITED);
    const { id } = await app.createUser({ username: "rolf" });
    await app.db.query("DELETE FROM credentials WHERE user_id = $1", [id]);
    expect((await fail(6, "rolf"))[5]).toBe(LIMITED);
  });

  test("a password that could not be looked at was no guess", async () => {
    const full = { run: () => Promise.reject(Object.assign(new Error("full"), { code: "57P01" })) };
    const restore = replaceDeps(app.deps, { hashPool: { ...app.deps.hashPool, ...full } as never });
    for (let count = 0; count < 10; count++) expect((await guess()).status).toBe(503);
    restore();
    expect(codeOf(await logIn({}))).toBe("ok");
    expect(await app.db.query("SELECT subject FROM failure_counters")).toEqual([]);
  });
});

// After a hundred the password is off, and nobody who guesses is told so.
describe("a hundred wrong passwords", () => {
  test("switch the password off: the right one is answered as a wrong one, and the owner hears of it once", async () => {
    await app.db.query(
      "INSERT INTO failure_counters (subject, failures, first_failure_at, last_failure_at) VALUES ($1, 99, now(), now())",
      [`user:${ada.id}`],
    );
    expect(await mailsOf("account_locked")).toEqual([]);
    expect(codeOf(await guess())).toBe(INVALID);
    app.clock.advance(15 * MINUTE);
    const [wrong, right] = [await guess(), await logIn({})];
    expect([wrong, right].map(codeOf)).toEqual([INVALID, INVALID]);
    expect(wrong.body.error.message).toBe(right.body.error.message);
    app.clock.advance(1000 * MINUTE);
    expect(codeOf(await logIn({}))).toBe(INVALID);
    expect(await mailsOf("account_locked")).toMatchObject([{ user_id: ada.id }]);
    const audited = await app.db.query("SELECT subject_id FROM audit_log WHERE action = 'account.locked'");
    expect(audited).toEqual([{ subject_id: ada.id }]);
  });

  for (const [name, mend] of [
    ["a new password", () => setPassword(app.deps, ada.id, PASSWORD, OPERATOR)],
    ["an administrator's unlock", () => unlockUser(app.deps, ada.id, OPERATOR)],
  ] as const) {
    test(`${name} switches it on again`, async () => {
      await app.db.query(
        "INSERT INTO failure_counters (subject, failures, first_failure_at, last_failure_at) VALUES ($1, 100, now(), now())",
        [`user:${ada.id}`],
      );
      expect(codeOf(await logIn({}))).toBe(INVALID);
      await mend();
      expect(codeOf(await logIn({}))).toBe("ok");
    });
  }
});

// Whoever attacks an account slows strangers down, not its owner.
describe("a device that is known", () => {
  const cookieOf = (answer: TestAnswer) =>
    answer.headers
      .getSetCookie()
      .map((line) => line.split(";")[0] ?? "")
      .find((pair) => pair.startsWith("primer_device=")) ?? "";

  test("by its cookie has its way in while strangers are slowed and even when they are locked out", async () => {
    const cookie = cookieOf(await logIn({ cookies: true }));
    expect(cookie.length).toBeGreaterThan(50);
    await fail(6);
    expect(codeOf(await logIn({ cookies: true }))).toBe(LIMITED);
    expect(codeOf(await logIn({ cookies: true }, app, { cookie }))).toBe("ok");
    await app.db.query("UPDATE failure_counters SET failures = 100");
    expect(codeOf(await logIn({ cookies: true }))).toBe(INVALID);
    expect(codeOf(await logIn({ cookies: true }, app, { cookie }))).toBe("ok");
  });

  test("by its token, which is answered where it is asked for and kept as a hash", async () => {
    expect((await logIn({})).body).not.toHaveProperty("device_token");
    const { device_token } = (await logIn({ remember_device: true })).body;
    expect(device_token.length).toBeGreaterThanOrEqual(43);
    const rows = await app.db.query<{ token_hash: string }>("SELECT token_hash FROM known_devices");
    expect(JSON.stringify(rows)).not.toContain(device_token);
    await fail(6);
    const again = await logIn({ device_token });
    expect([codeOf(again), again.body.device_token]).toEqual(["ok", device_token]);
  });

  test("is slowed down by its own failures, and not the owner's other devices by them", async () => {
    const [first, second] = [
      (await logIn({ remember_device: true })).body.device_token,
      (await logIn({ remember_device: true })).body.device_token,
    ];
    const from = (device_token: string, password = WRONG) => logIn({ device_token, password });
    for (let count = 0; count < 5; count++) expect(codeOf(await from(first))).toBe(INVALID);
    expect(codeOf(await from(first, PASSWORD))).toBe(LIMITED);
    expect(codeOf(await from(second, PASSWORD))).toBe("ok");
    expect(codeOf(await logIn({}))).toBe("ok");
  });

  test("of somebody else, or made up, is a stranger's; after a new password so are all", async () => {
    await app.createUser({ username: "rolf" });
    const rolfs = (await logIn({ username: "rolf", remember_device: true })).body.device_token;
    const adas = (await logIn({ remember_device: true })).body.device_token;
    await fail(6);
    for (const device_token of [rolfs, "x", `${adas}x`]) expect(codeOf(await logIn({ device_token }))).toBe(LIMITED);
    expect(codeOf(await logIn({ device_token: adas }))).toBe("ok");
    await setPassword(app.deps, ada.id, PASSWORD, OPERATOR);
    await fail(6);
    expect(codeOf(await logIn({ device_token: adas }))).toBe(LIMITED);
  });
});

// A stolen access token is no way to guess the password by, nor to lock the owner out.
test("step-up counts in the session alone", async () => {
  const { access_token: token } = await app.login("ada");
  const stepUp = (password: string) => app.request("POST", "/api/v1/auth/step-up", { token, body: { password } });
  for (let count = 0; count < 5; count++) expect(codeOf(await stepUp(WRONG))).toBe(INVALID);
  expect(codeOf(await stepUp(PASSWORD))).toBe(LIMITED);
  expect(codeOf(await logIn({}))).toBe("ok");
  app.clock.advance(5000);
  expect(codeOf(await stepUp(PASSWORD))).toBe("ok");
  for (let count = 0; count < 5; count++) expect(codeOf(await stepUp(WRONG))).toBe(INVALID);
});

// What is unusual about a sign-in is told to its owner; the first one has nothing to be compared with.
describe("an unusual sign-in", () => {
  const from = (agent: string, body: object = {}) => logIn(body, app, { "user-agent": agent });

  const eventsOf = () =>
    app.logLines
      .map((line) => JSON.parse(line))
      .filter(({ event }) => /^login\.(unusual|suspicious)$/.test(event))
      .map(({ event, signals }) => [event, ...signals]);

  test("the first one, and others like it, are not", async () => {
    for (let count = 0; count < 3; count++) await from("Firefox");
    expect(eventsOf()).toEqual([]);
    expect(await mailsOf("new_sign_in")).toEqual([]);
  });

  test("a new device: the owner is told", async () => {
    await from("Firefox");
    await from("Chromium");
    expect(eventsOf()).toEqual([["login.unusual", "new_device"]]);
    expect(await mailsOf("new_sign_in")).toMatchObject([{ user_id: ada.id, session_id: expect.any(String) }]);
  });

  test("a new device after failures: suspicious", async () => {
    await from("Firefox");
    for (let count = 0; count < 4; count++) await from("Chromium", { password: WRONG });
    await from("Chromium");
    expect(eventsOf()).toEqual([["login.suspicious", "new_device", "failures_before"]]);
    expect(await mailsOf("suspicious_sign_in")).toMatchObject([{ signals: ["new_device", "failures_before"] }]);
    expect(await mailsOf("new_sign_in")).toEqual([]);
  });

  test.each([
    ["192.0.2.200", []],
    ["::ffff:192.0.2.200", []],
    ["192.0.3.7", ["new_network"]],
    ["2001:db8:1:2::9", []],
    ["2001:db8:2::9", ["new_network"]],
    [null, []],
  ])("a network is a /24 or a /48: %s", async (ip, signals) => {
    const record = { userId: ada.id, outcome: "success" as const, reason: "password", userAgent: "x", requestId: null };
    for (const seen of ["192.0.2.7", "2001:db8:1::7"]) {
      const id = app.deps.random.id(app.clock.now());
      await insertLoginRecord(app.db.orm, { ...record, id, ip: seen, createdAt: app.clock.now() });
    }
    const stranger = { isKnownDevice: false, failures: 0 };
    const caller = { requestId: null, ip: ip?.replace("::ffff:", "") ?? null, userAgent: "x" };
    expect((await assessSignIn(app.db.orm, app.deps, ada.id, stranger, caller)).signals).toEqual(signals as Signal[]);
    const known = { ...stranger, isKnownDevice: true };
    expect((await assessSignIn(app.db.orm, app.deps, ada.id, known, caller)).score).toBe(0);
  });
});
