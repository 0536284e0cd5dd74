import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { decodeJwt } from "jose";
import { PASSWORD, type TestAnswer } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { countRows } from "../support/scenario.ts";

const OWN = "https://login.example.test";
const FRIEND = "https://app.example.test";

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp({
    PRIMER_SERVER__PUBLIC_URL: OWN,
    PRIMER_SERVER__CORS_ORIGINS: FRIEND,
    PRIMER_TOKENS__FINGERPRINT: "true",
  });
  await app.createUser({ username: "ada" });
  await app.createUser({ username: "bob" });
});
afterAll(() => app.close());
afterEach(() => app.clock.advance(60_000));

interface SetCookie {
  readonly value: string;
  readonly attributes: readonly string[];
  readonly whole: string;
}

/** The cookies that an answer sets, by name. */
function cookiesOf(answer: TestAnswer): Map<string, SetCookie> {
  const parsed = answer.headers.getSetCookie().map((whole): [string, SetCookie] => {
    const [pair = "", ...attributes] = whole.split("; ");
    const equals = pair.indexOf("=");
    return [pair.slice(0, equals), { value: pair.slice(equals + 1), attributes, whole }];
  });
  return new Map(parsed);
}

const jar = (cookies: Map<string, SetCookie>) => [...cookies].map(([name, { value }]) => `${name}=${value}`).join("; ");

const post = (path: string, headers: Record<string, string>, body?: unknown) =>
  app.request("POST", `/api/v1/auth/${path}`, { headers, ...(body === undefined ? {} : { body }) });

async function logIn(headers: Record<string, string> = { origin: OWN }, username = "ada") {
  const answer = await post("login", headers, { username, password: PASSWORD, cookies: true });
  return { answer, cookies: cookiesOf(answer), token: answer.body?.access_token as string };
}

const fromOwnPage = (cookies: Map<string, SetCookie>) => ({
  origin: OWN,
  "sec-fetch-site": "same-origin",
  cookie: jar(cookies),
});

// What the browser keeps is out of reach of scripts, of other hosts and of plain http.
describe("the cookies of a login", () => {
  test("are bound to this host, https and the browser, and the body has no refresh token", async () => {
    const { answer, cookies } = await logIn();
    expect(answer.status).toBe(200);
    expect(answer.body).not.toHaveProperty("refresh_token");
    expect(answer.text).not.toContain(cookies.get("__Host-primer_refresh")?.value ?? "?");
    expect([...cookies.keys()].sort()).toEqual(["__Host-primer_device", "__Host-primer_fp", "__Host-primer_refresh"]);
    for (const { attributes, whole } of cookies.values()) {
      expect(attributes).toEqual(expect.arrayContaining(["Path=/", "HttpOnly", "Secure", "SameSite=Lax"]));
      expect(whole).not.toMatch(/domain/i);
      expect(Buffer.byteLength(whole)).toBeLessThanOrEqual(4096);
    }
    expect(answer.headers.get("cache-control")).toBe("no-store");
  });

  test("without `cookies` there are none, and the refresh token is in the body", async () => {
    const answer = await post("login", { origin: OWN }, { username: "ada", password: PASSWORD });
    expect(answer.body.refresh_token).toBeString();
    expect(answer.headers.getSetCookie()).toEqual([]);
    expect(decodeJwt(answer.body.access_token)).not.toHaveProperty("cnf");
  });

  // A value that somebody else has planted in the browser beforehand is worth nothing afterwards.
  test("a planted cookie is replaced", async () => {
    const planted = "__Host-primer_refresh=planted; __Host-primer_fp=planted";
    const { cookies } = await logIn({ origin: OWN, cookie: planted });
    for (const { value } of cookies.values()) expect(value).not.toBe("planted");
    expect((await post("refresh", { origin: OWN, cookie: planted })).status).toBe(401);
  });

  // A session that was in the browser before is over, whoever's it was: who kept a copy of its cookie has nothing.
  for (const [whose, username] of [
    ["one's own", "ada"],
    ["somebody else's", "bob"],
  ] as const) {
    test(`a session of ${whose} that was there before ends with the login, access token included`, async () => {
      const before = await logIn({ origin: OWN }, username);
      const bystander = await logIn({ origin: OWN }, username);
      const after = await logIn(fromOwnPage(before.cookies));
      expect(after.answer.status).toBe(200);
      const again = await post("refresh", fromOwnPage(before.cookies));
      expect([again.status, again.body.error.code]).toEqual([401, "AUTH_TOKEN_REVOKED"]);
      const headers = { cookie: jar(before.cookies) };
      const verified = await app.request("GET", "/api/v1/auth/verify", { token: before.token, headers });
      expect(verified.body.error.code).toBe("AUTH_TOKEN_REVOKED");
      for (const { cookies } of [after, bystander])
        expect((await post("refresh", fromOwnPage(cookies))).status).toBe(200);
      const [event] = await app.db.query("SELECT details FROM audit_log WHERE subject_id = $1 AND action = $2", [
        before.answer.body.session_id,
        "session.revoked",
      ]);
      expect(event?.details).toMatchObject({ reason: "replaced", sessions_ended: 1 });
    });
  }

  // Nothing is ended by a login that failed, nor by one that does not speak for the browser.
  test("it goes on after a login that failed, from another site, or without cookie mode", async () => {
    const { cookies } = await logIn();
    const kept = fromOwnPage(cookies);
    const credentials = { username: "ada", password: PASSWORD };
    expect((await post("login", kept, { ...credentials, password: "wrong wrong wrong", cookies: true })).status).toBe(
      401,
    );
    const evil = { ...kept, origin: "https://evil.test" };
    expect((await post("login", evil, { ...credentials, cookies: true })).status).toBe(403);
    expect((await post("login", kept, credentials)).status).toBe(200);
    expect((await post("refresh", kept)).status).toBe(200);
  });

  test("on plain http in development: no prefix and no Secure, any name of this machine", async () => {
    const plain = await openHttpApp({ PRIMER_SERVER__PUBLIC_URL: "http://127.0.0.1:8080" });
    try {
      await plain.createUser({ username: "ada" });
      const answer = await plain.request("POST", "/api/v1/auth/login", {
        body: { username: "ada", password: PASSWORD, cookies: true },
      });
      const cookies = cookiesOf(answer);
      expect([...cookies.keys()].sort()).toEqual(["primer_device", "primer_refresh"]);
      expect(cookies.get("primer_refresh")?.attributes).not.toContain("Secure");
      const headers = { origin: "http://localhost:8080", cookie: jar(cookies) };
      expect((await plain.request("POST", "/api/v1/auth/refresh", { headers })).status).toBe(200);
      const elsewhere = { origin: "http://localhost:9090", cookie: jar(cookies) };
      expect((await plain.request("POST", "/api/v1/auth/refresh", { headers: elsewhere })).status).toBe(403);
    } finally {
      await plain.close();
    }
  });
});

describe("refresh by cookie", () => {
  test("rotates the cookie, and the old one is used up", async () => {
    const { cookies } = await logIn();
    const answer = await post("refresh", fromOwnPage(cookies));
    expect(answer.status).toBe(200);
    expect(answer.body).not.toHaveProperty("refresh_token");
    const next = cookiesOf(answer).get("__Host-primer_refresh")?.value;
    expect(next).toBeString();
    expect(next).not.toBe(cookies.get("__Host-primer_refresh")?.value);
    app.clock.advance(11_000);
    const again = await post("refresh", fromOwnPage(cookies));
    expect(again.body.error.code).toBe("AUTH_REFRESH_REUSED");
    expect(cookiesOf(again).get("__Host-primer_refresh")?.attributes).toContain("Max-Age=0");
  });

  test("without any token: 401", async () => {
    expect((await post("refresh", { origin: OWN })).body.error.code).toBe("AUTH_TOKEN_MISSING");
  });
});

// What a cookie alone allows happens for pages of our own and of the list only.
describe("cross-site requests", () => {
  const REFUSED: Record<string, Record<string, string>> = {
    "another site": { origin: "https://evil.test" },
    "a page without origin": { origin: "null" },
    "no Origin header": {},
    "another site that claims our origin": { origin: OWN, "sec-fetch-site": "cross-site" },
    "a sister host that claims our origin": { origin: OWN, "sec-fetch-site": "same-site" },
    "our origin on plain http": { origin: OWN.replace("https", "http") },
    "our origin as a prefix": { origin: `${OWN}.evil.test` },
    "our origin on another port": { origin: `${OWN}:8443` },
    "a friend's origin as a prefix": { origin: `${FRIEND}.evil.test` },
  };
  for (const path of ["refresh", "logout"]) {
    for (const [name, headers] of Object.entries(REFUSED)) {
      test(`${path} from ${name}: 403, and nothing happens`, async () => {
        const { cookies } = await logIn();
        const before = await countRows(app);
        const answer = await post(path, { ...headers, cookie: jar(cookies) });
        expect([answer.status, answer.body.error.code]).toEqual([403, "CSRF_REJECTED"]);
        expect(answer.headers.getSetCookie()).toEqual([]);
        expect(await countRows(app)).toEqual(before);
        expect((await post("refresh", fromOwnPage(cookies))).status).toBe(200);
      });
    }
  }

  test("a form of another site cannot send JSON: 415", async () => {
    const { cookies } = await logIn();
    const headers = { ...fromOwnPage(cookies), "content-type": "text/plain" };
    expect((await post("refresh", headers, "{}")).status).toBe(415);
  });

  test("a page of the list may", async () => {
    const { cookies } = await logIn({ origin: FRIEND });
    const headers = { origin: FRIEND, "sec-fetch-site": "cross-site", cookie: jar(cookies) };
    expect((await post("refresh", headers)).status).toBe(200);
  });

  test("another site cannot log its visitor in", async () => {
    const { answer } = await logIn({ origin: "https://evil.test" });
    expect([answer.status, answer.body.error.code]).toEqual([403, "CSRF_REJECTED"]);
    expect(answer.headers.getSetCookie()).toEqual([]);
  });

  test("a GET changes nothing", async () => {
    const { cookies } = await logIn();
    for (const path of ["refresh", "logout"]) {
      const answer = await app.request("GET", `/api/v1/auth/${path}`, { headers: fromOwnPage(cookies) });
      expect(answer.status).toBe(405);
    }
    expect((await post("refresh", fromOwnPage(cookies))).status).toBe(200);
  });
});

describe("logout", () => {
  // A proxy's own login (Basic) is none of ours, and does not stand in the cookie's way.
  for (const how of ["cookie", "bearer", "cookie behind a proxy's login"] as const) {
    test(`by ${how} takes the cookies and what the site has stored, and ends the session`, async () => {
      const { cookies, token } = await logIn();
      const authorization = { cookie: undefined, bearer: `Bearer ${token}` }[how as "cookie"] ?? "Basic eDp5";
      const headers = how === "cookie" ? {} : { authorization };
      const answer = await post("logout", { ...fromOwnPage(cookies), ...headers });
      expect(answer.status).toBe(204);
      expect(answer.headers.get("clear-site-data")).toBe('"cache", "storage"');
      for (const cookie of cookiesOf(answer).values()) {
        expect(cookie.value).toBe("");
        expect(cookie.attributes).toContain("Max-Age=0");
      }
      expect(cookiesOf(answer).size).toBe(2);
      expect((await post("refresh", fromOwnPage(cookies))).body.error.code).toBe("AUTH_TOKEN_REVOKED");
    });
  }
});

// A token that was stolen out of a page is of no use without the value that only the browser has.
describe("tokens bound to a browser", () => {
  const verify = (token: string, cookie?: string) =>
    app.request("GET", "/api/v1/auth/verify", { token, ...(cookie ? { headers: { cookie } } : {}) });

  test("the token has the hash of the value and not the value", async () => {
    const { cookies, token } = await logIn();
    const value = cookies.get("__Host-primer_fp")?.value ?? "";
    expect(value.length).toBeGreaterThanOrEqual(43);
    const hash = new Bun.CryptoHasher("sha256").update(value).digest("base64url");
    expect(decodeJwt(token).cnf).toEqual({ "fp#S256": hash });
    expect(token).not.toContain(value);
  });

  test("verify wants the value, each time", async () => {
    const { cookies, token } = await logIn();
    const other = (await logIn()).cookies;
    expect((await verify(token, jar(cookies))).status).toBe(200);
    for (const cookie of [undefined, jar(other), "__Host-primer_fp=", "__Host-primer_fp=x"]) {
      expect((await verify(token, cookie)).body.error.code).toBe("AUTH_TOKEN_INVALID");
    }
    expect((await verify(token, jar(cookies))).status).toBe(200);
  });

  test("refresh wants the value, by cookie and by body; without it nothing is used up", async () => {
    const { cookies } = await logIn();
    const refreshToken = cookies.get("__Host-primer_refresh")?.value ?? "";
    const before = await countRows(app);
    const alone = { origin: OWN, cookie: `__Host-primer_refresh=${refreshToken}` };
    expect((await post("refresh", alone)).body.error.code).toBe("AUTH_TOKEN_INVALID");
    expect((await post("refresh", {}, { refresh_token: refreshToken })).body.error.code).toBe("AUTH_TOKEN_INVALID");
    expect(await countRows(app)).toEqual(before);
    const next = await post("refresh", fromOwnPage(cookies));
    expect(next.status).toBe(200);
    expect((await verify(next.body.access_token)).status).toBe(401);
    expect((await verify(next.body.access_token, jar(cookies))).status).toBe(200);
  });
});
