import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Elysia } from "elysia";
import { decodeJwt } from "jose";
import { createApp } from "../../../server/app.ts";
import { setPassword } from "../../../server/features/users/service.ts";
import { access } from "../../../server/http/access.ts";
import { systemClock } from "../../../server/ports/clock.ts";
import { PASSWORD, requestsTo } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { replaceDeps } from "../support/observe.ts";
import { countRows, play, type Scenario, setStatus, storedHash, storeHash } from "../support/scenario.ts";

const STEP_UP = { method: "POST", path: "/api/v1/auth/step-up" };
const WRONG = "not the right horse battery staple";
const SECOND = 1000;
const MAX_AGE = 300;
const OPERATOR = { actor: { kind: "operator" } } as const;

let app: HttpApp;
let ada: string;
/** Requests to the same application with routes that ask for a fresh proof. */
let testOnly: HttpApp["request"];
beforeAll(async () => {
  app = await openHttpApp();
  ada = (await app.createUser({ username: "ada" })).id;
  await app.createUser({ username: "bob" });
  await app.createUser({ username: "root", roles: ["admin"] });
  const routes = new Elysia({ prefix: "/test-only" })
    .use(access(app.deps))
    .get("/fresh", ({ principal }) => ({ id: principal.id }), { access: { stepUp: true } })
    .get("/fresh-admin", () => "ok", { access: { permission: "keys:rotate", stepUp: true } });
  testOnly = requestsTo(createApp(app.deps).use(routes));
});
afterAll(() => app.close());

const stepUp = (token: string, password = PASSWORD) => app.request("POST", STEP_UP.path, { token, body: { password } });
const fresh = async (token: string, path = "/test-only/fresh") => {
  const { status, body } = await testOnly("GET", path, { token });
  return status === 200 ? "ok" : `${status} ${body.error.code}`;
};
const refresh = (token: string) => app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token: token } });
const verify = async (token: string) =>
  (await app.request("GET", "/api/v1/auth/verify", { token })).body.error?.code ?? "ok";
const epochSeconds = () => Math.floor(app.clock.now().getTime() / 1000);

describe("a route that asks for a fresh proof", () => {
  // Up to sessions.step_up_age after the password was given, and not a second longer.
  test("by the age of the token's auth_time", async () => {
    const { access_token } = await app.login("ada");
    app.clock.advance(MAX_AGE * SECOND);
    expect(await fresh(access_token)).toBe("ok");
    app.clock.advance(SECOND);
    const answer = await testOnly("GET", "/test-only/fresh", { token: access_token });
    expect({ status: answer.status, error: answer.body.error }).toMatchObject({
      status: 403,
      error: { code: "AUTH_STEP_UP_REQUIRED", details: { max_age: MAX_AGE } },
    });
    expect(await verify(access_token)).toBe("ok");
  });

  // A token that was stolen earlier gains nothing when its owner steps up: its own auth_time decides, not the session's.
  test("a token from before the step-up stays stale", async () => {
    const { access_token: stolen } = await app.login("ada");
    app.clock.advance((MAX_AGE + 1) * SECOND);
    const { body } = await stepUp(stolen);
    expect(await fresh(body.access_token)).toBe("ok");
    expect(await fresh(stolen)).toBe("403 AUTH_STEP_UP_REQUIRED");
  });

  // A refresh is no proof of who is there: it never renews auth_time, and keeps the one that a step-up made.
  test("refreshes keep auth_time as it is", async () => {
    const tokens = await app.login("ada");
    const provenAt = epochSeconds();
    app.clock.advance((MAX_AGE + 1) * SECOND);
    const stale = (await refresh(tokens.refresh_token)).body;
    expect(decodeJwt(stale.access_token).auth_time).toBe(provenAt);
    expect(await fresh(stale.access_token)).toBe("403 AUTH_STEP_UP_REQUIRED");

    expect((await stepUp(stale.access_token)).status).toBe(200);
    const provenAgainAt = epochSeconds();
    app.clock.advance(60 * SECOND);
    const kept = (await refresh(stale.refresh_token)).body;
    expect(decodeJwt(kept.access_token).auth_time).toBe(provenAgainAt);
    expect(await fresh(kept.access_token)).toBe("ok");
  });

  // Both can be asked for at once; who lacks the permission is not sent to prove anything.
  test("beside a permission", async () => {
    const [mine, admins] = [await app.login("ada"), await app.login("root")];
    expect(await fresh(admins.access_token, "/test-only/fresh-admin")).toBe("ok");
    app.clock.advance((MAX_AGE + 1) * SECOND);
    expect(await fresh(mine.access_token, "/test-only/fresh-admin")).toBe("403 FORBIDDEN");
    expect(await fresh(admins.access_token, "/test-only/fresh-admin")).toBe("403 AUTH_STEP_UP_REQUIRED");
    expect((await testOnly("GET", "/test-only/fresh")).body.error.code).toBe("AUTH_TOKEN_MISSING");
  });
});

describe("POST /auth/step-up", () => {
  // A new token with a new id and a fresh auth_time, of the same session; the refresh token stays good and is not shown.
  test("200", async () => {
    const tokens = await app.login("ada");
    app.clock.advance(60 * SECOND);
    const scenario: Scenario = {
      name: "right password",
      token: tokens.access_token,
      body: { password: PASSWORD },
      status: 200,
      adds: { audit_log: 1 },
      notInAnswer: [tokens.refresh_token, tokens.access_token, PASSWORD],
    };
    const answer = await play(app, scenario, STEP_UP);
    expect(answer.body).toEqual({ access_token: expect.any(String), token_type: "bearer", expires_in: 900 });
    expect(answer.headers.get("cache-control")).toBe("no-store");
    const [was, is] = [decodeJwt(tokens.access_token), decodeJwt(answer.body.access_token)];
    expect({ sid: is.sid, auth_time: is.auth_time, amr: is.amr }).toEqual({
      sid: was.sid,
      auth_time: epochSeconds(),
      amr: ["pwd"],
    });
    expect(is.jti).not.toBe(was.jti);
    expect((await refresh(tokens.refresh_token)).status).toBe(200);
    const [event] = await app.db.query(
      "SELECT action, outcome, actor_id, subject_kind, subject_id FROM audit_log WHERE action = 'session.stepped_up' ORDER BY id DESC LIMIT 1",
    );
    expect(event).toEqual({
      action: "session.stepped_up",
      outcome: "success",
      actor_id: ada,
      subject_kind: "session",
      subject_id: tokens.session_id,
    });
  });

  // Nothing that a caller brings along becomes the session: every login makes new ids (session fixation).
  test("a planted session, cookie or token is not taken over by a login", async () => {
    const planted = await app.login("bob");
    const answer = await app.request("POST", "/api/v1/auth/login", {
      body: { username: "ada", password: PASSWORD },
      token: planted.access_token,
      headers: { cookie: `__Host-primer_refresh=${planted.refresh_token}; session_id=${planted.session_id}` },
    });
    expect(answer.status).toBe(200);
    expect(answer.body.session_id).not.toBe(planted.session_id);
    expect(decodeJwt(answer.body.access_token).sub).toBe(ada);
  });

  const FAULTS: readonly (Scenario & { readonly bare?: true })[] = [
    { name: "no body", status: 422, code: "VALIDATION_FAILED" },
    { name: "no password", body: {}, status: 422, code: "VALIDATION_FAILED" },
    { name: "an empty password", body: { password: "" }, status: 422, code: "VALIDATION_FAILED" },
    { name: "too long a password", body: { password: "a".repeat(1025) }, status: 422, code: "VALIDATION_FAILED" },
    { name: "too many bytes", body: { password: "\u{1f40e}".repeat(300) }, status: 422, code: "VALIDATION_FAILED" },
    {
      name: "one field too many",
      body: { password: PASSWORD, username: "root" },
      status: 422,
      code: "VALIDATION_FAILED",
    },
    { name: "no JSON", body: "{", status: 400, code: "BAD_REQUEST" },
    { name: "too large a body", body: { password: "a".repeat(70_000) }, status: 413, code: "PAYLOAD_TOO_LARGE" },
    {
      name: "no token, right password",
      bare: true,
      body: { password: PASSWORD },
      status: 401,
      code: "AUTH_TOKEN_MISSING",
    },
    { name: "no token, no body", bare: true, status: 401, code: "AUTH_TOKEN_MISSING" },
    { name: "no token of ours", token: "a.b.c", body: { password: PASSWORD }, status: 401, code: "AUTH_TOKEN_INVALID" },
  ];

  // What is malformed is no attempt: nothing is computed or recorded, and strangers are told nothing of what is expected.
  for (const { bare, ...scenario } of FAULTS) {
    test(`${scenario.status} ${scenario.name}`, async () => {
      const { access_token } = await app.login("ada");
      await play(app, { ...(bare ? {} : { token: access_token }), ...scenario }, STEP_UP);
    });
  }

  // A wrong password is refused and on record although the request fails, and the session is as it was.
  test("401 for a wrong password", async () => {
    const tokens = await app.login("ada");
    app.clock.advance((MAX_AGE + 1) * SECOND);
    const scenario: Scenario = {
      name: "wrong password",
      token: tokens.access_token,
      body: { password: WRONG },
      headers: { "x-request-id": "wrong-step-up" },
      status: 401,
      code: "AUTH_INVALID_CREDENTIALS",
      adds: { login_records: 1, audit_log: 1 },
      notInAnswer: [WRONG],
    };
    await play(app, scenario, STEP_UP);
    expect(
      await app.db.query(
        "SELECT user_id, session_id, outcome, reason FROM login_records WHERE request_id = 'wrong-step-up'",
      ),
    ).toEqual([{ user_id: ada, session_id: tokens.session_id, outcome: "failure", reason: "wrong_password" }]);
    expect(
      await app.db.query(
        "SELECT action, outcome, actor_id, subject_id, details FROM audit_log WHERE request_id = 'wrong-step-up'",
      ),
    ).toEqual([
      {
        action: "session.stepped_up",
        outcome: "failure",
        actor_id: ada,
        subject_id: tokens.session_id,
        details: { reason: "wrong_password" },
      },
    ]);
    expect(await verify(tokens.access_token)).toBe("ok");
    expect(await fresh((await refresh(tokens.refresh_token)).body.access_token)).toBe("403 AUTH_STEP_UP_REQUIRED");
  });

  // Another account's password proves nothing, and an account without one is like a wrong password.
  test("401 with somebody else's password, or where there is none", async () => {
    const { id } = await app.createUser({ username: "cleo", password: "another horse battery staple" });
    const { access_token } = await app.login("cleo", "another horse battery staple");
    expect((await stepUp(access_token)).body.error.code).toBe("AUTH_INVALID_CREDENTIALS");
    await app.db.query("DELETE FROM credentials WHERE user_id = $1", [id]);
    expect((await stepUp(access_token, "another horse battery staple")).body.error.code).toBe(
      "AUTH_INVALID_CREDENTIALS",
    );
  });

  // A refusal takes no less time than at login, so that its time tells nothing.
  test("a refusal is answered no sooner than the floor", async () => {
    const floor = 300;
    const { access_token } = await app.login("ada");
    const password = { ...app.deps.settings.password, failure_floor: floor };
    const clock = { ...systemClock, now: app.clock.now };
    const restore = replaceDeps(app.deps, { settings: { ...app.deps.settings, password }, clock });
    try {
      const began = performance.now();
      expect((await stepUp(access_token, WRONG)).status).toBe(401);
      expect(performance.now() - began).toBeGreaterThanOrEqual(floor - 1);
    } finally {
      restore();
    }
  });

  // A hash that is not as new ones are is replaced at the right password, and left at a wrong one.
  test("rehashes as a login does", async () => {
    const { id } = await app.createUser({ username: "hans" });
    const { access_token } = await app.login("hans");
    const old = await Bun.password.hash(PASSWORD, { algorithm: "bcrypt", cost: 4 });
    await storeHash(app, id, old);
    expect((await stepUp(access_token, WRONG)).status).toBe(401);
    expect(await storedHash(app, id)).toBe(old);
    expect((await stepUp(access_token)).status).toBe(200);
    expect(await storedHash(app, id)).toMatch(/^\$argon2id\$/);
    expect((await stepUp(access_token)).status).toBe(200);
  });
});

/** Runs `meanwhile` when a step-up has found the password right, and has not yet written anything. */
async function duringStepUp(token: string, meanwhile: () => Promise<unknown>) {
  const { hashPool } = app.deps;
  const restore = replaceDeps(app.deps, {
    hashPool: {
      ...hashPool,
      async run(work) {
        const result = await hashPool.run(work);
        restore();
        await meanwhile();
        return result;
      },
    },
  });
  return stepUp(token);
}

describe("what happens during a step-up", () => {
  const MEANWHILE: readonly {
    name: string;
    code: string;
    act: (tokens: { access_token: string }, id: string) => Promise<unknown>;
  }[] = [
    {
      name: "a logout",
      code: "AUTH_TOKEN_REVOKED",
      act: (tokens) => app.request("POST", "/api/v1/auth/logout", { token: tokens.access_token }),
    },
    {
      name: "the end of the session's time",
      code: "AUTH_TOKEN_REVOKED",
      act: async (tokens) =>
        app.db.query("UPDATE sessions SET expires_at = $1 WHERE id = $2", [
          app.clock.now().toISOString(),
          decodeJwt(tokens.access_token).sid,
        ]),
    },
    {
      name: "a new password",
      code: "AUTH_INVALID_CREDENTIALS",
      act: (_, id) => {
        app.clock.advance(SECOND);
        return setPassword(app.deps, id, "a new horse battery staple", OPERATOR);
      },
    },
    { name: "the account disabled", code: "AUTH_INVALID_CREDENTIALS", act: (_, id) => setStatus(app, id, "disabled") },
  ];

  // Whatever ends a session or an account wins over a step-up in flight: no token, and no trace of a success.
  for (const { name, code, act } of MEANWHILE) {
    test(`${name} wins`, async () => {
      const username = `user-${MEANWHILE.findIndex((entry) => entry.name === name)}`;
      const { id } = await app.createUser({ username });
      const tokens = await app.login(username);
      const answer = await duringStepUp(tokens.access_token, () => act(tokens, id));
      expect({ status: answer.status, code: answer.body.error.code }).toEqual({ status: 401, code });
      const stepped = await app.db.query(
        "SELECT id FROM audit_log WHERE action = 'session.stepped_up' AND outcome = 'success' AND subject_id = $1",
        [tokens.session_id],
      );
      expect(stepped).toEqual([]);
    });
  }

  // A fault of ours is no wrong guess: whoever gave the right password is slowed down by none.
  for (const [method, path, body] of [
    ["POST", STEP_UP.path, { password: PASSWORD }],
    ["PATCH", "/api/v1/users/me/password", { current_password: PASSWORD, new_password: "a new horse battery staple" }],
    ["PUT", "/api/v1/users/me", { current_password: PASSWORD, email: "new@example.test" }],
  ] as const) {
    test(`${method} ${path}: what fails after the right password is not counted`, async () => {
      const { access_token: token, session_id } = await app.login("ada");
      const change = () => Promise.reject(new Error("The disk is full"));
      const restore = replaceDeps(app.deps, { db: { ...app.deps.db, change } });
      const answers = await Promise.all([1, 2].map(() => app.request(method, path, { token, body })));
      restore();
      expect(answers.map(({ status }) => status)).toEqual([500, 500]);
      const counted = await app.db.query("SELECT failures FROM failure_counters WHERE subject = $1", [
        `user:${ada}:session:${session_id}`,
      ]);
      expect(counted).toEqual([{ failures: 0 }]);
    });
  }

  // A user name that somebody else has is no wrong guess either.
  test("PUT /api/v1/users/me: a conflict after the right password is not counted", async () => {
    const { access_token: token, session_id } = await app.login("ada");
    const body = { current_password: PASSWORD, email: "new@example.test", username: "bob" };
    expect((await app.request("PUT", "/api/v1/users/me", { token, body })).status).toBe(409);
    const subject = `user:${ada}:session:${session_id}`;
    const counted = await app.db.query("SELECT failures FROM failure_counters WHERE subject = $1", [subject]);
    expect(counted).toEqual([{ failures: 0 }]);
  });

  // In whatever order they come, after a logout no token of the session is good.
  test("5 step-ups and a logout at the same moment, 5 times", async () => {
    for (let round = 0; round < 5; round++) {
      const { access_token } = await app.login("ada");
      const [, ...answers] = await Promise.all([
        app.request("POST", "/api/v1/auth/logout", { token: access_token }),
        ...Array.from({ length: 5 }, () => stepUp(access_token)),
      ]);
      for (const { status, body } of answers) {
        if (status === 200) expect(await verify(body.access_token)).toBe("AUTH_TOKEN_REVOKED");
        else expect(body.error.code).toBe("AUTH_TOKEN_REVOKED");
      }
    }
  });

  // Where no hash can be computed nothing is said about the password, and nothing is recorded.
  test("503 while the hash pool is full", async () => {
    const { access_token } = await app.login("ada");
    const before = await countRows(app);
    const { promise, resolve } = Promise.withResolvers<void>();
    const { createHashPool } = await import("../../../server/features/passwords/hash-pool.ts");
    const pool = createHashPool({ ...app.deps.settings.password, hash_slots: 1, hash_queue: 1 }, app.clock);
    const held = [pool.run(() => promise), pool.run(() => promise)];
    const restore = replaceDeps(app.deps, { hashPool: pool });
    try {
      expect((await stepUp(access_token)).body.error.code).toBe("SERVICE_UNAVAILABLE");
      expect(await countRows(app)).toEqual(before);
    } finally {
      restore();
      resolve();
      await Promise.all(held);
    }
  });
});
