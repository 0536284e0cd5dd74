import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { constants, generateKeyPairSync, sign as signBytes } from "node:crypto";
import { encode, forgeryKeys, hmac, jws, partsOf, rsa } from "../support/forge.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { countRows } from "../support/scenario.ts";

const VERIFY = "/api/v1/auth/verify";

const keys = await forgeryKeys();
const stranger = generateKeyPairSync("rsa", { modulusLength: 2048 });
const strangerJwk = stranger.publicKey.export({ format: "jwk" });

let app: HttpApp;
let token: string;
let refreshToken: string;
let header: Record<string, unknown>;
let claims: Record<string, unknown>;
/** A server that a token may ask us to fetch keys from; it counts who comes. */
let visits = 0;
const sink = Bun.serve({
  port: 0,
  fetch: () => {
    visits++;
    return Response.json({ keys: [{ ...strangerJwk, kid: "sink", alg: "RS256" }] });
  },
});

beforeAll(async () => {
  app = await openHttpApp();
  await app.createUser({ username: "ada" });
  const tokens = await app.login("ada");
  token = tokens.access_token;
  refreshToken = tokens.refresh_token;
  ({ header, claims } = partsOf(token) as { header: Record<string, unknown>; claims: Record<string, unknown> });
});
afterAll(async () => {
  await app.close();
  await sink.stop(true);
});

const ours = rsa(keys.privateKey);
const theirs = rsa(stranger.privateKey);
const signed = (head: object, body: object) => jws({ ...header, ...head }, { ...claims, ...body }, ours);
const without = (name: string) => Object.fromEntries(Object.entries(claims).filter(([key]) => key !== name));
/** Claims written as text, so that a number can be one that JSON.stringify never writes. */
const claimsWith = (name: string, text: string) =>
  JSON.stringify({ ...claims, [name]: "REPLACED" }).replace('"REPLACED"', text);
const now = () => app.clock.now().getTime() / 1000;

type Forgeries = Readonly<Record<string, () => string>>;

const unsigned = (alg: string) => jws({ ...header, alg }, claims, () => new Uint8Array());
const keyed = (secret: string | Uint8Array) => jws({ ...header, alg: "HS256" }, claims, hmac(secret));
const pss = (input: string) =>
  signBytes("sha256", Buffer.from(input), {
    key: keys.privateKey,
    padding: constants.RSA_PKCS1_PSS_PADDING,
    saltLength: 32,
  });

/** RFC 8725, sections 3.1 and 3.2: the key says which algorithm counts, never the token. */
const ALGORITHMS: Forgeries = {
  "alg none": () => unsigned("none"),
  "alg None": () => unsigned("None"),
  "alg nOnE": () => unsigned("nOnE"),
  "alg empty": () => unsigned(""),
  "alg none with our signature": () => jws({ ...header, alg: "none" }, claims, ours),
  "alg missing": () => jws({ kid: header.kid, typ: header.typ }, claims, ours),
  "alg a list": () => jws({ ...header, alg: ["RS256"] }, claims, ours),
  "HS256 keyed with the public PEM": () => keyed(keys.pem),
  "HS256 keyed with the public PEM, trimmed": () => keyed(keys.pem.trim()),
  "HS256 keyed with the public PEM (PKCS 1)": () => keyed(keys.pkcs1),
  "HS256 keyed with the public DER": () => keyed(keys.der),
  "HS256 keyed with the modulus": () => keyed(keys.modulus),
  "HS256 keyed with the modulus as it is published": () => keyed(String(keys.publicJwk.n)),
  "HS256 keyed with the public JWK": () => keyed(JSON.stringify(keys.publicJwk)),
  "HS256 keyed with nothing": () => keyed(""),
  "RS384 by our key": () => jws({ ...header, alg: "RS384" }, claims, rsa(keys.privateKey, "sha384")),
  "RS512 by our key": () => jws({ ...header, alg: "RS512" }, claims, rsa(keys.privateKey, "sha512")),
  "PS256 by our key": () => jws({ ...header, alg: "PS256" }, claims, pss),
  "a PSS signature under RS256": () => jws(header, claims, pss),
  "ES256 in the header": () => jws({ ...header, alg: "ES256" }, claims, ours),
  "an empty signature": () => jws(header, claims, () => new Uint8Array()),
  "a signature of zeros": () => jws(header, claims, () => new Uint8Array(512)),
  "a changed claim": () => {
    const [head, , signature] = token.split(".");
    return [head, encode(JSON.stringify({ ...claims, roles: ["admin"] })), signature].join(".");
  },
  "a stranger's signature under our kid": () => jws(header, claims, theirs),
};

/** RFC 8725, section 3.10: a token does not say where its key comes from. */
const KEY_SOURCES: Forgeries = {
  "a key of its own (jwk)": () => jws({ ...header, jwk: strangerJwk }, claims, theirs),
  "a key of its own and no kid": () => jws({ alg: "RS256", typ: header.typ, jwk: strangerJwk }, claims, theirs),
  "a key to fetch (jku)": () => jws({ ...header, kid: "sink", jku: `${sink.url}jwks.json` }, claims, theirs),
  "a key to fetch under our kid": () => jws({ ...header, jku: `${sink.url}jwks.json` }, claims, theirs),
  "a certificate to fetch (x5u)": () => jws({ ...header, x5u: sink.url.href }, claims, theirs),
  "a certificate of its own (x5c)": () => jws({ ...header, x5c: [encode("certificate")] }, claims, theirs),
  "an unknown crit": () => signed({ crit: ["https://example.test/ext"], "https://example.test/ext": true }, {}),
  "an empty crit": () => signed({ crit: [] }, {}),
  "crit b64": () => signed({ crit: ["b64"], b64: true }, {}),
  "kid missing": () => jws({ alg: "RS256", typ: header.typ }, claims, ours),
  "kid a path": () => signed({ kid: "../../../../dev/null" }, {}),
  "kid a path, keyed with nothing": () => jws({ ...header, alg: "HS256", kid: "../../dev/null" }, claims, hmac("")),
  "kid SQL": () => signed({ kid: "x' OR 1=1--" }, {}),
  "kid UNION": () => signed({ kid: "x' UNION SELECT 'key'--" }, {}),
  "kid a number": () => signed({ kid: 1 }, {}),
  "kid a list": () => signed({ kid: [header.kid] }, {}),
  "kid __proto__": () => signed({ kid: "__proto__" }, {}),
  "kid in another case": () => signed({ kid: String(header.kid).toUpperCase() }, {}),
  "kid of the refresh key": () => signed({ kid: app.deps.keys.refresh().id }, {}),
};

/** RFC 9068, section 4, and RFC 8725, section 3.11: one kind of token for one use. */
const KINDS: Forgeries = {
  "typ JWT": () => signed({ typ: "JWT" }, {}),
  "typ missing": () => jws({ alg: header.alg, kid: header.kid }, claims, ours),
  "typ logout+jwt": () => signed({ typ: "logout+jwt" }, {}),
  "typ dpop+jwt": () => signed({ typ: "dpop+jwt" }, {}),
  "typ a list": () => signed({ typ: ["at+jwt"] }, {}),
  "a refresh token": () => refreshToken,
};

/** Issuer and audience are exactly ours. */
const PARTIES: Forgeries = {
  "iss with a slash at its end": () => signed({}, { iss: `${claims.iss}/` }),
  "iss in capitals": () => signed({}, { iss: String(claims.iss).toUpperCase() }),
  "iss over https": () => signed({}, { iss: String(claims.iss).replace("http:", "https:") }),
  "iss of a sub-domain": () => signed({}, { iss: "http://evil.primer.test" }),
  "iss as the start of ours": () => signed({}, { iss: "http://primer" }),
  "iss empty": () => signed({}, { iss: "" }),
  "iss a list": () => signed({}, { iss: [claims.iss] }),
  "iss missing": () => jws(header, without("iss"), ours),
  "aud of another service": () => signed({}, { aud: "orders" }),
  "aud in capitals": () => signed({}, { aud: "PRIMER" }),
  "aud with a space": () => signed({}, { aud: "primer " }),
  "aud a list of look-alikes": () => signed({}, { aud: ["prime", "primer2", "primer/"] }),
  "aud an empty list": () => signed({}, { aud: [] }),
  "aud an object": () => signed({}, { aud: { primer: true } }),
  "aud missing": () => jws(header, without("aud"), ours),
};

/** Every claim that counts is there and is what it must be. */
const CLAIMS: Forgeries = {
  ...Object.fromEntries(
    ["sub", "sid", "jti", "iat", "exp"].flatMap((name): [string, () => string][] => [
      [`${name} missing`, () => jws(header, without(name), ours)],
      [`${name} null`, () => signed({}, { [name]: null })],
      [`${name} a list`, () => signed({}, { [name]: [claims[name]] })],
    ]),
  ),
  ...Object.fromEntries(
    ["iat", "exp"].flatMap((name): [string, () => string][] => [
      [`${name} as text`, () => signed({}, { [name]: String(claims[name]) })],
      [`${name} 1e400`, () => jws(header, claimsWith(name, "1e400"), ours)],
      [`${name} 1e300`, () => jws(header, claimsWith(name, "1e300"), ours)],
    ]),
  ),
  "iat -1": () => signed({}, { iat: -1 }),
  "nbf as text": () => signed({}, { nbf: "1" }),
  "nbf 1e400": () => jws(header, claimsWith("nbf", "1e400"), ours),
  "nbf in 61 seconds": () => signed({}, { nbf: now() + 61 }),
  "sub empty": () => signed({}, { sub: "" }),
  "sub a number": () => signed({}, { sub: 1 }),
  "sid no UUID": () => signed({}, { sid: "what-is-this" }),
  "sid SQL": () => signed({}, { sid: "' OR 1=1--" }),
  "sid NUL": () => signed({}, { sid: "a\u0000b" }),
  "claims a list": () => jws(header, "[]", ours),
  "claims null": () => jws(header, "null", ours),
  "claims text": () => jws(header, '"claims"', ours),
  "claims no JSON": () => jws(header, "{", ours),
  "claims not UTF-8": () => jws(header, Buffer.from([0xff, 0xfe]).toString("latin1"), ours),
  "header a list": () => jws("[]", claims, ours),
  "header null": () => jws("null", claims, ours),
  "header no JSON": () => jws("{", claims, ours),
};

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/** The same bits in another spelling of the last character, whose lowest bits no byte uses. */
function nonCanonical(): string {
  const last = ALPHABET.indexOf(token.at(-1) ?? "");
  return token.slice(0, -1) + ALPHABET[last ^ 1];
}

/** One token has one spelling (RFC 7515, section 2): else a list of revoked ones could be walked around. */
const SPELLINGS: Forgeries = {
  "padding at its end": () => `${token}=`,
  "padding in the middle": () => token.replace(".", "=."),
  "a last character with unused bits": nonCanonical,
  "a fourth part": () => `${token}.${encode("x")}`,
  "an empty fourth part": () => `${token}.`,
  "an empty first part": () => `.${token}`,
  "two parts": () => token.split(".").slice(0, 2).join("."),
  "letters of plain base64": () => token.replaceAll("-", "+").replaceAll("_", "/"),
  "percent signs": () => token.replaceAll(".", "%2E"),
  "quotes around it": () => `"${token}"`,
  "the last character cut off": () => token.slice(0, -1),
  "10,000 dots": () => ".".repeat(10_000),
  "8,000 dots": () => ".".repeat(8000),
  "a header of 64 KiB": () => `${encode(JSON.stringify({ ...header, x: "x".repeat(65_536) }))}.e30.e30`,
  "a deep header": () => `${encode(`{"kid":${"[".repeat(2500)}${"]".repeat(2500)}}`)}.e30.e30`,
};

const TABLES: Readonly<Record<string, Forgeries>> = {
  "Only the algorithm of the key counts": ALGORITHMS,
  "Keys come from our own set alone": KEY_SOURCES,
  "An access token is an access token": KINDS,
  "Issuer and audience are exact": PARTIES,
  "Malformed claims are refused": CLAIMS,
  "A token has one spelling, and reading it is bounded": SPELLINGS,
};

/** Reading any text that pretends to be a token takes this long at most (milliseconds), on a busy machine too. */
const BOUND_MS = 250;

async function expectInvalid(forged: string): Promise<void> {
  const started = performance.now();
  const answer = await app.request("GET", VERIFY, { token: forged });
  const took = performance.now() - started;
  expect({ status: answer.status, code: answer.body.error.code }).toEqual({ status: 401, code: "AUTH_TOKEN_INVALID" });
  expect(answer.headers.get("www-authenticate")).toBe('Bearer error="invalid_token"');
  expect(answer.headers.get("x-auth-user-id")).toBeNull();
  expect(answer.text).not.toContain(forged.slice(0, 40));
  expect(took).toBeLessThan(BOUND_MS);
  // Whoever cannot use a token cannot end its session with it either.
  const logout = await app.request("POST", "/api/v1/auth/logout", { token: forged });
  expect({ status: logout.status, code: logout.body.error.code }).toEqual({ status: 401, code: "AUTH_TOKEN_INVALID" });
}

describe("forged access tokens", () => {
  // What the forgeries are made from is good: else they would be refused for another reason than the one tried.
  test("a token made by hand with our key and our claims is accepted", async () => {
    expect((await app.request("GET", VERIFY, { token: signed({}, {}) })).status).toBe(200);
    expect((await app.request("GET", VERIFY, { token: signed({}, { nbf: now() + 20 }) })).status).toBe(200);
    expect((await app.request("GET", VERIFY, { token })).status).toBe(200);
  });

  for (const [guarantee, forgeries] of Object.entries(TABLES)) {
    // Each of them is refused as invalid, quickly, with nothing told and nothing done.
    describe(guarantee, () => {
      for (const [name, make] of Object.entries(forgeries)) test(name, () => expectInvalid(make()));
    });
  }

  // A token with a space in it is no token (RFC 6750, section 2.1).
  for (const [name, place] of [
    ["a space", " "],
    ["a tab", "\t"],
  ] as const) {
    test(`${name} inside of the token`, async () => {
      const authorization = `Bearer ${token.slice(0, 100)}${place}${token.slice(100)}`;
      const answer = await app.request("GET", VERIFY, { headers: { authorization } });
      expect(answer.status).toBe(401);
      expect(answer.body.error.code).toMatch(/^AUTH_TOKEN_(INVALID|MISSING)$/);
    });
  }

  // A good token past its time is told so; clocks may differ by the skew, and by no more.
  test("times: exp counts, with a skew of 30 seconds", async () => {
    const codeAt = async (body: object) =>
      (await app.request("GET", VERIFY, { token: signed({}, body) })).body.error?.code ?? "ok";
    expect(await codeAt({ exp: now() + 1 })).toBe("ok");
    expect(await codeAt({ exp: now() - 29 })).toBe("ok");
    expect(await codeAt({ exp: now() - 31 })).toBe("AUTH_TOKEN_EXPIRED");
    expect(await codeAt({ exp: now() - 61 })).toBe("AUTH_TOKEN_EXPIRED");
    expect(await codeAt({ exp: -1 })).toMatch(/^AUTH_TOKEN_(EXPIRED|INVALID)$/);
    expect(await codeAt({ exp: 0 })).toMatch(/^AUTH_TOKEN_(EXPIRED|INVALID)$/);
  });

  // The row of the session decides: a signature alone opens nothing.
  test("a session that is not there, or is somebody else's", async () => {
    const other = await app.createUser({ username: "bob" });
    for (const body of [{ sid: "019ca945-0a00-7000-8000-000000000000" }, { sub: other.id }]) {
      const answer = await app.request("GET", VERIFY, { token: signed({}, body) });
      expect({ status: answer.status, code: answer.body.error.code }).toEqual({
        status: 401,
        code: "AUTH_TOKEN_REVOKED",
      });
    }
  });

  // No claim of a token gives its bearer anything: rights come from the database.
  test("roles and scope in the token give nothing", async () => {
    const forged = signed({}, { roles: ["admin"], scope: "*:*" });
    const answer = await app.request("GET", `${VERIFY}?permission=users:read`, { token: forged });
    expect(answer.status).toBe(403);
    expect((await app.request("GET", VERIFY, { token: forged })).body).toMatchObject({ roles: ["user"], scope: "" });
  });

  // After all of it nobody came to fetch a key, nothing was written, and the session they were made from goes on.
  test("nothing was fetched and nothing was done", async () => {
    const before = await countRows(app);
    for (const make of Object.values(KEY_SOURCES)) await app.request("GET", VERIFY, { token: make() });
    expect(visits).toBe(0);
    expect(await countRows(app)).toEqual(before);
    expect((await app.request("GET", VERIFY, { token })).status).toBe(200);
    expect((await (await fetch(sink.url)).json()).keys).toHaveLength(1);
    expect(visits).toBe(1);
  });
});
