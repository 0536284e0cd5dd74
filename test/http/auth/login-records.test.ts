import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHashPool } from "../../../server/features/passwords/hash-pool.ts";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openHttpApp, openListeningApp } from "../support/http-app.ts";
import { replaceDeps } from "../support/observe.ts";
import { countRows, setStatus } from "../support/scenario.ts";

const WRONG = "not the right horse battery staple";
const LOGIN = "/api/v1/auth/login";

describe("what a login leaves behind", () => {
  let app: HttpApp;
  let ids: Record<string, string>;
  beforeAll(async () => {
    app = await openListeningApp({ PRIMER_SERVER__TRUSTED_PROXIES: "127.0.0.1" });
    ids = {};
    for (const username of ["ada", "dora", "pete", "nina"]) ids[username] = (await app.createUser({ username })).id;
    await setStatus(app, ids.dora ?? "", "disabled");
    await setStatus(app, ids.pete ?? "", "pending");
    await app.db.query("DELETE FROM credentials WHERE user_id = $1", [ids.nina]);
  });
  afterAll(() => app.close());

  const CASES = [
    { username: "ada", password: PASSWORD, status: 200, outcome: "success", reason: "password" },
    { username: "ada", password: WRONG, status: 401, outcome: "failure", reason: "wrong_password" },
    { username: "nobody", password: WRONG, status: 401, outcome: "failure", reason: "unknown_account" },
    { username: "nina", password: WRONG, status: 401, outcome: "failure", reason: "no_password" },
    { username: "dora", password: PASSWORD, status: 403, outcome: "failure", reason: "disabled" },
    { username: "pete", password: PASSWORD, status: 403, outcome: "failure", reason: "email_not_verified" },
  ] as const;

  // Every attempt is on record: whose account, from where, with what, how it ended and why, and under which request id.
  for (const { username, password, status, outcome, reason } of CASES) {
    test(`${outcome}: ${reason}`, async () => {
      const requestId = `login-record-${reason}`;
      const answer = await app.request("POST", LOGIN, {
        body: { username, password },
        headers: { "x-request-id": requestId, "user-agent": "Agent/7", "x-forwarded-for": "203.0.113.9" },
      });
      expect(answer.status).toBe(status);
      const where = { ip: "203.0.113.9", user_agent: "Agent/7", request_id: requestId };
      const userId = ids[username] ?? null;
      const sessionId = answer.body.session_id ?? null;

      const records = await app.db.query(
        "SELECT user_id, session_id, outcome, reason, ip, user_agent, request_id FROM login_records WHERE request_id = $1",
        [requestId],
      );
      expect(records).toEqual([{ user_id: userId, session_id: sessionId, outcome, reason, ...where }]);

      const events = await app.db.query(
        `SELECT action, outcome, actor_kind, actor_id, subject_kind, subject_id, ip, user_agent, request_id, details
         FROM audit_log WHERE request_id = $1`,
        [requestId],
      );
      const who = sessionId
        ? { actor_kind: "user", actor_id: userId, subject_kind: "session", subject_id: sessionId, details: {} }
        : {
            actor_kind: "anonymous",
            actor_id: null,
            subject_kind: userId ? "user" : null,
            subject_id: userId,
            details: { reason },
          };
      expect(events).toEqual([{ action: "login", outcome, ...who, ...where }]);
    });
  }

  // A session shows where it came from, and the account when it was last used.
  test("the session's row", async () => {
    const answer = await app.request("POST", LOGIN, {
      body: { username: "ada", password: PASSWORD, device_name: "Laptop" },
      headers: { "user-agent": "Agent/8", "x-forwarded-for": "203.0.113.10" },
    });
    const rows = await app.db.query(
      "SELECT user_id, client_id, device_name, user_agent, ip, revoked_at FROM sessions WHERE id = $1",
      [answer.body.session_id],
    );
    expect(rows).toEqual([
      {
        user_id: ids.ada,
        client_id: "primer",
        device_name: "Laptop",
        user_agent: "Agent/8",
        ip: "203.0.113.10",
        revoked_at: null,
      },
    ]);
    const [user] = await app.db.query<{ last_login_at: Date | string }>(
      "SELECT last_login_at FROM users WHERE id = $1",
      [ids.ada],
    );
    expect(new Date(user?.last_login_at ?? 0)).toEqual(app.clock.now());
  });
});

describe("a full hash pool", () => {
  let app: HttpApp;
  beforeAll(async () => {
    app = await openHttpApp();
    await app.createUser({ username: "ada" });
  });
  afterAll(() => app.close());

  /** A pool with one slot and one place in its queue, both taken until `free` is called. */
  function occupiedPool() {
    const settings = { ...app.deps.settings.password, hash_slots: 1, hash_queue: 1, hash_timeout: 60_000 };
    const pool = createHashPool(settings, app.clock);
    const { promise, resolve } = Promise.withResolvers<void>();
    const held = [pool.run(() => promise), pool.run(() => promise)];
    return { pool, held, free: resolve };
  }

  // Too many logins at once are turned away with a time to come back, and everything else goes on as ever.
  test("503 with Retry-After, while other requests are answered", async () => {
    const tokens = await app.login("ada");
    const before = await countRows(app);
    const { pool, held, free } = occupiedPool();
    const restore = replaceDeps(app.deps, { hashPool: pool });
    try {
      const answers = await Promise.all(
        Array.from({ length: 5 }, () => app.request("POST", LOGIN, { body: { username: "ada", password: PASSWORD } })),
      );
      for (const answer of answers) {
        expect({ status: answer.status, code: answer.body.error.code }).toEqual({
          status: 503,
          code: "SERVICE_UNAVAILABLE",
        });
        expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d?$/);
        expect(answer.text).not.toContain("queue");
      }
      expect((await app.request("GET", "/livez")).status).toBe(200);
      expect((await app.request("GET", "/api/v1/auth/verify", { token: tokens.access_token })).status).toBe(200);
      const refreshed = await app.request("POST", "/api/v1/auth/refresh", {
        body: { refresh_token: tokens.refresh_token },
      });
      expect(refreshed.status).toBe(200);
      expect(await countRows(app)).toEqual(before);
    } finally {
      restore();
      free();
      await Promise.all(held);
    }
    expect((await app.request("POST", LOGIN, { body: { username: "ada", password: PASSWORD } })).status).toBe(200);
  });

  // A login never waits longer than its deadline, and a hash whose turn comes after it is not begun any more.
  test("503 when its turn does not come in time", async () => {
    const settings = { ...app.deps.settings.password, hash_slots: 1, hash_queue: 1, hash_timeout: 100 };
    const pool = createHashPool(settings, app.clock);
    const { promise, resolve } = Promise.withResolvers<void>();
    const held = pool.run(() => promise).catch(() => "late");
    let begun = 0;
    const counting: typeof pool = {
      ...pool,
      run: (work) =>
        pool.run(() => {
          begun++;
          return work();
        }),
    };
    const restore = replaceDeps(app.deps, { hashPool: counting });
    try {
      const answer = await app.request("POST", LOGIN, { body: { username: "ada", password: PASSWORD } });
      expect({ status: answer.status, retry: answer.headers.get("retry-after") }).toEqual({ status: 503, retry: "2" });
    } finally {
      restore();
      resolve();
      await held;
    }
    // Once another one gets its turn, the late one was passed over: they stood in one queue.
    let next: string | undefined;
    while (next === undefined) {
      await Bun.sleep(1);
      next = await pool.run(async () => "next").catch(() => undefined);
    }
    expect(begun).toBe(0);
  });

  // A burst is served in turn where there is time for that, though more come than there are places at the slots.
  test("a burst over one slot and a short queue", async () => {
    const settings = { ...app.deps.settings.password, hash_slots: 1, hash_queue: 3, hash_timeout: 30_000 };
    const pool = createHashPool(settings, app.clock);
    const restore = replaceDeps(app.deps, { hashPool: pool });
    try {
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => app.request("POST", LOGIN, { body: { username: "ada", password: PASSWORD } })),
      );
      expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([200]));
    } finally {
      restore();
    }
  });
});
