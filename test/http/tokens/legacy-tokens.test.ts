import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { exportSPKI, importJWK, type JWTPayload, SignJWT } from "jose";
import { changeUser, setPassword } from "../../../server/features/users/service.ts";
import { PASSWORD } from "../../support/app.ts";
import { LEGACY_SECRET, LEGACY_SETTINGS } from "../../support/legacy.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { replaceDeps } from "../support/observe.ts";

const UNTIL = "2026-06-01T00:00:00Z";
const SETTINGS = {
  ...LEGACY_SETTINGS,
  PRIMER_TOKENS__LEGACY_USER_CLAIM: "user_name",
  PRIMER_TOKENS__LEGACY_UNTIL: UNTIL,
};
const OPERATOR = { actor: { kind: "operator" } } as const;

let app: HttpApp;
let off: HttpApp;
let id: string;
beforeAll(async () => {
  app = await openHttpApp(SETTINGS);
  off = await openHttpApp();
  ({ id } = await app.createUser({ username: "ada" }));
  await off.createUser({ username: "ada" });
});
afterAll(async () => {
  await app.close();
  await off.close();
});

const seconds = () => Math.floor(app.clock.now().getTime() / 1000);
const GOOD = () => ({
  iss: SETTINGS.PRIMER_TOKENS__LEGACY_ISSUER,
  aud: SETTINGS.PRIMER_TOKENS__LEGACY_AUDIENCE,
  sub: "17",
  user_name: "ada",
  roles: ["admin"],
  scope: "*:*",
  iat: seconds() - 10,
  exp: seconds() + 3600,
});

function sign(change: JWTPayload = {}, options: { secret?: string | Uint8Array; header?: object } = {}) {
  const { secret = LEGACY_SECRET, header = {} } = options;
  const key = typeof secret === "string" ? new TextEncoder().encode(secret) : secret;
  const claims = Object.fromEntries(
    Object.entries({ ...GOOD(), ...change }).filter(([, value]) => value !== undefined),
  );
  return new SignJWT(claims).setProtectedHeader({ alg: "HS256", typ: "JWT", ...header }).sign(key);
}

const verify = (token: string, on: HttpApp = app) => on.request("GET", "/api/v1/auth/verify", { token });
const codeOf = async (token: string, on: HttpApp = app) => {
  const { status, body } = await verify(token, on);
  return status === 200 ? "ok" : `${status} ${body.error.code}`;
};
const INVALID = "401 AUTH_TOKEN_INVALID";

describe("a token of the service before", () => {
  // The token says who it is and nothing more: what they may do is what they may do here and now.
  test("is the user of that name here, with the rights of here", async () => {
    const { status, body, headers } = await verify(await sign());
    expect(status).toBe(200);
    expect(body).toMatchObject({ active: true, sub: id, username: "ada", roles: ["user"], scope: "" });
    expect(body).not.toHaveProperty("sid");
    expect(headers.get("x-auth-user-id")).toBe(id);
    expect(app.logLines.some((line) => JSON.parse(line).event === "token.legacy_accepted")).toBe(true);
  });

  // How many of them are still about is seen from outside, so that they can be switched off.
  test("is counted apart from tokens of here, accepted and refused", async () => {
    await app.createUser({ username: "root", roles: ["admin"] });
    const { access_token: token } = await app.login("root");
    const read = async () => {
      const { status, body } = await app.request("GET", "/api/v1/monitoring/metrics", { token });
      expect(status).toBe(200);
      const metric = body.metrics.find(({ name }: { name: string }) => name === "primer_tokens_verified_total");
      const of = (issuer: string, outcome: string) =>
        metric.points.find(
          ({ labels }: { labels: Record<string, string> }) => labels.issuer === issuer && labels.outcome === outcome,
        )?.value ?? 0;
      return { accepted: of("legacy", "accepted"), refused: of("legacy", "refused"), own: of("own", "accepted") };
    };
    const before = await read();
    await verify(await sign());
    await verify(await sign({}, { secret: "x".repeat(40) }));
    const after = await read();
    expect(after).toEqual({ accepted: before.accepted + 1, refused: before.refused + 1, own: before.own + 1 });
    const { access_token } = await app.login("ada");
    const forbidden = await app.request("GET", "/api/v1/monitoring/metrics", { token: access_token });
    expect([forbidden.status, forbidden.body.error.details]).toEqual([403, { permission: "monitoring:read" }]);
  });

  test("names the user by e-mail address or id as well", async () => {
    expect(await codeOf(await sign({ user_name: "Ada@Example.test" }))).toBe("ok");
    expect(await codeOf(await sign({ user_name: id }))).toBe("ok");
  });

  const REFUSED: Record<string, () => Promise<string>> = {
    "another secret": () => sign({}, { secret: "x".repeat(40) }),
    "another issuer": () => sign({ iss: "https://old.example.test/" }),
    "no issuer": () => sign({ iss: undefined } as unknown as JWTPayload),
    "another audience": () => sign({ aud: "shopping" }),
    "nobody here": () => sign({ user_name: "grace" }),
    "no name": () => sign({ user_name: undefined }),
    "a name that is no text": () => sign({ user_name: 17 }),
    "no expiry": () => sign({ exp: undefined } as unknown as JWTPayload),
    expired: () => sign({ exp: seconds() - 120 }),
    "not valid yet": () => sign({ nbf: seconds() + 120 }),
    "a kid": () => sign({}, { header: { kid: "x" } }),
    HS512: () => sign({}, { header: { alg: "HS512" }, secret: LEGACY_SECRET.repeat(2) }),
  };
  for (const [name, make] of Object.entries(REFUSED)) {
    test(`is refused: ${name}`, async () => {
      expect(await codeOf(await make())).toBe(INVALID);
    });
  }

  // Neither kind of token passes for the other, whatever it was signed with.
  describe("and the keys of here", () => {
    test("signed with the published key as its secret: refused", async () => {
      const { keys } = (await app.request("GET", "/.well-known/jwks.json")).body;
      const pem = await exportSPKI((await importJWK(keys[0], keys[0].alg)) as CryptoKey);
      for (const secret of [pem, keys[0].n, JSON.stringify(keys[0])]) {
        expect(await codeOf(await sign({}, { secret }))).toBe(INVALID);
        expect(await codeOf(await sign({}, { secret, header: { kid: keys[0].kid } }))).toBe(INVALID);
        expect(await codeOf(await sign({}, { secret, header: { typ: "at+jwt", kid: keys[0].kid } }))).toBe(INVALID);
      }
    });

    test("with a header that says RS256 over an HMAC: refused", async () => {
      const [, payload, signature] = (await sign()).split(".");
      const { keys } = (await app.request("GET", "/.well-known/jwks.json")).body;
      const header = Buffer.from(JSON.stringify({ alg: "RS256", typ: "at+jwt", kid: keys[0].kid })).toString(
        "base64url",
      );
      expect(await codeOf(`${header}.${payload}.${signature}`)).toBe(INVALID);
    });

    test("an access token of here with a header that says HS256: refused", async () => {
      const [, payload, signature] = (await app.login("ada")).access_token.split(".");
      const header = Buffer.from(JSON.stringify({ alg: "HS256", typ: "JWT" })).toString("base64url");
      expect(await codeOf(`${header}.${payload}.${signature}`)).toBe(INVALID);
    });

    test("a token of here is what it was", async () => {
      expect(await codeOf((await app.login("ada")).access_token)).toBe("ok");
    });
  });

  test("without the setting it is like any other stranger's", async () => {
    expect(await codeOf(await sign(), off)).toBe(INVALID);
  });

  test("opens nothing but what asks for a bearer token", async () => {
    const token = await sign();
    for (const path of ["refresh", "logout"]) {
      const answer = await app.request("POST", `/api/v1/auth/${path}`, { body: { refresh_token: token } });
      expect([answer.status, answer.body.error.code]).toEqual([401, "AUTH_TOKEN_INVALID"]);
    }
    expect((await app.request("POST", "/api/v1/auth/logout", { token })).status).toBe(401);
  });

  test("ends with a new password and with the account", async () => {
    const { id: other } = await app.createUser({ username: "rolf" });
    const token = await sign({ user_name: "rolf" });
    expect(await codeOf(token)).toBe("ok");
    app.clock.advance(60_000);
    await setPassword(app.deps, other, `${PASSWORD} 2`, OPERATOR);
    expect(await codeOf(token)).toBe("401 AUTH_TOKEN_REVOKED");
    const fresh = await sign({ user_name: "rolf", iat: seconds() + 1 });
    expect(await codeOf(fresh)).toBe("ok");
    await changeUser(app.deps, other, { status: "disabled" }, OPERATOR);
    expect(await codeOf(fresh)).toBe("401 AUTH_TOKEN_REVOKED");
  });

  test("ends with the first password that an account is given", async () => {
    const { id: other } = await app.createUser({ username: "nils" });
    await app.db.query("DELETE FROM credentials WHERE user_id = $1", [other]);
    const token = await sign({ user_name: "nils" });
    expect(await codeOf(token)).toBe("ok");
    app.clock.advance(60_000);
    await setPassword(app.deps, other, `${PASSWORD} 2`, OPERATOR);
    expect(await codeOf(token)).toBe("401 AUTH_TOKEN_REVOKED");
  });

  // What ended a token may be gone with what came after a backup: a restore ends them all, those made since count.
  test("ends with a restore", async () => {
    const [token, later] = [await sign(), await sign({ iat: seconds() + 5 })];
    const count = (from: string | null) =>
      app.deps.db.change((tx) => tx.execute(sql`UPDATE installation SET not_before = ${from}`));
    expect([await codeOf(token), await codeOf(later)]).toEqual(["ok", "ok"]);
    await count(app.clock.now().toISOString());
    expect(await codeOf(token)).toBe("401 AUTH_TOKEN_REVOKED");
    expect(await codeOf(await sign({ user_name: "grace" }))).toBe("401 AUTH_TOKEN_REVOKED");
    expect(await codeOf(later)).toBe("ok");
    await count(null);
    expect(await codeOf(token)).toBe("ok");
  });

  test("switched off by hand it is refused from the next request on", async () => {
    const token = await sign();
    expect(await codeOf(token)).toBe("ok");
    const { settings } = app.deps;
    const emptied = { ...settings, tokens: { ...settings.tokens, legacy_secret: "" } };
    const restore = replaceDeps(app.deps, { settings: emptied });
    expect(await codeOf(token)).toBe(INVALID);
    restore();
    expect(await codeOf(token)).toBe("ok");
  });

  // A signature that was checked counts for what it was checked with, and no longer than the token says.
  test("found to be good before, it is refused with other settings and once it is over", async () => {
    const token = await sign({ exp: seconds() + 60 });
    expect(await codeOf(token)).toBe("ok");
    const { settings } = app.deps;
    for (const tokens of [
      { legacy_secret: "y".repeat(40) },
      { legacy_issuer: "https://older.example.test" },
      { legacy_audience: "shopping" },
      { legacy_user_claim: "sub" },
    ]) {
      const changed = { ...settings, tokens: { ...settings.tokens, ...tokens } };
      const restore = replaceDeps(app.deps, { settings: changed });
      expect([tokens, await codeOf(token)]).toEqual([tokens, INVALID]);
      restore();
    }
    expect(await codeOf(token)).toBe("ok");
    app.clock.advance(60_000 + settings.tokens.clock_skew - 1);
    expect(await codeOf(token)).toBe("ok");
    app.clock.advance(1);
    expect(await codeOf(token)).toBe(INVALID);
  });

  test("from the date on it is refused, however long it says it is good", async () => {
    const year = await sign({ exp: seconds() + 31_536_000 });
    expect(await codeOf(year)).toBe("ok");
    app.clock.advance(Date.parse(UNTIL) - app.clock.now().getTime() - 1);
    expect(await codeOf(year)).toBe("ok");
    app.clock.advance(1);
    expect(await codeOf(year)).toBe(INVALID);
  });
});
