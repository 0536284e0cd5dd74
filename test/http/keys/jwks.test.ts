import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { calculateJwkThumbprint, createLocalJWKSet, type JWK, jwtVerify } from "jose";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";

const PATH = "/.well-known/jwks.json";
const APP_ORIGIN = "https://app.test";
const PRIVATE_PARTS = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

let app: HttpApp;
let keys: JWK[];
let etag: string;
beforeAll(async () => {
  app = await openHttpApp({ PRIMER_SERVER__CORS_ORIGINS: APP_ORIGIN });
  const answer = await app.request("GET", PATH);
  keys = answer.body.keys;
  etag = answer.headers.get("etag") ?? "";
});
afterAll(() => app.close());

const fetchWith = (headers: Record<string, string>) => app.request("GET", PATH, { headers });

describe("GET /.well-known/jwks.json", () => {
  // What is published lets others check our tokens, and lets nobody make one.
  test("public parts only", () => {
    expect(keys.length).toBeGreaterThan(0);
    for (const key of keys) {
      expect(Object.keys(key).filter((name) => PRIVATE_PARTS.includes(name))).toEqual([]);
      expect(key).toMatchObject({ kty: "RSA", use: "sig", alg: "RS256" });
      expect(key.kid).toMatch(/^[\w-]{43}$/);
    }
    expect(keys.map((key) => key.kid)).not.toContain(app.deps.keys.refresh().id);
  });

  // A kid is made from its key (RFC 7638): it cannot be given to another, and no two are the same.
  test("kid is the thumbprint", async () => {
    for (const key of keys) expect(key.kid).toBe(await calculateJwkThumbprint(key, "sha256"));
    expect(new Set(keys.map((key) => key.kid)).size).toBe(keys.length);
  });

  // RSA keys have at least 3072 bits, ours 4096.
  test("long enough keys", () => {
    for (const key of keys) expect(Buffer.from(String(key.n), "base64url").length).toBeGreaterThanOrEqual(384);
  });

  // An application that knows nothing but the key set can check a token of ours.
  test("tokens verify against it", async () => {
    await app.createUser({ username: "ada" });
    const { access_token } = await app.login("ada");
    const set = createLocalJWKSet({ keys });
    const options = { currentDate: app.clock.now(), issuer: "http://primer.test", audience: "primer", typ: "at+jwt" };
    const { protectedHeader } = await jwtVerify(access_token, set, options);
    expect(keys.map((key) => key.kid)).toContain(protectedHeader.kid);
  });

  // Caches keep the set for five minutes at most: a new key is seen before it signs, a bad one is gone soon.
  test("cache headers", async () => {
    const answer = await app.request("GET", PATH);
    const maxAge = /^public, max-age=(\d+)$/.exec(answer.headers.get("cache-control") ?? "")?.[1];
    expect(Number(maxAge)).toBeWithin(1, 301);
    expect(answer.headers.get("etag")).toMatch(/^"[\w-]{16,}"$/);
    expect(answer.headers.get("content-type")).toMatch(/^application\/(jwk-set\+)?json/);
  });

  // If-None-Match compares weakly and takes a list (RFC 9110, section 13.1.2), as caches in between send it.
  const CONDITIONS: Readonly<Record<string, [string | (() => string), number]>> = {
    "the ETag": [() => etag, 304],
    "the ETag, weakened by a proxy": [() => `W/${etag}`, 304],
    "a list with the ETag in it": [() => `"other", ${etag}`, 304],
    "any (*)": ["*", 304],
    "another ETag": ['"other"', 200],
    "the ETag without quotes": [() => etag.replaceAll('"', ""), 200],
  };
  for (const [name, [value, status]] of Object.entries(CONDITIONS)) {
    test(`${status} for ${name}`, async () => {
      const answer = await fetchWith({ "if-none-match": typeof value === "string" ? value : value() });
      expect(answer.status).toBe(status);
      expect(answer.headers.get("etag")).toBe(etag);
      expect(answer.headers.get("cache-control")).toMatch(/^public, max-age=/);
      if (status === 304) expect(answer.text).toBe("");
    });
  }

  // Public keys are public: any page may read them. "*" is never combined with credentials, whatever origin asks.
  for (const origin of [APP_ORIGIN, "https://elsewhere.test", "null"]) {
    test(`CORS for ${origin}`, async () => {
      const { headers } = await fetchWith({ origin });
      const credentials = headers.get("access-control-allow-credentials");
      const allowed = headers.get("access-control-allow-origin");
      if (origin === APP_ORIGIN && allowed === origin) expect(headers.get("vary")).toContain("Origin");
      else expect({ allowed, credentials }).toEqual({ allowed: "*", credentials: null });
    });
  }
});
