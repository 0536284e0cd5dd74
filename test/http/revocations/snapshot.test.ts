import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { changeUser, setPassword } from "../../../server/features/users/service.ts";
import { PASSWORD } from "../../support/app.ts";
import { listedIn, verifyList } from "../../support/revocations.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { brokenDatabase, replaceDeps, stepsOf } from "../support/observe.ts";

const PATH = "/api/v1/revocations";
const ISSUER = "http://primer.test";
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const BY = { actor: { kind: "operator" } } as const;

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp({ PRIMER_SERVER__CORS_ORIGINS: "https://app.test" });
});
afterAll(() => app.close());
// An answer counts for a second.
beforeEach(() => app.clock.advance(2 * SECOND));

let users = 0;
async function newUser() {
  const user = await app.createUser({ username: `user${++users}` });
  return { ...user, login: () => app.login(user.username) };
}

async function later(headers: Record<string, string> = {}) {
  app.clock.advance(SECOND);
  return app.request("GET", PATH, { headers });
}

const listed = async () => listedIn((await later()).body.revocations);
/** Word of a change comes a moment after it. */
async function untilListed(sessionId: string) {
  const began = performance.now();
  for (;;) {
    const revoked = await listed();
    if (sessionId in revoked || performance.now() - began > 2 * SECOND) return revoked;
  }
}

const logout = (tokens: { access_token: string }, body = {}) =>
  app.request("POST", "/api/v1/auth/logout", { token: tokens.access_token, body });
const keySet = async () => (await app.request("GET", "/.well-known/jwks.json")).body;

type User = Awaited<ReturnType<typeof newUser>>;
type Tokens = Awaited<ReturnType<User["login"]>>;

/** What ends how many of the two sessions of a user. */
const WAYS: Readonly<Record<string, { ends: number; end(user: User, tokens: Tokens): Promise<unknown> }>> = {
  logout: { ends: 1, end: (_, tokens) => logout(tokens) },
  "logout of all": { ends: 2, end: (_, tokens) => logout(tokens, { all: true }) },
  "disabling the user": { ends: 2, end: ({ id }) => changeUser(app.deps, id, { status: "disabled" }, BY) },
  "a new password": { ends: 2, end: ({ id }) => setPassword(app.deps, id, "a wholly different sentence", BY) },
  "a refresh token used twice": {
    ends: 1,
    async end(_, { refresh_token }) {
      await app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } });
      app.clock.advance(MINUTE);
      await app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } });
    },
  },
};

describe("GET /api/v1/revocations", () => {
  // However a session ends, it is listed, until no access token of it can be valid; and no other session is.
  for (const [name, { ends, end }] of Object.entries(WAYS)) {
    test(`after ${name}`, async () => {
      const user = await newUser();
      const [mine, other, bystander] = [await user.login(), await user.login(), await (await newUser()).login()];
      expect(Object.keys(await listed())).not.toContain(mine.session_id);
      await end(user, mine);
      const endedAt = app.clock.now().getTime();
      const revoked = await untilListed(mine.session_id);
      expect(revoked[mine.session_id]).toBeGreaterThan(endedAt / SECOND + 15 * 60);
      expect(other.session_id in revoked).toBe(ends === 2);
      expect(bystander.session_id in revoked).toBe(false);
    });
  }

  // A session stays listed for as long as a token of it may be accepted anywhere, and is gone soon after.
  test("until its last token has expired", async () => {
    const tokens = await (await newUser()).login();
    await logout(tokens);
    const until = (await listed())[tokens.session_id] ?? 0;
    app.clock.advance(15 * MINUTE + 30 * SECOND - 2 * SECOND);
    expect(await listed()).toHaveProperty(tokens.session_id);
    app.clock.advance(until * SECOND - app.clock.now().getTime() - 2 * SECOND);
    expect(await listed()).toHaveProperty(tokens.session_id);
    expect(await listed()).not.toHaveProperty(tokens.session_id);
  });

  // Whoever has the key set can check who made the list; it is dated and says that it is complete.
  test("the signature", async () => {
    const { body } = await later();
    const list = await verifyList(body.revocations, await keySet(), ISSUER);
    expect(list).toMatchObject({ iss: ISSUER, complete: true, iat: Math.floor(app.clock.now().getTime() / SECOND) });
    expect(Object.keys(list).sort()).toEqual(["complete", "iat", "iss", "revoked"]);
  });

  // Neither passes for the other: a list is no access token, and an access token is no list.
  test("a list is no token", async () => {
    const { body } = await later();
    const answer = await app.request("GET", "/api/v1/auth/verify", { token: body.revocations });
    expect({ status: answer.status, code: answer.body.error.code }).toEqual({
      status: 401,
      code: "AUTH_TOKEN_INVALID",
    });
    const { access_token } = await (await newUser()).login();
    await expect(verifyList(access_token, await keySet(), ISSUER)).rejects.toThrow();
  });

  // The ETag is of what is listed: it stays while that does, whenever and however often it is signed.
  test("ETag and 304", async () => {
    const first = await later();
    const etag = first.headers.get("etag") ?? "";
    expect(first.headers.get("cache-control")).toBe("public, max-age=1");
    app.clock.advance(MINUTE);
    await listed();
    const [second, third] = [await later(), await later()];
    expect(second.body.revocations).not.toBe(third.body.revocations);
    const known = second.headers.get("etag") ?? "";
    expect(third.headers.get("etag")).toBe(known);
    for (const value of [known, `W/${known}`, `"other", ${known}`]) {
      const answer = await later({ "if-none-match": value });
      expect({ status: answer.status, text: answer.text }).toEqual({ status: 304, text: "" });
      expect(answer.headers.get("etag")).toBe(known);
    }
    await logout(await (await newUser()).login());
    const changed = await later({ "if-none-match": known });
    expect(changed.status).toBe(200);
    expect([etag, known]).not.toContain(changed.headers.get("etag"));
  });

  // However many ask, the database is read once, and one signature is made.
  test("200 at the same moment", async () => {
    await logout(await (await newUser()).login());
    app.clock.advance(2 * SECOND);
    const jwts = new Set<string>();
    const steps = await stepsOf(app.deps, async () => {
      const answers = await Promise.all(Array.from({ length: 200 }, () => app.request("GET", PATH)));
      for (const { body } of answers) jwts.add(body.revocations);
    });
    expect(steps).toEqual(["select"]);
    expect(jwts.size).toBe(1);
  });

  // While the database is away nobody is told that nothing was revoked.
  test("503 without the database", async () => {
    await logout(await (await newUser()).login());
    app.clock.advance(2 * SECOND);
    const gone = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
    const restore = replaceDeps(app.deps, { db: brokenDatabase(app.db, gone) });
    const answers = [await app.request("GET", PATH), await app.request("GET", `${PATH}/stream`)];
    restore();
    for (const { status, headers } of answers)
      expect({ status, retry: headers.has("retry-after") }).toEqual({ status: 503, retry: true });
    expect((await later()).status).toBe(200);
  });

  // Any page may read it, and never with credentials; a page of our own list keeps its own header.
  test("CORS", async () => {
    for (const path of [PATH, `${PATH}/stream`]) {
      const { headers } = await app.request("GET", path, { headers: { origin: "https://elsewhere.test" } });
      expect(headers.get("access-control-allow-origin")).toBe("*");
      expect(headers.get("access-control-allow-credentials")).toBeNull();
      expect(headers.get("cross-origin-resource-policy")).toBe("cross-origin");
      const own = await app.request("GET", path, { headers: { origin: "https://app.test" } });
      expect(own.headers.get("access-control-allow-origin")).toBe("https://app.test");
    }
  });

  // Nobody's name, address or password is in it: session ids and times alone.
  test("nothing but session ids and times", async () => {
    const answer = await later();
    for (const [id, until] of Object.entries(listedIn(answer.body.revocations))) {
      expect(id).toMatch(/^[0-9a-f-]{36}$/);
      expect(Number.isInteger(until)).toBe(true);
    }
    expect(Buffer.from(answer.body.revocations.split(".")[1], "base64url").toString()).not.toContain(PASSWORD);
  });
});
