import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createClient } from "../../../server/features/clients/service.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { basicOf, type Credentials, FORM, form } from "../support/oauth.ts";
import { countRows } from "../support/scenario.ts";

const PATHS = ["/oauth2/introspect", "/oauth2/revoke"] as const;
const UNKNOWN_ID = "019b76da-a800-7000-8000-000000000000";

let app: HttpApp;
let client: Credentials;
let other: Credentials;
beforeAll(async () => {
  app = await openHttpApp({ PRIMER_RATE_LIMITS__CLIENT_FAILED: "off", PRIMER_RATE_LIMITS__INTROSPECT_FAILED: "off" });
  client = await createClient(app.deps, { name: "orders" }, { actor: { kind: "operator" } });
  other = await createClient(app.deps, { name: "other" }, { actor: { kind: "operator" } });
});
afterAll(() => app.close());

interface Case {
  readonly name: string;
  readonly fields?: () => Readonly<Record<string, string>>;
  /** The whole body, where it is no plain form. */
  readonly body?: string | (() => string);
  readonly headers?: () => Readonly<Record<string, string>>;
  readonly status: number;
  readonly error?: string;
}

const basic = (text: string) => ({ authorization: `Basic ${btoa(text)}` });
const asClient = () => ({ authorization: basicOf(client) });
const REFUSED = { status: 401, error: "invalid_client" } as const;
const INVALID = { status: 400, error: "invalid_request" } as const;
const percent = (text: string) => text.replace(/./g, (c) => `%${c.charCodeAt(0).toString(16)}`);

const CASES: readonly Case[] = [
  { name: "HTTP Basic", headers: asClient, status: 200 },
  { name: "basic in lower case", headers: () => ({ authorization: basicOf(client).replace("B", "b") }), status: 200 },
  {
    name: "HTTP Basic, every character percent-encoded",
    headers: () => basic(`${percent(client.id)}:${percent(client.client_secret)}`),
    status: 200,
  },
  {
    name: "HTTP Basic and the same client_id",
    headers: asClient,
    fields: () => ({ client_id: client.id }),
    status: 200,
  },
  {
    name: "in the form",
    fields: () => ({ client_id: client.id, client_secret: client.client_secret }),
    status: 200,
  },
  { name: "an empty client_secret besides", headers: asClient, fields: () => ({ client_secret: "" }), status: 200 },
  { name: "parameters that nobody knows", headers: asClient, fields: () => ({ x: "1", y: "ü" }), status: 200 },
  { name: "a hint of another kind", headers: asClient, fields: () => ({ token_type_hint: "x" }), status: 200 },
  { name: "a charset", headers: () => ({ ...asClient(), "content-type": `${FORM}; charset=UTF-8` }), status: 200 },

  { name: "nothing", ...REFUSED },
  { name: "a client_id alone", fields: () => ({ client_id: client.id }), ...REFUSED },
  { name: "a secret alone", fields: () => ({ client_secret: client.client_secret }), ...REFUSED },
  { name: "an unknown client", headers: () => basic(`${UNKNOWN_ID}:${client.client_secret}`), ...REFUSED },
  { name: "a client_id that is none", headers: () => basic(`orders:${client.client_secret}`), ...REFUSED },
  { name: "a client_id with NUL", headers: () => basic(`%00:${client.client_secret}`), ...REFUSED },
  { name: "a wrong secret", headers: () => basic(`${client.id}:${client.client_secret}x`), ...REFUSED },
  { name: "an empty secret", headers: () => basic(`${client.id}:`), ...REFUSED },
  {
    name: "the secret in capitals",
    headers: () => basic(`${client.id}:${client.client_secret.toUpperCase()}`),
    ...REFUSED,
  },
  { name: "another client's secret", headers: () => basic(`${client.id}:${other.client_secret}`), ...REFUSED },
  { name: "a wrong secret in the form", fields: () => ({ client_id: client.id, client_secret: "x" }), ...REFUSED },
  { name: "no colon", headers: () => basic(client.id), ...REFUSED },
  { name: "no base64", headers: () => ({ authorization: "Basic ???" }), ...REFUSED },
  { name: "an empty Basic", headers: () => ({ authorization: "Basic" }), ...REFUSED },
  { name: "a broken percent sign", headers: () => basic(`${client.id}:%zz`), ...REFUSED },
  {
    name: "the secret as a bearer token",
    headers: () => ({ authorization: `Bearer ${client.client_secret}` }),
    ...REFUSED,
  },
  {
    name: "60,000 characters of secret",
    fields: () => ({ client_id: client.id, client_secret: "a".repeat(60_000) }),
    ...REFUSED,
  },
  { name: "nothing, and no token either", body: "", ...REFUSED },

  {
    name: "both ways at once",
    headers: asClient,
    fields: () => ({ client_id: client.id, client_secret: client.client_secret }),
    ...INVALID,
  },
  { name: "two client_ids", headers: asClient, fields: () => ({ client_id: other.id }), ...INVALID },
  { name: "no token", headers: asClient, body: "token_type_hint=access_token", ...INVALID },
  { name: "an empty token", headers: asClient, body: "token=", ...INVALID },
  { name: "an empty body", headers: asClient, body: "", ...INVALID },
  { name: "the token twice", headers: asClient, body: "token=a&token=b", ...INVALID },
  { name: "the token twice, once escaped", headers: asClient, body: "token=a&%74oken=b", ...INVALID },
  { name: "the token twice, once empty", headers: asClient, body: "token=a&token=", ...INVALID },
  { name: "a percent sign alone", headers: asClient, body: "token=%", ...INVALID },
  { name: "percent-encoded bytes that are no UTF-8", headers: asClient, body: "token=%ff%fe", ...INVALID },
  {
    name: "200 parameters",
    headers: asClient,
    body: Array.from({ length: 200 }, (_, i) => `p${i}=1`).join("&"),
    ...INVALID,
  },
  {
    name: "100 KB of token",
    headers: asClient,
    fields: () => ({ token: "a".repeat(100_000) }),
    status: 413,
    error: "invalid_request",
  },
  {
    name: "60,000 characters of token",
    headers: asClient,
    fields: () => ({ token: "a.".repeat(30_000) }),
    status: 200,
  },
  {
    name: "100 KB announced",
    headers: () => ({ ...asClient(), "content-length": "100000" }),
    status: 413,
    error: "invalid_request",
  },
  ...["application/json", "multipart/form-data; boundary=x", "text/plain", `${FORM}x`, `${FORM}; charset=latin1`].map(
    (type) => ({
      name: type,
      headers: () => ({ ...asClient(), "content-type": type }),
      status: 415,
      error: "invalid_request",
    }),
  ),
];

for (const path of PATHS) {
  describe(`POST ${path}`, () => {
    // Only a registered client gets in, one way at a time, and no refusal tells what was wrong or does anything.
    for (const { name, fields, body, headers, status, error } of CASES) {
      test(`${status} ${name}`, async () => {
        const before = await countRows(app);
        const sent = typeof body === "string" ? body : form({ token: "nothing of ours", ...fields?.() });
        const answer = await app.request("POST", path, {
          body: sent,
          headers: { "content-type": FORM, ...headers?.() },
        });
        expect({ status: answer.status, error: answer.body?.error }).toEqual({ status, error });
        expect(answer.headers.get("www-authenticate")).toBe(status === 401 ? 'Basic realm="primer"' : null);
        expect(answer.text).not.toContain(client.client_secret);
        expect({ ...(await countRows(app)), audit_log: 0 }).toEqual({ ...before, audit_log: 0 });
      });
    }

    // A secret in a URL would stand in every log on the way.
    test.each(["token", "client_secret", "access_token"])("400 for %s in the URL", async (name) => {
      const answer = await app.request("POST", `${path}?${name}=x`, {
        body: form({ token: "x" }),
        headers: { "content-type": FORM, ...asClient() },
      });
      expect({ status: answer.status, error: answer.body.error }).toEqual(INVALID);
    });
  });
}

// An unknown client and a wrong secret are told the same, to the letter.
test("equal answers", async () => {
  const answers = await Promise.all(
    [`${UNKNOWN_ID}:${client.client_secret}`, `${client.id}:prs_${"a".repeat(43)}`, "x:y"].map((text) =>
      app.request("POST", PATHS[0], {
        body: "token=x",
        headers: { "content-type": FORM, "x-request-id": "the-same-id", ...basic(text) },
      }),
    ),
  );
  const shown = answers.map(({ status, text, headers }) => ({ status, text, headers: [...headers] }));
  expect(shown[1]).toEqual(shown[0] as (typeof shown)[0]);
  expect(shown[2]).toEqual(shown[0] as (typeof shown)[0]);
});

describe("errors under /oauth2/", () => {
  test.each([
    ["GET", "/oauth2/introspect", 405],
    ["PUT", "/oauth2/revoke", 405],
    ["GET", "/oauth2/", 404],
    ["POST", "/oauth2/token", 404],
    ["POST", "/oauth2/introspect/", 404],
    ["GET", "/oauth2/%ff", 404],
  ])("%s %s: %d", async (method, path, status) => {
    const answer = await app.request(method, path);
    expect({ status: answer.status, error: answer.body.error }).toEqual({ status, error: "invalid_request" });
    expect(answer.headers.get("allow")).toBe(status === 405 ? "POST" : null);
  });

  // A description is of the characters that RFC 6749 lets into one, whatever the request held.
  test("a strange parameter in the URL", async () => {
    const answer = await app.request("GET", "/oauth2/x?%22%5c%c3%bc=1&%22%5c%c3%bc=2");
    expect({ status: answer.status, error: answer.body.error }).toEqual(INVALID);
  });
});

// Neither a secret nor what carries one is ever written to the log.
test("no secret in the log", () => {
  const log = app.logLines.join("\n");
  expect(log).toContain("client.refused");
  for (const secret of [client, other].map(({ client_secret }) => client_secret)) {
    expect(log).not.toContain(secret);
    expect(log).not.toContain(secret.slice(4));
    expect(log).not.toContain(btoa(secret).slice(8, 40));
  }
});
