import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openListeningApp } from "../support/http-app.ts";
import { countRows, play, type Scenario } from "../support/scenario.ts";

const MINE = "/api/v1/users/me/sessions";
const MISSING_ID = "019b76da-a800-7000-8000-000000000000";
const SECOND = 1000;
const DAY = 86_400 * SECOND;
const FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

type Tokens = Awaited<ReturnType<HttpApp["login"]>>;
interface Shown {
  readonly id: string;
  readonly current: boolean;
}

let app: HttpApp;
beforeAll(async () => {
  app = await openListeningApp({ PRIMER_SERVER__TRUSTED_PROXIES: "127.0.0.1" });
  await app.createUser({ username: "root", roles: ["admin"] });
});
afterAll(() => app.close());

let made = 0;
/** A user of its own for a test. */
const newUser = () => app.createUser({ username: `user-${++made}` });

const list = (tokens: Tokens, path = MINE) => app.request("GET", path, { token: tokens.access_token });
const idsOf = async (tokens: Tokens, path = MINE) =>
  ((await list(tokens, path)).body.data as Shown[]).map((session) => session.id);
const verify = async (tokens: Tokens) =>
  (await app.request("GET", "/api/v1/auth/verify", { token: tokens.access_token })).body.error?.code ?? "ok";
const refresh = async (tokens: Tokens) =>
  (await app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token: tokens.refresh_token } })).body.error
    ?.code ?? "ok";

async function expectEnded(...ended: Tokens[]): Promise<void> {
  for (const tokens of ended) {
    expect(await verify(tokens)).toBe("AUTH_TOKEN_REVOKED");
    expect((await list(tokens)).body.error.code).toBe("AUTH_TOKEN_REVOKED");
    expect(await refresh(tokens)).toBe("AUTH_TOKEN_REVOKED");
  }
}

/** An answer without what differs from request to request. */
function shape(answer: Awaited<ReturnType<HttpApp["request"]>>) {
  const { timestamp, request_id } = answer.body.error;
  return { status: answer.status, text: answer.text.replace(timestamp, "TIME").replace(request_id, "REQUEST") };
}

/** What the audit log has on the end of sessions, newest first. */
const revocations = (subjectId: string) =>
  app.db.query(
    "SELECT outcome, actor_kind, actor_id, subject_kind, details FROM audit_log WHERE action = 'session.revoked' AND subject_id = $1 ORDER BY id DESC",
    [subjectId],
  );

describe("GET /users/me/sessions", () => {
  // Everybody sees where they are logged in, in words, and nothing that could be used to log in.
  test("200 shows each session", async () => {
    const { username } = await newUser();
    const loginAt = app.clock.now();
    const { body: tokens } = await app.request("POST", "/api/v1/auth/login", {
      body: { username, password: PASSWORD, device_name: "Laptop" },
      headers: { "user-agent": FIREFOX, "x-forwarded-for": "203.0.113.9" },
    });
    app.clock.advance(60 * SECOND);
    const { body: refreshed } = await app.request("POST", "/api/v1/auth/refresh", {
      body: { refresh_token: tokens.refresh_token },
    });
    const answer = await list(refreshed);
    expect({ status: answer.status, body: answer.body }).toEqual({
      status: 200,
      body: {
        data: [
          {
            id: tokens.session_id,
            device_name: "Laptop",
            device: "Firefox 128 on Linux",
            ip: "203.0.113.9",
            created_at: loginAt.toISOString(),
            last_seen_at: app.clock.now().toISOString(),
            expires_at: new Date(loginAt.getTime() + 30 * DAY).toISOString(),
            current: true,
          },
        ],
        next_cursor: null,
      },
    });
    expect(answer.headers.get("cache-control")).toBe("no-store");
    for (const secret of [tokens.refresh_token, refreshed.refresh_token, refreshed.access_token])
      expect(answer.text).not.toContain(secret);
  });

  // Only what still counts is listed: nothing that was ended, ran out or was not used for too long, and nobody else's.
  test("only live sessions of one's own", async () => {
    const { username } = await newUser();
    const [ended, expired, idle] = [await app.login(username), await app.login(username), await app.login(username)];
    await app.login((await newUser()).username);
    const mine = await app.login(username);
    await app.request("POST", "/api/v1/auth/logout", { token: ended.access_token });
    await app.db.query("UPDATE sessions SET expires_at = $1 WHERE id = $2", [
      app.clock.now().toISOString(),
      expired.session_id,
    ]);
    await app.db.query("UPDATE refresh_families SET idle_expires_at = $1 WHERE session_id = $2", [
      app.clock.now().toISOString(),
      idle.session_id,
    ]);
    expect(await idsOf(mine)).toEqual([mine.session_id]);
  });

  // Pages follow each other without a gap or a double, newest first, also when what a cursor stands for is gone.
  test("pages", async () => {
    const { username } = await newUser();
    const made: Tokens[] = [];
    for (let count = 0; count < 5; count++) {
      made.push(await app.login(username));
      app.clock.advance(SECOND);
    }
    const mine = made[4] as Tokens;
    const expected = made.map((tokens) => tokens.session_id).reverse();
    const first = (await list(mine, `${MINE}?limit=2`)).body;
    expect(first.data.map((session: Shown) => [session.id, session.current])).toEqual([
      [expected[0], true],
      [expected[1], false],
    ]);
    await app.request("DELETE", `${MINE}/${expected[1]}`, { token: mine.access_token });
    const second = (await list(mine, `${MINE}?limit=2&cursor=${first.next_cursor}`)).body;
    const third = (await list(mine, `${MINE}?limit=2&cursor=${second.next_cursor}`)).body;
    expect([...second.data, ...third.data].map((session: Shown) => session.id)).toEqual(expected.slice(2));
    expect(third.next_cursor).toBeNull();
    expect(await idsOf(mine, `${MINE}?limit=200`)).toHaveLength(4);
  });

  test("50 where nobody says how many", async () => {
    const { username } = await newUser();
    const mine = await app.login(username);
    await app.db.query(
      `WITH made AS (
         INSERT INTO sessions (id, user_id, client_id, amr, auth_time, created_at, last_seen_at, expires_at)
         SELECT gen_random_uuid(), user_id, client_id, amr, auth_time, created_at, last_seen_at, expires_at
         FROM sessions, generate_series(1, 60) WHERE id = $1 RETURNING id)
       INSERT INTO refresh_families (id, session_id, generation, key_id, secret_hash, created_at, rotated_at, idle_expires_at)
       SELECT gen_random_uuid(), made.id, 1, key_id, secret_hash, created_at, rotated_at, idle_expires_at
       FROM made, refresh_families f WHERE f.session_id = $1`,
      [mine.session_id],
    );
    const { data, next_cursor } = (await list(mine)).body;
    expect(data).toHaveLength(50);
    const rest = await idsOf(mine, `${MINE}?cursor=${next_cursor}`);
    expect(new Set([...data.map((session: Shown) => session.id), ...rest]).size).toBe(61);
  });

  for (const query of ["limit=0", "limit=201", "limit=x", "limit=1.5", "limit=", "cursor=x", "cursor=", "after=x"]) {
    test(`422 ?${query}`, async () => {
      const { access_token } = await app.login("root");
      const scenario: Scenario = { name: query, token: access_token, status: 422, code: "VALIDATION_FAILED" };
      await play(app, scenario, { method: "GET", path: `${MINE}?${query}` });
    });
  }
});

describe("DELETE /users/me/sessions/{id}", () => {
  // The session is dead at once with all its tokens, the others live on, and it is on record who ended it.
  test("204", async () => {
    const { id, username } = await newUser();
    const [mine, other, third] = [await app.login(username), await app.login(username), await app.login(username)];
    expect(await verify(other)).toBe("ok");
    const path = `${MINE}/${other.session_id}`;
    await play(
      app,
      { name: "other", token: mine.access_token, status: 204, adds: { audit_log: 1 } },
      { method: "DELETE", path },
    );
    await expectEnded(other);
    expect([await verify(mine), await verify(third)]).toEqual(["ok", "ok"]);
    expect(await revocations(other.session_id)).toEqual([
      {
        outcome: "success",
        actor_kind: "user",
        actor_id: id,
        subject_kind: "session",
        details: { reason: "ended_by_user", sessions_ended: 1 },
      },
    ]);
  });

  test("204 the session that asks", async () => {
    const mine = await app.login((await newUser()).username);
    const answer = await app.request("DELETE", `${MINE}/${mine.session_id}`, { token: mine.access_token });
    expect(answer.status).toBe(204);
    await expectEnded(mine);
  });

  // Somebody else's session is like one that never was, and stays: ids of sessions tell nothing.
  test("404, equal for whatever is not one's own", async () => {
    const { username } = await newUser();
    const [mine, ended] = [await app.login(username), await app.login(username)];
    const others = await app.login((await newUser()).username);
    await app.request("POST", "/api/v1/auth/logout", { token: ended.access_token });
    const before = await countRows(app);
    const answers = [];
    for (const id of [MISSING_ID, others.session_id, ended.session_id, "x", "%00", others.session_id.toUpperCase()])
      answers.push(shape(await app.request("DELETE", `${MINE}/${id}`, { token: mine.access_token })));
    answers.push(shape(await app.request("GET", "/api/v1/there-is-nothing-here")));
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
    expect(answers[0]?.status).toBe(404);
    expect(await verify(others)).toBe("ok");
    expect(await countRows(app)).toEqual(before);
  });

  // Of twenty at once one ends it, and it is on record once.
  test("20 at the same moment", async () => {
    const { username } = await newUser();
    const [mine, other] = [await app.login(username), await app.login(username)];
    const answers = await Promise.all(
      Array.from({ length: 20 }, () =>
        app.request("DELETE", `${MINE}/${other.session_id}`, { token: mine.access_token }),
      ),
    );
    expect(answers.filter(({ status }) => status === 204)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 404)).toHaveLength(19);
    expect(await revocations(other.session_id)).toHaveLength(1);
  });
});

describe("DELETE /users/me/sessions", () => {
  // All but the one that asks end; nobody else's do; where there is none, nothing is recorded.
  test("204", async () => {
    const { id, username } = await newUser();
    const [mine, ...others] = [await app.login(username), await app.login(username), await app.login(username)];
    const bystander = await app.login((await newUser()).username);
    const fallback = { method: "DELETE", path: MINE };
    await play(app, { name: "all", token: mine.access_token, status: 204, adds: { audit_log: 1 } }, fallback);
    await expectEnded(...others);
    expect([await verify(mine), await verify(bystander)]).toEqual(["ok", "ok"]);
    expect(await idsOf(mine)).toEqual([mine.session_id]);
    expect(await revocations(id)).toMatchObject([
      { actor_id: id, subject_kind: "user", details: { sessions_ended: 2 } },
    ]);
    await play(app, { name: "again", token: mine.access_token, status: 204 }, fallback);
  });

  // Sessions that end each other at the same moment: nobody waits for ever, nothing fails, and at least one end is final.
  test("10 sessions, each ending the others", async () => {
    const { username } = await newUser();
    const all = await Promise.all(Array.from({ length: 10 }, () => app.login(username)));
    const answers = await Promise.all(all.map((tokens) => app.request("DELETE", MINE, { token: tokens.access_token })));
    for (const { status } of answers) expect([204, 401]).toContain(status);
    const states = await Promise.all(all.map(verify));
    expect(states.filter((state) => state === "ok").length).toBeLessThanOrEqual(1);
  });
});

describe("/users/{id}/sessions", () => {
  // An administrator sees and ends the sessions of anybody, and the log says who did.
  test("GET 200, DELETE 204", async () => {
    const { id, username } = await newUser();
    const sessions = [await app.login(username), await app.login(username)];
    const root = await app.login("root");
    const bystander = await app.login((await newUser()).username);
    const path = `/api/v1/users/${id}/sessions`;
    expect((await idsOf(root, path)).sort()).toEqual(sessions.map((tokens) => tokens.session_id).sort());
    expect((await list(root, path)).body.data.map((session: Shown) => session.current)).toEqual([false, false]);
    await play(
      app,
      { name: "all of a user", token: root.access_token, status: 204, adds: { audit_log: 1 } },
      { method: "DELETE", path },
    );
    await expectEnded(...sessions);
    expect([await verify(root), await verify(bystander)]).toEqual(["ok", "ok"]);
    expect(await idsOf(root, path)).toEqual([]);
    expect(await revocations(id)).toMatchObject([
      { actor_kind: "user", subject_kind: "user", details: { reason: "ended_by_administrator", sessions_ended: 2 } },
    ]);
    const again: Scenario = { name: "none is left", token: root.access_token, status: 204 };
    await play(app, again, { method: "DELETE", path });
  });

  // Who lacks the permission is told which, and not whether there is such a user; even for sessions of one's own.
  for (const [method, permission] of [
    ["GET", "sessions:read"],
    ["DELETE", "sessions:revoke"],
  ] as const) {
    test(`403 ${method}`, async () => {
      const { id, username } = await newUser();
      const mine = await app.login(username);
      for (const userId of [id, MISSING_ID, "x"]) {
        const answer = await app.request(method, `/api/v1/users/${userId}/sessions`, { token: mine.access_token });
        expect({ status: answer.status, error: answer.body.error }).toMatchObject({
          status: 403,
          error: { code: "FORBIDDEN", details: { permission } },
        });
      }
      expect(await verify(mine)).toBe("ok");
    });

    test(`404 ${method}, equal to any`, async () => {
      const root = await app.login("root");
      const nothing = shape(await app.request("GET", "/api/v1/there-is-nothing-here"));
      for (const userId of [MISSING_ID, "x", "root", "%00"]) {
        const answer = await app.request(method, `/api/v1/users/${userId}/sessions`, { token: root.access_token });
        expect(shape(answer)).toEqual(nothing);
      }
    });
  }

  // A permission is read at each request: whoever lost the role may nothing more, whatever the token says.
  test("403 at once after the role is gone", async () => {
    const { id, username } = await app.createUser({ username: `user-${++made}`, roles: ["admin"] });
    const mine = await app.login(username);
    const path = `/api/v1/users/${id}/sessions`;
    expect((await list(mine, path)).status).toBe(200);
    await app.db.change((tx) => tx.execute(`DELETE FROM user_roles WHERE user_id = '${id}'`));
    expect((await list(mine, path)).body.error.code).toBe("FORBIDDEN");
    expect(await verify(mine)).toBe("ok");
  });
});
