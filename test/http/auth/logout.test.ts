import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { countRows, play, type Scenario } from "../support/scenario.ts";

const LOGOUT = { method: "POST", path: "/api/v1/auth/logout" };

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
  for (const username of ["ada", "bob"]) await app.createUser({ username });
});
afterAll(() => app.close());

type Tokens = Awaited<ReturnType<HttpApp["login"]>>;

const verify = async (tokens: Tokens) =>
  (await app.request("GET", "/api/v1/auth/verify", { token: tokens.access_token })).body.error?.code ?? "ok";
const refresh = async (tokens: Tokens) =>
  (await app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token: tokens.refresh_token } })).body.error
    ?.code ?? "ok";

async function expectEnded(...sessions: Tokens[]): Promise<void> {
  for (const tokens of sessions) {
    expect(await verify(tokens)).toBe("AUTH_TOKEN_REVOKED");
    expect(await refresh(tokens)).toBe("AUTH_TOKEN_REVOKED");
  }
}

interface Way {
  readonly name: string;
  readonly before?: () => void;
  readonly proof: (tokens: Tokens) => { body?: unknown; token?: string };
}

const HOUR = 3_600_000;

const WAYS: readonly Way[] = [
  { name: "by bearer token", proof: (tokens) => ({ token: tokens.access_token }) },
  { name: "by bearer token with an empty object", proof: (tokens) => ({ token: tokens.access_token, body: {} }) },
  { name: "by bearer token, all: false", proof: (tokens) => ({ token: tokens.access_token, body: { all: false } }) },
  {
    name: "by an expired bearer token",
    before: () => app.clock.advance(HOUR),
    proof: (tokens) => ({ token: tokens.access_token }),
  },
  { name: "by refresh token", proof: (tokens) => ({ body: { refresh_token: tokens.refresh_token } }) },
  {
    name: "by refresh token, past the access token's time",
    before: () => app.clock.advance(HOUR),
    proof: (tokens) => ({ body: { refresh_token: tokens.refresh_token } }),
  },
];

describe("POST /auth/logout", () => {
  // Logging out ends the session at once, access token included, and only this one; it is recorded once.
  for (const { name, before, proof } of WAYS) {
    test(`204 ${name}`, async () => {
      const [mine, other] = [await app.login("ada"), await app.login("ada")];
      before?.();
      await play(app, { name, status: 204, adds: { audit_log: 1 }, ...proof(mine) }, LOGOUT);
      expect(await refresh(mine)).toBe("AUTH_TOKEN_REVOKED");
      expect(await verify(mine)).toMatch(/^AUTH_TOKEN_(REVOKED|EXPIRED)$/);
      expect(await refresh(other)).toBe("ok");

      // Leaving twice is no error and is not recorded twice.
      await play(app, { name: "again", status: 204, adds: {}, ...proof(mine) }, LOGOUT);
    });
  }

  // The access token is dead at once, long before it expires.
  test("the access token is dead at once", async () => {
    const tokens = await app.login("ada");
    expect(await verify(tokens)).toBe("ok");
    await app.request("POST", LOGOUT.path, { token: tokens.access_token });
    await expectEnded(tokens);
  });

  // "all" ends every session of this user and none of anybody else.
  for (const by of ["bearer", "refresh token"] as const) {
    test(`204 all, by ${by}`, async () => {
      const [first, second, others] = [await app.login("ada"), await app.login("ada"), await app.login("bob")];
      const proof =
        by === "bearer"
          ? { token: first.access_token, body: { all: true } }
          : { body: { all: true, refresh_token: first.refresh_token } };
      const answer = await app.request("POST", LOGOUT.path, proof);
      expect({ status: answer.status, text: answer.text }).toEqual({ status: 204, text: "" });
      await expectEnded(first, second);
      expect(await verify(others)).toBe("ok");
      const [event] = await app.db.query<{ details: { sessions_ended: number } }>(
        "SELECT details FROM audit_log WHERE action = 'logout' ORDER BY id DESC LIMIT 1",
      );
      expect(event?.details.sessions_ended).toBeGreaterThanOrEqual(2);
    });
  }

  // Whoever stole a token must not be able to throw its owner out for ever after.
  for (const by of ["bearer", "refresh token", "expired bearer"] as const) {
    test(`204 all, by the ${by} of a session that has ended, ends nothing more`, async () => {
      const stolen = await app.login("ada");
      await app.request("POST", LOGOUT.path, { token: stolen.access_token, body: { all: true } });
      const fresh = await app.login("ada");
      const proof =
        by === "refresh token"
          ? { body: { all: true, refresh_token: stolen.refresh_token } }
          : { token: stolen.access_token, body: { all: true } };
      if (by === "expired bearer") app.clock.advance(60 * 60_000);
      expect((await app.request("POST", LOGOUT.path, proof)).status).toBe(204);
      expect(await refresh(fresh)).toBe("ok");
    });
  }

  const OLD: readonly { name: string; make: (tokens: Tokens) => Promise<void> }[] = [
    {
      name: "that was used, past the grace",
      async make(tokens) {
        expect(await refresh(tokens)).toBe("ok");
        app.clock.advance(60_000);
      },
    },
    {
      name: "two generations old, within the grace",
      async make(tokens) {
        const { body } = await app.request("POST", "/api/v1/auth/refresh", {
          body: { refresh_token: tokens.refresh_token },
        });
        expect(await refresh(body)).toBe("ok");
      },
    },
    {
      name: "past its idle time",
      make: async () => app.clock.advance(25 * HOUR),
    },
  ];

  // An old refresh token that somebody found ends the session it was made for (RFC 7009) and no other.
  for (const { name, make } of OLD) {
    test(`204 all, by a refresh token ${name}, ends that session alone`, async () => {
      const stolen = await app.login("ada");
      await make(stolen);
      const other = await app.login("ada");
      const body = { all: true, refresh_token: stolen.refresh_token };
      expect((await app.request("POST", LOGOUT.path, { body })).status).toBe(204);
      expect(await verify(other)).toBe("ok");
      const [row] = await app.db.query("SELECT revoked_reason FROM sessions WHERE id = $1", [stolen.session_id]);
      expect(row).toEqual({ revoked_reason: "logout" });
    });
  }

  // Who has just been given the next one may still leave with the one before.
  test("204 all, by the refresh token just used, within the grace, ends them all", async () => {
    const [first, second] = [await app.login("ada"), await app.login("ada")];
    expect(await refresh(first)).toBe("ok");
    const body = { all: true, refresh_token: first.refresh_token };
    expect((await app.request("POST", LOGOUT.path, { body })).status).toBe(204);
    await expectEnded(second);
  });

  // Twenty at once all succeed, and the session ends once.
  test("20 at the same moment", async () => {
    const tokens = await app.login("ada");
    const before = await countRows(app);
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => app.request("POST", LOGOUT.path, { token: tokens.access_token })),
    );
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([204]));
    expect((await countRows(app)).audit_log).toBe(before.audit_log + 1);
    await expectEnded(tokens);
  });

  const FAULTS: readonly Scenario[] = [
    { name: "nothing that names a session", status: 401, code: "AUTH_TOKEN_MISSING" },
    { name: "an empty object", body: {}, status: 401, code: "AUTH_TOKEN_MISSING" },
    { name: "all without a token", body: { all: true }, status: 401, code: "AUTH_TOKEN_MISSING" },
    { name: "a bearer token that is none", token: "a.b.c", status: 401, code: "AUTH_TOKEN_INVALID" },
    {
      name: "a refresh token that is none",
      body: { refresh_token: "a..b.c.d" },
      status: 401,
      code: "AUTH_TOKEN_INVALID",
    },
    { name: "all as text", body: { all: "true" }, status: 422, code: "VALIDATION_FAILED" },
    { name: "a session id", body: { session_id: "x" }, status: 422, code: "VALIDATION_FAILED" },
    { name: "a list", body: [{ all: true }], status: 422, code: "VALIDATION_FAILED" },
    { name: "no JSON", body: "{", status: 400, code: "BAD_REQUEST" },
    {
      name: "text",
      body: "{}",
      headers: { "content-type": "text/plain" },
      status: 415,
      code: "UNSUPPORTED_MEDIA_TYPE",
    },
    { name: "too large a body", body: { refresh_token: "a".repeat(70_000) }, status: 413, code: "PAYLOAD_TOO_LARGE" },
  ];

  // Whoever proves nothing ends nothing.
  for (const scenario of FAULTS) {
    test(`${scenario.status} ${scenario.name}`, async () => {
      const bystander = await app.login("bob");
      await play(app, { ...scenario, notInAnswer: [PASSWORD, bystander.session_id] }, LOGOUT);
      expect(await verify(bystander)).toBe("ok");
    });
  }

  // A wrong refresh token is not made good by a right bearer token, nor the other way round: what is named must be right.
  test("401 for a wrong refresh token beside a right bearer token", async () => {
    const tokens = await app.login("ada");
    const answer = await app.request("POST", LOGOUT.path, {
      token: tokens.access_token,
      body: { refresh_token: tokens.access_token },
    });
    expect(answer.body.error.code).toBe("AUTH_TOKEN_INVALID");
    expect(await verify(tokens)).toBe("ok");
  });
});
