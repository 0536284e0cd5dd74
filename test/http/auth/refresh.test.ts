import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { decodeJwt } from "jose";
import { changeUser, setPassword, setRoles } from "../../../server/features/users/service.ts";
import { PASSWORD, type TestAnswer } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { countRows, play, type Scenario } from "../support/scenario.ts";

const PATH = "/api/v1/auth/refresh";
const OPERATOR = { actor: { kind: "operator" } } as const;
const SECOND = 1000;
const DAY = 86_400 * SECOND;

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
  await app.createUser({ username: "ada" });
  await app.createUser({ username: "root", roles: ["admin"] });
});
afterAll(() => app.close());

const refreshWith = (token: string, on: HttpApp = app) => on.request("POST", PATH, { body: { refresh_token: token } });
const verifyWith = (token: string, on: HttpApp = app) => on.request("GET", "/api/v1/auth/verify", { token });
const outcomeOf = ({ status, body }: TestAnswer) => `${status} ${body?.error?.code ?? "ok"}`;

interface FamilyRow extends Record<string, unknown> {
  readonly generation: number;
  /** Times in milliseconds since 1970: the two databases hand over timestamps in different forms. */
  readonly revoked_at: number | null;
  readonly session_revoked_at: number | null;
  readonly reason: string | null;
  readonly expires_at: number;
}

const epoch = (column: string) => `(extract(epoch FROM ${column}) * 1000)::float8`;

async function familyOf(sessionId: string, on: HttpApp = app): Promise<FamilyRow> {
  const [row] = await on.db.query<FamilyRow>(
    `SELECT f.generation, ${epoch("f.revoked_at")} AS revoked_at, ${epoch("s.revoked_at")} AS session_revoked_at,
       s.revoked_reason AS reason, ${epoch("s.expires_at")} AS expires_at
     FROM refresh_families f JOIN sessions s ON s.id = f.session_id WHERE s.id = $1`,
    [sessionId],
  );
  if (!row) throw new Error("No such session");
  return row;
}

describe("POST /auth/refresh", () => {
  // Each use of a refresh token gives the next one of the same session, and nothing else is written than that.
  test("200 rotates", async () => {
    const first = await app.login("ada");
    const before = await countRows(app);
    app.clock.advance(60 * SECOND);
    const answer = await refreshWith(first.refresh_token);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("cache-control")).toBe("no-store");
    expect(answer.text).not.toContain(first.refresh_token);
    expect(answer.body).toMatchObject({
      token_type: "bearer",
      expires_in: 900,
      refresh_expires_in: 86_400,
      session_id: first.session_id,
    });
    expect(await countRows(app)).toEqual(before);
    expect((await familyOf(first.session_id)).generation).toBe(2);

    const [was, is] = [decodeJwt(first.access_token), decodeJwt(answer.body.access_token)];
    expect(is.jti).not.toBe(was.jti);
    expect(is.auth_time).toBe(was.auth_time);
    expect(is.iat).toBe((was.iat ?? 0) + 60);
    expect((await verifyWith(answer.body.access_token)).status).toBe(200);
    expect((await verifyWith(first.access_token)).status).toBe(200);
  });

  // However often it is refreshed, a session ends when it was going to end.
  test("30 rotations leave the absolute end where it was", async () => {
    const first = await app.login("ada");
    const end = (await familyOf(first.session_id)).expires_at;
    let token = first.refresh_token;
    for (let index = 0; index < 30; index++) {
      app.clock.advance(60 * SECOND);
      const answer = await refreshWith(token);
      expect(answer.status).toBe(200);
      token = answer.body.refresh_token;
    }
    expect(await familyOf(first.session_id)).toMatchObject({ expires_at: end, generation: 31 });
  });

  // Twenty uses of one token at the same moment still make one line of tokens: one successor, never a fork.
  test("20 parallel uses give one lineage", async () => {
    const { refresh_token, session_id } = await app.login("ada");
    const answers = await Promise.all(Array.from({ length: 20 }, () => refreshWith(refresh_token)));
    expect(answers.map(outcomeOf)).toEqual(Array.from({ length: 20 }, () => "200 ok"));
    expect(await familyOf(session_id)).toMatchObject({ generation: 2, revoked_at: null, session_revoked_at: null });

    const [one, other] = [answers[0]?.body.refresh_token, answers[19]?.body.refresh_token];
    expect((await refreshWith(one)).status).toBe(200);
    expect((await familyOf(session_id)).generation).toBe(3);
    expect((await refreshWith(other)).status).toBe(200);
    expect((await familyOf(session_id)).generation).toBe(3);
  });

  // An app whose answer got lost asks again within ten seconds and gets the session's current tokens; nothing moves on.
  test("a repeat within the grace answers the current tokens", async () => {
    const first = await app.login("ada");
    const second = await refreshWith(first.refresh_token);
    app.clock.advance(9 * SECOND);
    const repeat = await refreshWith(first.refresh_token);
    expect(repeat.status).toBe(200);
    expect(await familyOf(first.session_id)).toMatchObject({ generation: 2, revoked_at: null });
    for (const token of [repeat.body.refresh_token, second.body.refresh_token]) {
      expect((await refreshWith(token)).status).toBe(200);
      expect((await familyOf(first.session_id)).generation).toBe(3);
    }
  });

  const REUSES: Readonly<Record<string, (first: string) => Promise<void>>> = {
    "at the end of the grace": async (first) => {
      expect((await refreshWith(first)).status).toBe(200);
      app.clock.advance(10 * SECOND);
    },
    "of a token two generations old, within the grace": async (first) => {
      const second = await refreshWith(first);
      expect((await refreshWith(second.body.refresh_token)).status).toBe(200);
    },
    "after the idle time": async (first) => {
      expect((await refreshWith(first)).status).toBe(200);
      app.clock.advance(2 * DAY);
    },
  };

  // A used token that turns up again was copied: the session ends for thief and owner alike, and stays ended although
  // the request itself fails.
  for (const [name, prepare] of Object.entries(REUSES)) {
    test(`reuse ${name} ends the session`, async () => {
      const first = await app.login("ada");
      await prepare(first.refresh_token);
      const before = await countRows(app);
      const answer = await refreshWith(first.refresh_token);
      expect(outcomeOf(answer)).toBe("401 AUTH_REFRESH_REUSED");
      expect(answer.text).not.toContain("refresh_token");
      expect(answer.headers.get("www-authenticate")).toMatch(/^Bearer/);
      expect(await familyOf(first.session_id)).toMatchObject({
        revoked_at: app.clock.now().getTime(),
        session_revoked_at: app.clock.now().getTime(),
        reason: "refresh_reused",
      });
      expect(await countRows(app)).toEqual({ ...before, audit_log: before.audit_log + 1 });
      const [event] = await app.db.query(
        "SELECT action, outcome, subject_id FROM audit_log WHERE action = 'refresh.reused' ORDER BY id DESC LIMIT 1",
      );
      expect(event).toEqual({ action: "refresh.reused", outcome: "failure", subject_id: first.session_id });
    });
  }

  // After a reuse nothing of the session works, and the used token goes on being told that it was used.
  test("after a reuse every token of the session is dead", async () => {
    const first = await app.login("ada");
    const second = await refreshWith(first.refresh_token);
    app.clock.advance(11 * SECOND);
    const outcomes = [
      await refreshWith(first.refresh_token),
      await refreshWith(second.body.refresh_token),
      await refreshWith(first.refresh_token),
      await verifyWith(second.body.access_token),
    ].map(outcomeOf);
    expect(outcomes).toEqual([
      "401 AUTH_REFRESH_REUSED",
      "401 AUTH_TOKEN_REVOKED",
      "401 AUTH_REFRESH_REUSED",
      "401 AUTH_TOKEN_REVOKED",
    ]);
  });

  // A reuse ends its own session and no other of the same person.
  test("a reuse leaves other sessions alone", async () => {
    const [stolen, other] = [await app.login("ada"), await app.login("ada")];
    await refreshWith(stolen.refresh_token);
    app.clock.advance(11 * SECOND);
    expect((await refreshWith(stolen.refresh_token)).status).toBe(401);
    expect((await refreshWith(other.refresh_token)).status).toBe(200);
  });

  // Limits are checked when a token is read: idle after a day, for good after thirty, however active.
  test("idle for a day", async () => {
    const [soon, late] = [await app.login("ada"), await app.login("ada")];
    app.clock.advance(DAY - SECOND);
    expect((await refreshWith(soon.refresh_token)).status).toBe(200);
    app.clock.advance(SECOND);
    expect(outcomeOf(await refreshWith(late.refresh_token))).toBe("401 AUTH_TOKEN_EXPIRED");
    expect(await familyOf(late.session_id)).toMatchObject({ generation: 1, revoked_at: null });
  });

  test("thirty days, refreshed every 23 hours", async () => {
    const hours = (count: number) => count * 3600 * SECOND;
    const first = await app.login("ada");
    let answer = await refreshWith(first.refresh_token);
    for (let elapsed = 23; elapsed < 720; elapsed += 23) {
      app.clock.advance(hours(23));
      answer = await refreshWith(answer.body.refresh_token);
      expect(answer.status).toBe(200);
    }
    expect(answer.body.refresh_expires_in).toBe(7 * 3600);
    app.clock.advance(hours(7));
    expect(outcomeOf(await refreshWith(answer.body.refresh_token))).toBe("401 AUTH_TOKEN_EXPIRED");
    expect(outcomeOf(await verifyWith(answer.body.access_token))).toMatch(/^401 AUTH_TOKEN_(EXPIRED|REVOKED)$/);
  });

  // Each refresh asks anew who the user is and what they may do.
  test("claims are read again: a new role shows", async () => {
    const user = await app.createUser({ username: "rolf" });
    const first = await app.login("rolf");
    expect(decodeJwt(first.access_token)).toMatchObject({ roles: ["user"], scope: "" });
    await setRoles(app.deps, user.id, { roles: ["admin", "user"] }, OPERATOR);
    const second = await refreshWith(first.refresh_token);
    expect(decodeJwt(second.body.access_token)).toMatchObject({ roles: ["admin", "user"], scope: "*:*" });
    await setRoles(app.deps, user.id, { roles: ["user"] }, OPERATOR);
    const third = await refreshWith(second.body.refresh_token);
    expect(decodeJwt(third.body.access_token)).toMatchObject({ roles: ["user"], scope: "" });
  });

  const ENDINGS: Readonly<Record<string, (user: { id: string }, sessionId: string) => Promise<unknown>>> = {
    "the user is disabled": (user) => changeUser(app.deps, user.id, { status: "disabled" }, OPERATOR),
    "the user's status is changed in the database": (user) =>
      app.db.query("UPDATE users SET status = 'disabled' WHERE id = $1", [user.id]),
    "the password is set anew": (user) => setPassword(app.deps, user.id, `${PASSWORD} anew`, OPERATOR),
    "the session is revoked in the database": (_user, sessionId) =>
      app.db.query("UPDATE sessions SET revoked_at = $1 WHERE id = $2", [app.clock.now().toISOString(), sessionId]),
  };

  // Whatever ends a session ends its refresh tokens and its access tokens at once.
  for (const [name, end] of Object.entries(ENDINGS)) {
    test(`401 once ${name}`, async () => {
      const user = await app.createUser({ username: `gone-${Object.keys(ENDINGS).indexOf(name)}` });
      const tokens = await app.login(user.username);
      await end(user, tokens.session_id);
      expect(outcomeOf(await refreshWith(tokens.refresh_token))).toBe("401 AUTH_TOKEN_REVOKED");
      expect(outcomeOf(await verifyWith(tokens.access_token))).toBe("401 AUTH_TOKEN_REVOKED");
      expect((await familyOf(tokens.session_id)).generation).toBe(1);
    });
  }

  // The row decides: a token that opens but whose row is gone is worth nothing.
  test("401 when the row is gone", async () => {
    const tokens = await app.login("ada");
    await app.db.query("DELETE FROM refresh_families WHERE session_id = $1", [tokens.session_id]);
    expect(outcomeOf(await refreshWith(tokens.refresh_token))).toBe("401 AUTH_TOKEN_INVALID");
  });

  const SCENARIOS: readonly Scenario[] = [
    { name: "no body", status: 401, code: "AUTH_TOKEN_MISSING" },
    { name: "no token", body: {}, status: 422, code: "VALIDATION_FAILED" },
    { name: "an empty token", body: { refresh_token: "" }, status: 422, code: "VALIDATION_FAILED" },
    { name: "a number", body: { refresh_token: 1 }, status: 422, code: "VALIDATION_FAILED" },
    { name: "a list", body: { refresh_token: ["a"] }, status: 422, code: "VALIDATION_FAILED" },
    { name: "5000 characters", body: { refresh_token: "a".repeat(5000) }, status: 401, code: "AUTH_TOKEN_INVALID" },
    { name: "60,000 characters", body: { refresh_token: "a".repeat(60_000) }, status: 401, code: "AUTH_TOKEN_INVALID" },
    {
      name: "a known and an unknown property",
      body: { refresh_token: "a", sub: "b" },
      status: 422,
      code: "VALIDATION_FAILED",
    },
    { name: "some text", body: { refresh_token: "what-is-this" }, status: 401, code: "AUTH_TOKEN_INVALID" },
    { name: "NUL", body: { refresh_token: "a\u0000.b.c.d.e" }, status: 401, code: "AUTH_TOKEN_INVALID" },
    { name: "no JSON", body: "refresh_token=a", status: 400, code: "BAD_REQUEST" },
    {
      name: "a form",
      body: "refresh_token=a",
      headers: { "content-type": "application/x-www-form-urlencoded" },
      status: 415,
      code: "UNSUPPORTED_MEDIA_TYPE",
    },
    {
      name: "a body over the limit",
      body: { refresh_token: "a".repeat(70_000) },
      status: 413,
      code: "PAYLOAD_TOO_LARGE",
    },
  ];

  // What is no refresh token of ours is refused and leaves nothing behind.
  for (const scenario of SCENARIOS) {
    test(`${scenario.status} ${scenario.name}`, async () => {
      const notInAnswer = ["access_token", "what-is-this"];
      await play(app, { ...scenario, notInAnswer }, { method: "POST", path: PATH });
    });
  }
});

describe("races", () => {
  // Revoking a session always wins over a refresh in flight, and neither of the two ever fails for the other.
  test("logout and refresh at the same moment", async () => {
    for (let round = 0; round < 12; round++) {
      const tokens = await app.login("ada");
      const [refreshed, left] = await Promise.all([
        refreshWith(tokens.refresh_token),
        app.request("POST", "/api/v1/auth/logout", { token: tokens.access_token }),
        refreshWith(tokens.refresh_token),
      ]);
      expect(left.status).toBe(204);
      expect(outcomeOf(refreshed)).toMatch(/^(200 ok|401 AUTH_TOKEN_REVOKED)$/);
      expect(await familyOf(tokens.session_id)).toMatchObject({ reason: "logout" });
      expect((await familyOf(tokens.session_id)).revoked_at).not.toBeNull();
      const survivor = refreshed.body.refresh_token ?? tokens.refresh_token;
      expect(outcomeOf(await refreshWith(survivor))).toBe("401 AUTH_TOKEN_REVOKED");
      const access = refreshed.body.access_token ?? tokens.access_token;
      expect(outcomeOf(await verifyWith(access))).toBe("401 AUTH_TOKEN_REVOKED");
    }
  });

  // Without a grace even two uses at the same moment are a reuse, and the session ends, whoever was first.
  test("two uses at once under a grace of 0 s end the session", async () => {
    const strict = await openHttpApp({ PRIMER_TOKENS__REFRESH_GRACE: "0s" });
    try {
      await strict.createUser({ username: "ada" });
      for (let round = 0; round < 12; round++) {
        const { refresh_token, session_id } = await strict.login("ada");
        const answers = await Promise.all([refreshWith(refresh_token, strict), refreshWith(refresh_token, strict)]);
        expect(answers.map(outcomeOf).sort()).toEqual(["200 ok", "401 AUTH_REFRESH_REUSED"]);
        expect(await familyOf(session_id, strict)).toMatchObject({ reason: "refresh_reused" });
      }
    } finally {
      await strict.close();
    }
  });

  // To a node whose clock is behind, the rotation on another one lies in the future: that makes no grace.
  test("a grace of 0 s is none on a node whose clock is behind", async () => {
    const strict = await openHttpApp({ PRIMER_TOKENS__REFRESH_GRACE: "0s" });
    try {
      await strict.createUser({ username: "ada" });
      const behind = { ...strict.clock, now: () => new Date(strict.clock.now().getTime() - 40) };
      const node = await strict.otherNode({ clock: behind });
      const { refresh_token } = await strict.login("ada");
      expect(outcomeOf(await refreshWith(refresh_token, strict))).toBe("200 ok");
      const again = await node.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } });
      expect([again.status, again.body.error?.code]).toEqual([401, "AUTH_REFRESH_REUSED"]);
    } finally {
      await strict.close();
    }
  });
});
