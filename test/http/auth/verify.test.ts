import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { decodeJwt } from "jose";
import { setRoles } from "../../../server/features/users/service.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { stepsOf } from "../support/observe.ts";
import { countRows } from "../support/scenario.ts";

const PATH = "/api/v1/auth/verify";
const OPERATOR = { actor: { kind: "operator" } } as const;

let app: HttpApp;
let ada: { id: string };
let user: Awaited<ReturnType<HttpApp["login"]>>;
let admin: Awaited<ReturnType<HttpApp["login"]>>;
beforeAll(async () => {
  app = await openHttpApp();
  ada = await app.createUser({ username: "ada" });
  await app.createUser({ username: "root", roles: ["admin", "user"] });
  user = await app.login("ada");
  admin = await app.login("root");
});
afterAll(() => app.close());

const verify = (token: string, query = "") => app.request("GET", `${PATH}${query}`, { token });

describe("GET /auth/verify", () => {
  // A gateway learns who it is from body and headers, and learns no secret.
  test("200 says who it is", async () => {
    const answer = await verify(user.access_token);
    const { jti, iat, exp } = decodeJwt(user.access_token);
    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({
      active: true,
      sub: ada.id,
      username: "ada",
      roles: ["user"],
      scope: "",
      sid: user.session_id,
      jti,
      iat,
      exp,
    });
    expect(answer.headers.get("x-auth-user-id")).toBe(ada.id);
    expect(answer.headers.get("x-auth-username")).toBe("ada");
    expect(answer.headers.get("x-auth-roles")).toBe("user");
    expect(answer.headers.get("cache-control")).toBe("no-store");
    for (const secret of [user.access_token, user.refresh_token, "ada@example.test", "$argon2"])
      expect(answer.text).not.toContain(secret);
  });

  test("200 with several roles", async () => {
    const answer = await verify(admin.access_token);
    expect(answer.body).toMatchObject({ roles: ["admin", "user"], scope: "*:*" });
    expect(answer.headers.get("x-auth-roles")).toBe("admin,user");
  });

  // What counts is the session's row now, not what the token said when it was made.
  test("a role taken away is gone at once", async () => {
    const { id } = await app.createUser({ username: "rolf", roles: ["admin"] });
    const tokens = await app.login("rolf");
    expect((await verify(tokens.access_token, "?permission=users:read")).status).toBe(200);
    await setRoles(app.deps, id, { roles: ["user"] }, OPERATOR);
    expect((await verify(tokens.access_token, "?permission=users:read")).status).toBe(403);
    expect((await verify(tokens.access_token)).body).toMatchObject({ roles: ["user"], scope: "" });
  });

  // A permission that is lacking, malformed or unknown is never granted.
  for (const permission of [
    "users:read",
    "*:*",
    "users:*",
    "users",
    "",
    ":",
    "users:read:more",
    "%00",
    "a".repeat(500),
  ]) {
    test(`403 without ${JSON.stringify(permission.slice(0, 20))}`, async () => {
      const answer = await verify(user.access_token, `?permission=${permission}`);
      expect({ status: answer.status, code: answer.body.error?.code }).toEqual({ status: 403, code: "FORBIDDEN" });
      expect(answer.body.error.details.permission).toBe(decodeURIComponent(permission));
      expect(answer.headers.get("www-authenticate")).toContain('error="insufficient_scope"');
      expect(answer.headers.get("x-auth-user-id")).toBeNull();
    });
  }

  test("200 with the permission", async () => {
    expect((await verify(admin.access_token, "?permission=users:read")).status).toBe(200);
  });

  interface Refusal {
    readonly name: string;
    readonly headers: Record<string, string>;
    readonly code: string;
    readonly challenge: RegExp;
  }
  const INVALID = { code: "AUTH_TOKEN_INVALID", challenge: /^Bearer error="invalid_token"$/ };
  const MISSING = { code: "AUTH_TOKEN_MISSING", challenge: /^Bearer$/ };
  const REFUSALS: readonly Refusal[] = [
    { name: "no header", headers: {}, ...MISSING },
    { name: "an empty header", headers: { authorization: "" }, ...MISSING },
    { name: "Bearer alone", headers: { authorization: "Bearer" }, ...MISSING },
    { name: "Basic", headers: { authorization: "Basic YWRhOmFkYQ==" }, ...MISSING },
    { name: "text", headers: { authorization: "Bearer what-is-this" }, ...INVALID },
    { name: "three empty parts", headers: { authorization: "Bearer .." }, ...INVALID },
  ];

  // RFC 6750, section 3: a refusal names the scheme, and the error only where a token was given.
  for (const { name, headers, code, challenge } of REFUSALS) {
    test(`401 ${name}`, async () => {
      const before = await countRows(app);
      const answer = await app.request("GET", PATH, { headers });
      expect({ status: answer.status, code: answer.body.error.code }).toEqual({ status: 401, code });
      expect(answer.headers.get("www-authenticate")).toMatch(challenge);
      expect(await countRows(app)).toEqual(before);
    });
  }

  test("401 a token that has ended or was revoked", async () => {
    const [expired, revoked] = [await app.login("ada"), await app.login("ada")];
    await app.request("POST", "/api/v1/auth/logout", { token: revoked.access_token });
    const dead = await verify(revoked.access_token);
    expect(dead.body.error.code).toBe("AUTH_TOKEN_REVOKED");
    app.clock.advance(16 * 60_000);
    const late = await verify(expired.access_token);
    expect(late.body.error.code).toBe("AUTH_TOKEN_EXPIRED");
    for (const answer of [dead, late]) {
      expect(answer.headers.get("www-authenticate")).toMatch(/^Bearer error="invalid_token"/);
    }
    user = await app.login("ada");
    admin = await app.login("root");
  });

  // The scheme's name has no case (RFC 9110, section 11.1).
  test("200 with the scheme in small letters", async () => {
    const answer = await app.request("GET", PATH, { headers: { authorization: `bearer ${user.access_token}` } });
    expect(answer.status).toBe(200);
  });

  // Gateways turn anything but 200, 401, 403 and 503 into a failure of their own, so verify answers nothing else.
  for (const query of [
    "?permission=users:read&resource=42",
    "?resource=42",
    "?permission=users:read&permission=users:read",
    "?anything=else",
    `?permission=${"a".repeat(2000)}`,
    "?permission=%ff%",
    "?permission",
  ]) {
    test(`one of four statuses for ${query.slice(0, 50)}`, async () => {
      for (const token of [user.access_token, admin.access_token, "a.b.c"]) {
        const answer = await app.request("GET", `${PATH}${query}`, { token });
        expect([200, 401, 403, 503]).toContain(answer.status);
      }
      expect((await app.request("GET", `${PATH}${query}`)).status).toBe(401);
    });
  }

  // It is asked at every request of every application: one read, then none while nothing has changed; nothing written.
  test("takes one statement, and none while it is remembered", async () => {
    app.deps.sessions.forget(undefined);
    expect(await stepsOf(app.deps, () => verify(user.access_token))).toEqual(["select"]);
    expect(await stepsOf(app.deps, () => verify(user.access_token))).toEqual([]);
  });
});
