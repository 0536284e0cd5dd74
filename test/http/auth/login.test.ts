import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { decodeJwt, decodeProtectedHeader } from "jose";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { play, type Scenario, setStatus } from "../support/scenario.ts";

const LOGIN = { method: "POST", path: "/api/v1/auth/login" };
const WRONG = "not the right horse battery staple";
const SESSION = { sessions: 1, refresh_families: 1, login_records: 1, audit_log: 1 } as const;
/** A refused login is recorded, and nothing else happens. */
const REFUSED = { login_records: 1, audit_log: 1 } as const;
/** A request that is no login at all is not recorded as one. */
const NOTHING = {} as const;

let app: HttpApp;
let ada: { id: string };
beforeAll(async () => {
  app = await openHttpApp({ PRIMER_SERVER__MAX_BODY_BYTES: "4096" });
  ada = await app.createUser({ username: "ada", email: "Ada.Lovelace@Example.test" });
  for (const [username, status] of [
    ["dora", "disabled"],
    ["pete", "pending"],
  ] as const) {
    await setStatus(app, (await app.createUser({ username })).id, status);
  }
});
afterAll(() => app.close());

const ok = (name: string, username: string, more: Partial<Scenario> = {}): Scenario => ({
  name,
  body: { username, password: PASSWORD },
  status: 200,
  notInAnswer: [PASSWORD, "$argon2"],
  adds: SESSION,
  ...more,
});

const refused = (name: string, username: string, password: string, more: Partial<Scenario> = {}): Scenario => ({
  name,
  body: { username, password },
  status: 401,
  code: "AUTH_INVALID_CREDENTIALS",
  notInAnswer: [password, username, "access_token", "refresh_token", "unknown_account", "wrong_password", "disabled"],
  adds: REFUSED,
  ...more,
});

const text = (name: string, body: string | undefined, more: Partial<Scenario>): Scenario => ({
  name,
  ...(body === undefined ? {} : { body }),
  status: 400,
  code: "BAD_REQUEST",
  notInAnswer: [PASSWORD, "access_token"],
  adds: NOTHING,
  ...more,
});

const invalid = (name: string, body: unknown): Scenario => ({
  name,
  body,
  status: 422,
  code: "VALIDATION_FAILED",
  notInAnswer: [PASSWORD, "access_token"],
  adds: NOTHING,
});

const CREDENTIALS = JSON.stringify({ username: "ada", password: PASSWORD });
const TYPE = (type: string) => ({ headers: { "content-type": type } });
const WRONG_TYPE = { status: 415, code: "UNSUPPORTED_MEDIA_TYPE" } as const;

const SCENARIOS: readonly Scenario[] = [
  ok("by user name", "ada"),
  ok("by user name in capitals", "ADA"),
  ok("by e-mail address", "ada.lovelace@example.test"),
  ok("by e-mail address as it was given", "Ada.Lovelace@Example.test"),
  ok("by e-mail address in capitals", "ADA.LOVELACE@EXAMPLE.TEST"),
  ok("by user name in full-width letters (NFKC)", "ａｄａ"),
  ok("by e-mail address with a full-width at sign (NFKC)", "ada.lovelace＠example.test"),
  ok("by user name with spaces around it", "  ada\t"),
  ok("with the name of a device", "ada", { body: { username: "ada", password: PASSWORD, device_name: "Laptop" } }),
  ok("with a charset in the content type", "ada", TYPE("application/json; charset=UTF-8")),

  refused("unknown user name", "nobody", PASSWORD),
  refused("unknown e-mail address", "nobody@example.test", PASSWORD),
  refused("a wrong password", "ada", WRONG),
  refused("a wrong password by e-mail address", "ada.lovelace@example.test", WRONG),
  refused("the password in another case", "ada", PASSWORD.toUpperCase()),
  refused("the password with a space at its end", "ada", `${PASSWORD} `),
  refused("disabled with a wrong password", "dora", WRONG),
  refused("pending with a wrong password", "pete", WRONG),
  refused("NUL in the user name", "ada\u0000", PASSWORD),
  refused("half a surrogate pair in the user name", "ada\ud800", PASSWORD),
  refused("a LIKE pattern as user name", "ad_", PASSWORD),
  refused("SQL as user name", "ada' OR '1'='1", PASSWORD),

  refused("disabled with the right password", "dora", PASSWORD, {
    status: 403,
    code: "AUTH_ACCOUNT_DISABLED",
    notInAnswer: [PASSWORD, "access_token", "refresh_token"],
  }),
  refused("pending with the right password", "pete", PASSWORD, {
    status: 403,
    code: "AUTH_EMAIL_NOT_VERIFIED",
    notInAnswer: [PASSWORD, "access_token", "refresh_token", "pete@example.test"],
  }),

  text("no JSON", "username=ada", {}),
  text("cut off in the middle", CREDENTIALS.slice(0, -3), {}),
  text("empty", "", {}),
  text("something after the object", `${CREDENTIALS} {}`, {}),
  text("larger than the limit", `${CREDENTIALS.slice(0, -1)},"device_name":"${"x".repeat(5000)}"}`, {
    status: 413,
    code: "PAYLOAD_TOO_LARGE",
  }),
  text("as a form", "username=ada&password=x", { ...TYPE("application/x-www-form-urlencoded"), ...WRONG_TYPE }),
  text("as text", CREDENTIALS, { ...TYPE("text/plain"), ...WRONG_TYPE }),
  text("as another kind of JSON", CREDENTIALS, { ...TYPE("application/json-patch+json"), ...WRONG_TYPE }),
  text("in another charset", CREDENTIALS, { ...TYPE("application/json; charset=iso-8859-1"), ...WRONG_TYPE }),

  invalid("no body", undefined),
  invalid("null", "null"),
  invalid("a list", [{ username: "ada", password: PASSWORD }]),
  invalid("no password", { username: "ada" }),
  invalid("no user name", { password: PASSWORD }),
  invalid("an empty password", { username: "ada", password: "" }),
  invalid("an empty user name", { username: "", password: PASSWORD }),
  invalid("a number as password", { username: "ada", password: 12345 }),
  invalid("a list as user name", { username: ["ada"], password: PASSWORD }),
  invalid("an object as user name", { username: { $ne: "" }, password: PASSWORD }),
  invalid("a user name that is too long", { username: "a".repeat(321), password: PASSWORD }),
  invalid("a property that is not known", { username: "ada", password: PASSWORD, roles: ["admin"] }),
  invalid("NUL in the name of the device", { username: "ada", password: PASSWORD, device_name: "a\u0000b" }),
];

describe("POST /auth/login", () => {
  // Each kind of login has one answer, which shows nothing of what is kept and leaves behind nothing but what it should.
  for (const scenario of SCENARIOS) {
    test(`${scenario.status} ${scenario.name}`, async () => {
      await play(app, scenario, LOGIN);
    });
  }

  // What a token says of its user is what RFC 9068 asks and nothing secret; it lives 15 minutes.
  test("the tokens of a login", async () => {
    const answer = await app.request("POST", LOGIN.path, { body: { username: "ada", password: PASSWORD } });
    expect(answer.body).toMatchObject({ token_type: "bearer", expires_in: 900, refresh_expires_in: 86_400 });
    expect(answer.headers.get("cache-control")).toBe("no-store");
    expect(answer.headers.get("set-cookie")).toBeNull();
    const now = app.clock.now().getTime() / 1000;
    expect(decodeProtectedHeader(answer.body.access_token)).toEqual({
      alg: "RS256",
      kid: app.deps.keys.signing().kid,
      typ: "at+jwt",
    });
    expect(decodeJwt(answer.body.access_token)).toEqual({
      iss: "http://primer.test",
      aud: "primer",
      sub: ada.id,
      client_id: "primer",
      jti: expect.stringMatching(/^[0-9a-f-]{36}$/),
      sid: answer.body.session_id,
      iat: now,
      exp: now + 900,
      username: "ada",
      roles: ["user"],
      scope: "",
      amr: ["pwd"],
      auth_time: now,
    });
  });

  // The database never holds what a client presents: a copy of it opens no session.
  test("no token is kept as it is given out", async () => {
    const tokens = await app.login("ada");
    const kept = await app.db.query<{ row: string }>(
      "SELECT s::text || f::text AS row FROM sessions s JOIN refresh_families f ON f.session_id = s.id WHERE s.id = $1",
      [tokens.session_id],
    );
    expect(kept).toHaveLength(1);
    for (const secret of [
      tokens.access_token,
      tokens.refresh_token,
      ...tokens.refresh_token.split(".").filter(Boolean),
    ])
      expect(kept[0]?.row).not.toContain(secret);
  });

  // A session belongs to one login: every login begins a new one.
  test("two logins are two sessions", async () => {
    const [first, second] = [await app.login("ada"), await app.login("ada")];
    expect(first.session_id).not.toBe(second.session_id);
    expect(first.refresh_token).not.toBe(second.refresh_token);
    expect(decodeJwt(first.access_token).jti).not.toBe(decodeJwt(second.access_token).jti);
  });
});
