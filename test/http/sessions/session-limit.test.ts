import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { PASSWORD, type TestAnswer, type TestApp, type TestNode } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { replaceDeps } from "../support/observe.ts";
import { play } from "../support/scenario.ts";

const LOGIN = "/api/v1/auth/login";
const SECOND = 1000;
const DAY = 86_400 * SECOND;
const MOST = 3;

/** How an installation that allows {@link MOST} sessions does with one more, on two nodes. */
async function openLimited(whenFull: "end_oldest" | "refuse") {
  const app = await openHttpApp({
    PRIMER_SESSIONS__MAX_PER_USER: String(MOST),
    PRIMER_SESSIONS__WHEN_FULL: whenFull,
  });
  return { app, other: await app.otherNode() };
}

const attempt = (on: Pick<TestApp, "request">, username: string, password = PASSWORD) =>
  on.request("POST", LOGIN, { body: { username, password } });
const verify = async (on: Pick<TestApp, "request">, token: string) =>
  (await on.request("GET", "/api/v1/auth/verify", { token })).body.error?.code ?? "ok";

async function liveSessions(app: TestApp, username: string): Promise<string[]> {
  const rows = await app.db.query<{ id: string }>(
    "SELECT s.id FROM sessions s JOIN users u ON u.id = s.user_id WHERE u.username = $1 AND s.revoked_at IS NULL",
    [username],
  );
  return rows.map(({ id }) => id).sort();
}

let made = 0;
const newUser = async (app: HttpApp) => (await app.createUser({ username: `user-${++made}` })).username;

/** Twenty logins at the same moment, every second one at the other node. */
const twentyAtOnce = (nodes: readonly Pick<TestApp, "request">[], username: string): Promise<TestAnswer[]> =>
  Promise.all(Array.from({ length: 20 }, (_, index) => attempt(nodes[index % nodes.length] as TestNode, username)));

describe("sessions.when_full = end_oldest", () => {
  let app: HttpApp;
  let other: TestNode;
  beforeAll(async () => {
    ({ app, other } = await openLimited("end_oldest"));
  });
  afterAll(async () => {
    await app.close();
  });

  // The oldest session makes room for the new one: dead at once, on record, and never more than there may be.
  test("the oldest one ends", async () => {
    const username = await newUser(app);
    const sessions = [];
    for (let count = 0; count < MOST; count++) {
      sessions.push(await app.login(username));
      app.clock.advance(SECOND);
    }
    const [oldest, ...rest] = sessions;
    const scenario = {
      name: "one more",
      body: { username, password: PASSWORD },
      status: 200,
      adds: { sessions: 1, refresh_families: 1, login_records: 1, audit_log: 2 },
    };
    const { body: newest } = await play(app, scenario, { method: "POST", path: LOGIN });
    expect(await verify(app, oldest?.access_token ?? "")).toBe("AUTH_TOKEN_REVOKED");
    const refreshed = await app.request("POST", "/api/v1/auth/refresh", {
      body: { refresh_token: oldest?.refresh_token },
    });
    expect(refreshed.body.error.code).toBe("AUTH_TOKEN_REVOKED");
    for (const { access_token } of [...rest, newest]) expect(await verify(app, access_token)).toBe("ok");
    expect(
      await app.db.query(
        "SELECT action, outcome, details FROM audit_log WHERE subject_id = $1 ORDER BY id DESC LIMIT 1",
        [oldest?.session_id],
      ),
    ).toMatchObject([{ action: "session.revoked", outcome: "success", details: { reason: "session_limit" } }]);
    const [row] = await app.db.query("SELECT revoked_reason FROM sessions WHERE id = $1", [oldest?.session_id]);
    expect(row).toEqual({ revoked_reason: "session_limit" });
  });

  // Sessions that count no more take no room, so nobody who still works is ended for them.
  test("what has ended, run out or gone idle takes no room", async () => {
    const username = await newUser(app);
    const [ended, expired, idle] = [await app.login(username), await app.login(username), await app.login(username)];
    await app.request("POST", "/api/v1/auth/logout", { token: ended.access_token });
    await app.db.query("UPDATE sessions SET expires_at = $1 WHERE id = $2", [
      app.clock.now().toISOString(),
      expired.session_id,
    ]);
    await app.db.query("UPDATE refresh_families SET idle_expires_at = $1 WHERE session_id = $2", [
      app.clock.now().toISOString(),
      idle.session_id,
    ]);
    for (let count = 0; count < MOST; count++) await app.login(username);
    const rows = await app.db.query(
      "SELECT id FROM sessions WHERE revoked_reason = 'session_limit' AND id = ANY($1::uuid[])",
      [`{${[ended, expired, idle].map((tokens) => tokens.session_id).join(",")}}`],
    );
    expect(rows).toEqual([]);
  });

  // A lower limit counts from the next login on, which ends as many as it takes.
  test("more than there may be", async () => {
    const username = await newUser(app);
    const unlimited = { ...app.deps.settings, sessions: { ...app.deps.settings.sessions, max_per_user: 0 } };
    const restore = replaceDeps(app.deps, { settings: unlimited });
    const before: string[] = [];
    try {
      for (let count = 0; count < 8; count++) {
        before.push((await app.login(username)).session_id);
        app.clock.advance(SECOND);
      }
    } finally {
      restore();
    }
    const newest = await app.login(username);
    expect(await liveSessions(app, username)).toEqual([...before.slice(-(MOST - 1)), newest.session_id].sort());
  });

  // Everybody has room of their own.
  test("other users' sessions stay", async () => {
    const [ada, bob] = [await newUser(app), await newUser(app)];
    const bobs = await app.login(bob);
    for (let count = 0; count < MOST + 2; count++) await app.login(ada);
    expect(await verify(app, bobs.access_token)).toBe("ok");
  });

  // However many log in at the same moment, and wherever: exactly as many sessions are left as there may be.
  test("20 logins at the same moment on two nodes", async () => {
    const username = await newUser(app);
    const answers = await twentyAtOnce([app, other], username);
    expect(answers.map((answer) => answer.status)).toEqual(Array.from({ length: 20 }, () => 200));
    const live = await liveSessions(app, username);
    expect(live).toHaveLength(MOST);
    const states = await Promise.all(answers.map(({ body }) => verify(app, body.access_token)));
    const good = answers.filter((_, index) => states[index] === "ok").map(({ body }) => body.session_id);
    expect(good.sort()).toEqual(live);
  });

  // Logins that make room and logouts everywhere end the same sessions at the same moment: none waits for ever.
  test("10 logins and 10 logouts everywhere at the same moment", async () => {
    const username = await newUser(app);
    const { refresh_token } = await app.login(username);
    await Promise.all([app.login(username), app.login(username)]);
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        index % 2 === 0
          ? attempt(app, username)
          : other.request("POST", "/api/v1/auth/logout", { body: { refresh_token, all: true } }),
      ),
    );
    for (const { status } of answers) expect([200, 204]).toContain(status);
    expect((await liveSessions(app, username)).length).toBeLessThanOrEqual(MOST);
  });
});

describe("sessions.when_full = refuse", () => {
  let app: HttpApp;
  let other: TestNode;
  beforeAll(async () => {
    ({ app, other } = await openLimited("refuse"));
  });
  afterAll(async () => {
    await app.close();
  });

  const lastLogin = async (username: string) =>
    new Date(
      (
        await app.db.query<{ at: string | Date }>("SELECT last_login_at AS at FROM users WHERE username = $1", [
          username,
        ])
      )[0]?.at ?? 0,
    ).getTime();

  // One login too many is refused; nothing is left of it but the record that it was tried, and all sessions live on.
  test("409 and nothing else", async () => {
    const username = await newUser(app);
    const sessions = await Promise.all(Array.from({ length: MOST }, () => app.login(username)));
    const before = await lastLogin(username);
    app.clock.advance(SECOND);
    const scenario = {
      name: "one too many",
      body: { username, password: PASSWORD },
      headers: { "x-request-id": "one-too-many" },
      status: 409,
      code: "SESSION_LIMIT_REACHED",
      adds: { login_records: 1, audit_log: 1 },
      notInAnswer: sessions.map((tokens) => tokens.session_id),
    } as const;
    await play(app, scenario, { method: "POST", path: LOGIN });
    expect(
      await app.db.query("SELECT outcome, reason, session_id FROM login_records WHERE request_id = 'one-too-many'"),
    ).toEqual([{ outcome: "failure", reason: "session_limit", session_id: null }]);
    expect(
      await app.db.query("SELECT action, outcome, details FROM audit_log WHERE request_id = 'one-too-many'"),
    ).toEqual([{ action: "login", outcome: "failure", details: { reason: "session_limit" } }]);
    expect(await lastLogin(username)).toBe(before);
    for (const { access_token } of sessions) expect(await verify(app, access_token)).toBe("ok");
  });

  // That somebody is logged in is told only to whoever knows the password.
  test("401 for a wrong password, full or not", async () => {
    const username = await newUser(app);
    for (let count = 0; count < MOST; count++) await app.login(username);
    expect((await attempt(app, username, "not the right horse battery staple")).body.error.code).toBe(
      "AUTH_INVALID_CREDENTIALS",
    );
  });

  // The session that a browser had ends with its next login, so it takes nobody's place; of a refused one it lives on.
  test("a browser that logs in again has room; one whose session is another's has none, and keeps it", async () => {
    const [username, stranger] = [await newUser(app), await newUser(app)];
    const [first] = await Promise.all(Array.from({ length: MOST }, () => app.login(username)));
    const elsewhere = await app.login(stranger);
    const logIn = (refreshToken = "") =>
      app.request("POST", LOGIN, {
        body: { username, password: PASSWORD, cookies: true },
        headers: { cookie: `primer_refresh=${refreshToken}` },
      });
    expect((await logIn(elsewhere.refresh_token)).status).toBe(409);
    expect(await verify(app, elsewhere.access_token)).toBe("ok");
    expect((await logIn(first?.refresh_token)).status).toBe(200);
    expect(await verify(app, first?.access_token ?? "")).toBe("AUTH_TOKEN_REVOKED");
    expect(await liveSessions(app, username)).toHaveLength(MOST);
  });

  // Whoever logs out somewhere, or whose session goes idle, can log in again.
  test("room again after a logout, and after a day", async () => {
    const username = await newUser(app);
    const [first] = await Promise.all(Array.from({ length: MOST }, () => app.login(username)));
    expect((await attempt(app, username)).status).toBe(409);
    await app.request("POST", "/api/v1/auth/logout", { token: first?.access_token ?? "" });
    expect((await attempt(app, username)).status).toBe(200);
    expect((await attempt(app, username)).status).toBe(409);
    app.clock.advance(DAY);
    expect((await attempt(app, username)).status).toBe(200);
  });

  test("20 logins at the same moment on two nodes", async () => {
    const username = await newUser(app);
    const answers = await twentyAtOnce([app, other], username);
    const outcomes = answers.map(({ status, body }) => body.error?.code ?? status);
    expect(outcomes.filter((outcome) => outcome === 200)).toHaveLength(MOST);
    expect(outcomes.filter((outcome) => outcome === "SESSION_LIMIT_REACHED")).toHaveLength(20 - MOST);
    expect(await liveSessions(app, username)).toHaveLength(MOST);
  });
});
