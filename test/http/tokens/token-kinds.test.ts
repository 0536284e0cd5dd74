import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { SignJWT } from "jose";
import { createClient } from "../../../server/features/clients/service.ts";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { basicOf, type Credentials, FORM, form, introspect, revoke } from "../support/oauth.ts";

const ORIGIN = "https://login.example.test";
const LEGACY_SECRET = "the secret of the service before, long enough";
const OPERATOR = { actor: { kind: "operator" } } as const;

let app: HttpApp;
let client: Credentials;
/** A token of each kind, all of one user and most of one session. */
let tokens: Record<string, string>;
let fingerprint: string;
beforeAll(async () => {
  app = await openHttpApp({
    PRIMER_SERVER__PUBLIC_URL: ORIGIN,
    PRIMER_TOKENS__LEGACY_SECRET: LEGACY_SECRET,
    PRIMER_TOKENS__LEGACY_ISSUER: "https://old.example.test",
    PRIMER_TOKENS__LEGACY_AUDIENCE: "shop",
    PRIMER_TOKENS__LEGACY_UNTIL: "2027-01-01T00:00:00Z",
    PRIMER_TOKENS__FINGERPRINT: "true",
  });
  await app.createUser({ username: "ada" });
  client = await createClient(app.deps, { name: "orders" }, OPERATOR);
  const { access_token, refresh_token, session_id } = await app.login("ada");
  const bound = await app.request("POST", "/api/v1/auth/login", {
    body: { username: "ada", password: PASSWORD, cookies: true },
  });
  fingerprint = /__Host-primer_fp=([^;]*)/.exec(bound.headers.getSetCookie().join("\n"))?.[1] ?? "";
  const now = Math.floor(app.clock.now().getTime() / 1000);
  const legacy = new SignJWT({ sub: "ada", iss: "https://old.example.test", aud: "shop", iat: now, exp: now + 3600 });
  tokens = {
    access: access_token,
    refresh: refresh_token,
    "access, bound to another browser": bound.body.access_token,
    "list of revocations": (await app.request("GET", "/api/v1/revocations")).body.revocations,
    legacy: await legacy.setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(new TextEncoder().encode(LEGACY_SECRET)),
    "client secret": client.client_secret,
    "client id": client.id,
    fingerprint,
    "session id": session_id,
    kid: app.deps.keys.signing().kid,
  };
});
afterAll(() => app.close());

type Slot = (token: string) => Promise<string>;
const codeOf = async (answer: ReturnType<HttpApp["request"]>) => {
  const { status, body } = await answer;
  return status < 300 ? "taken" : String(body.error.code ?? body.error);
};
const auth = (path: string, options: Parameters<HttpApp["request"]>[2]) =>
  codeOf(app.request("POST", `/api/v1/auth/${path}`, options));

/** Every place where a token is taken, and what each says of one that is not its own. */
const SLOTS: Readonly<
  Record<string, { readonly takes: readonly string[]; readonly refusal: string; readonly show: Slot }>
> = {
  "bearer at verify": {
    takes: ["access", "legacy"],
    refusal: "AUTH_TOKEN_INVALID",
    show: (token) => codeOf(app.request("GET", "/api/v1/auth/verify", { token })),
  },
  "bearer at the list of sessions": {
    takes: ["access", "legacy"],
    refusal: "AUTH_TOKEN_INVALID",
    show: (token) => codeOf(app.request("GET", "/api/v1/users/me/sessions", { token })),
  },
  "bearer at step-up": {
    takes: ["access"],
    refusal: "AUTH_TOKEN_INVALID",
    show: (token) => auth("step-up", { token, body: { password: PASSWORD } }),
  },
  "bearer at logout": { takes: [], refusal: "AUTH_TOKEN_INVALID", show: (token) => auth("logout", { token }) },
  "body of refresh": {
    takes: [],
    refusal: "AUTH_TOKEN_INVALID",
    show: (refresh_token) => auth("refresh", { body: { refresh_token } }),
  },
  "body of logout": {
    takes: [],
    refusal: "AUTH_TOKEN_INVALID",
    show: (refresh_token) => auth("logout", { body: { refresh_token } }),
  },
  "cookie of refresh": {
    takes: [],
    refusal: "AUTH_TOKEN_INVALID",
    show: (token) => auth("refresh", { headers: { origin: ORIGIN, cookie: `__Host-primer_refresh=${token}` } }),
  },
  "secret of a client": {
    takes: ["client secret"],
    refusal: "invalid_client",
    show: (client_secret) =>
      codeOf(
        app.request("POST", "/oauth2/introspect", {
          body: form({ token: "x" }),
          headers: { "content-type": FORM, authorization: basicOf({ id: client.id, client_secret }) },
        }),
      ),
  },
  introspection: {
    takes: ["access", "refresh", "access, bound to another browser"],
    refusal: "inactive",
    show: async (token) => ((await introspect(app, client, token)).body.active ? "taken" : "inactive"),
  },
};

/** Whose own kind these places would use up or end: shown last, in an order in which each is still good. */
const OWN: Readonly<Record<string, string>> = {
  "bearer at logout": "access",
  "body of refresh": "refresh",
  "body of logout": "refresh",
  "cookie of refresh": "refresh",
};

// A token is for one use: in the place of any other it is nothing at all, and showing it there does nothing.
describe("a token of one kind in another's place", () => {
  for (const [slot, { takes, refusal, show }] of Object.entries(SLOTS)) {
    test(slot, async () => {
      const answers: Record<string, string> = {};
      const expected: Record<string, string> = {};
      for (const [kind, token] of Object.entries(tokens)) {
        if (OWN[slot]?.startsWith(kind)) continue;
        // A bound token is an access token all the same: it may end its session, and nothing else without its browser.
        if (slot === "bearer at logout" && kind.startsWith("access")) continue;
        answers[kind] = await show(token);
        expected[kind] = takes.includes(kind) ? "taken" : refusal;
      }
      expect(answers).toEqual(expected);
    });
  }

  test("revocation answers 200 to all of them and ends nothing", async () => {
    for (const [kind, token] of Object.entries(tokens)) {
      if (/access|refresh/.test(kind)) continue;
      expect((await revoke(app, client, token)).status).toBe(200);
    }
    expect(await SLOTS["bearer at verify"]?.show(tokens.access ?? "")).toBe("taken");
  });

  test("after all of that each is still good in its own place", async () => {
    const bound = tokens["access, bound to another browser"] ?? "";
    const headers = { cookie: `__Host-primer_fp=${fingerprint}` };
    expect((await app.request("GET", "/api/v1/auth/verify", { token: bound, headers })).status).toBe(200);
    const rotated = await app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token: tokens.refresh } });
    expect(rotated.status).toBe(200);
    expect(await auth("logout", { body: { refresh_token: rotated.body.refresh_token } })).toBe("taken");
    expect(await SLOTS["bearer at verify"]?.show(tokens.access ?? "")).toBe("AUTH_TOKEN_REVOKED");
  });
});
