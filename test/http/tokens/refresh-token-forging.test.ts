import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { publicEncrypt, randomBytes } from "node:crypto";
import { deflateRawSync } from "node:zlib";
import { generationSecret } from "../../../server/features/tokens/service.ts";
import { encode, forgeryKeys, jwe, refreshSealKey } from "../support/forge.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { countRows } from "../support/scenario.ts";

const keys = await forgeryKeys();

let app: HttpApp;
let tokens: Awaited<ReturnType<HttpApp["login"]>>;
let familyId: string;
let key: { id: string; bytes: Uint8Array };

beforeAll(async () => {
  app = await openHttpApp();
  await app.createUser({ username: "ada" });
  tokens = await app.login("ada");
  key = refreshSealKey(app);
  const [row] = await app.db.query<{ id: string }>("SELECT id FROM refresh_families WHERE session_id = $1", [
    tokens.session_id,
  ]);
  familyId = row?.id ?? "";
});
afterAll(() => app.close());

const pointer = (change: object = {}) =>
  JSON.stringify({ f: familyId, g: 1, s: generationSecret(app.deps.keys.refresh(), familyId, 1), ...change });
const header = (change: object = {}) => ({
  alg: "dir",
  enc: "A256GCM",
  kid: key.id,
  typ: "primer-refresh+jwe",
  ...change,
});
/** Sealed with the right key, as only we can. */
const sealed = (head: object, plain: string | Uint8Array = pointer()) =>
  jwe({ header: header(head), plain, key: key.bytes });

/** A content key of the attacker's own, handed over under our published key. */
function underPublicKey(alg: string, oaepHash: string, kid: string): string {
  const contentKey = randomBytes(32);
  const encryptedKey = publicEncrypt({ key: keys.publicKey, oaepHash }, contentKey);
  return jwe({ header: header({ alg, kid }), plain: pointer(), key: contentKey, encryptedKey: encode(encryptedKey) });
}

const passwordBased = (rounds: number) =>
  jwe({
    header: header({ alg: "PBES2-HS256+A128KW", p2c: rounds, p2s: encode(randomBytes(16)) }),
    plain: pointer(),
    key: randomBytes(32),
    encryptedKey: encode(randomBytes(40)),
  });

/** One part of a token replaced by what `change` makes of its bytes. */
function changed(part: number, change: (bytes: Buffer) => Uint8Array): string {
  const parts = tokens.refresh_token.split(".");
  parts[part] = encode(change(Buffer.from(parts[part] ?? "", "base64url")));
  return parts.join(".");
}
const flip = (bytes: Buffer) => {
  bytes.writeUInt8(bytes.readUInt8(0) ^ 1, 0);
  return bytes;
};

const FORGERIES: Readonly<Record<string, () => string>> = {
  "RSA-OAEP under our signing key": () => underPublicKey("RSA-OAEP", "sha1", app.deps.keys.signing().kid),
  "RSA-OAEP under our signing key, kid of the refresh key": () => underPublicKey("RSA-OAEP", "sha1", key.id),
  "RSA-OAEP-256 under our signing key": () => underPublicKey("RSA-OAEP-256", "sha256", key.id),
  "RSA1_5 in the header": () => sealed({ alg: "RSA1_5" }),
  "ECDH-ES with a key of its own": () => sealed({ alg: "ECDH-ES", epk: { kty: "EC", crv: "P-256", x: "AA", y: "AA" } }),
  A256KW: () =>
    jwe({
      header: header({ alg: "A256KW" }),
      plain: pointer(),
      key: randomBytes(32),
      encryptedKey: encode(randomBytes(40)),
    }),
  "PBES2 with 1000 rounds": () => passwordBased(1000),
  "PBES2 with 2^31 rounds": () => passwordBased(2 ** 31),
  "alg none": () => sealed({ alg: "none" }),
  "alg missing": () => sealed({ alg: undefined }),
  "zip DEF": () => sealed({ zip: "DEF" }, deflateRawSync(pointer())),
  "zip DEF as a bomb": () => sealed({ zip: "DEF" }, deflateRawSync(Buffer.alloc(200_000))),
  "zip DEF over plain content": () => sealed({ zip: "DEF" }),
  crit: () => sealed({ crit: ["x"], x: 1 }),
  "A128GCM with the first half of the key": () =>
    jwe({ header: header({ enc: "A128GCM" }), plain: pointer(), key: key.bytes.subarray(0, 16) }),
  "A128GCM in the header": () => sealed({ enc: "A128GCM" }),
  "A192GCM in the header": () => sealed({ enc: "A192GCM" }),
  "A128CBC-HS256 in the header": () => sealed({ enc: "A128CBC-HS256" }),
  "enc missing": () => sealed({ enc: undefined }),
  "a key of zeros": () => jwe({ header: header(), plain: pointer(), key: new Uint8Array(32) }),
  "kid missing": () => sealed({ kid: undefined }),
  "kid unknown": () => sealed({ kid: "AAAAAAAA" }),
  "kid a path": () => sealed({ kid: "../../dev/null" }),
  "kid a list": () => sealed({ kid: [key.id] }),
  "typ missing": () => sealed({ typ: undefined }),
  "typ at+jwt": () => sealed({ typ: "at+jwt" }),
  "typ JWE": () => sealed({ typ: "JWE" }),
  "header changed after sealing": () => {
    const [, ...rest] = tokens.refresh_token.split(".");
    return [encode(JSON.stringify(header({ cty: "x" }))), ...rest].join(".");
  },
  "a bit of the content changed": () => changed(3, flip),
  "a bit of the IV changed": () => changed(2, flip),
  "a bit of the tag changed": () => changed(4, flip),
  "content cut off": () => changed(3, (bytes) => bytes.subarray(0, -1)),
  "a tag of 12 bytes": () => changed(4, (bytes) => bytes.subarray(0, 12)),
  "a tag of 4 bytes": () => changed(4, (bytes) => bytes.subarray(0, 4)),
  "an IV of 8 bytes": () => changed(2, (bytes) => bytes.subarray(0, 8)),
  "an encrypted key where there is none": () => changed(1, () => randomBytes(8)),
  "the last character cut off": () => tokens.refresh_token.slice(0, -1),
  "padding at its end": () => `${tokens.refresh_token}=`,
  "a space at its end": () => `${tokens.refresh_token} `,
  "a sixth part": () => `${tokens.refresh_token}.AAAA`,
  "four parts": () => tokens.refresh_token.split(".").slice(0, 4).join("."),
  "4000 dots": () => ".".repeat(4000),
  "an access token": () => tokens.access_token,
  "a session id": () => tokens.session_id,

  // Sealed with the right key, so that only the content is wrong: the row decides, and a token only points to it.
  "content no JSON": () => sealed({}, "{"),
  "content null": () => sealed({}, "null"),
  "content a list": () => sealed({}, "[]"),
  "a family that is not there": () => sealed({}, pointer({ f: "019ca945-0a00-7000-8000-000000000000" })),
  "a family that is no UUID": () => sealed({}, pointer({ f: "what-is-this" })),
  "a family with SQL": () => sealed({}, pointer({ f: `${familyId}' OR 1=1--` })),
  "a family with NUL": () => sealed({}, pointer({ f: "a\u0000b" })),
  "a session id as family": () => sealed({}, pointer({ f: tokens.session_id })),
  "another secret": () => sealed({}, pointer({ s: randomBytes(32).toString("base64url") })),
  "an empty secret": () => sealed({}, pointer({ s: "" })),
  "no secret": () => sealed({}, pointer({ s: undefined })),
  "a generation that is yet to come": () => sealed({}, pointer({ g: 2 })),
  "a generation that is no number": () => sealed({}, pointer({ g: "first" })),
  "no generation": () => sealed({}, pointer({ g: undefined })),
  "a generation between two": () => sealed({}, pointer({ g: 0.5 })),
};

const BOUND_MS = 250;

describe("forged refresh tokens", () => {
  // The forgeries differ from a good token in one thing each: this one, made the same way, opens.
  test("a token made by hand with our key is accepted", async () => {
    const mine = await app.login("ada");
    const [row] = await app.db.query<{ id: string }>("SELECT id FROM refresh_families WHERE session_id = $1", [
      mine.session_id,
    ]);
    const f = row?.id ?? "";
    const s = generationSecret(app.deps.keys.refresh(), f, 1);
    const answer = await app.request("POST", "/api/v1/auth/refresh", {
      body: { refresh_token: sealed({}, JSON.stringify({ f, g: 1, s })) },
    });
    expect(answer.status).toBe(200);
  });

  // Only what we sealed ourselves with our symmetric key opens, and only the row says what it is worth. Refused as
  // invalid, quickly; neither refresh nor logout does anything for it.
  for (const [name, make] of Object.entries(FORGERIES)) {
    test(name, async () => {
      const before = await countRows(app);
      const body = { refresh_token: make() };
      const started = performance.now();
      const answer = await app.request("POST", "/api/v1/auth/refresh", { body });
      const took = performance.now() - started;
      expect({ status: answer.status, code: answer.body.error?.code }).toEqual({
        status: 401,
        code: "AUTH_TOKEN_INVALID",
      });
      expect(took).toBeLessThan(BOUND_MS);
      expect(await countRows(app)).toEqual(before);
      const [family] = await app.db.query("SELECT generation, revoked_at FROM refresh_families WHERE id = $1", [
        familyId,
      ]);
      expect(family).toEqual({ generation: 1, revoked_at: null });
    });
  }

  /** What logout does not look at: whoever holds any token of a session may end it, a used one too. */
  const LEFT_TO_REFRESH = new Set([
    "another secret",
    "an empty secret",
    "no secret",
    "a generation that is yet to come",
  ]);

  // Logging out asks for a token that opens, like refreshing does.
  for (const [name, make] of Object.entries(FORGERIES)) {
    if (LEFT_TO_REFRESH.has(name)) continue;
    test(`logout: ${name}`, async () => {
      const answer = await app.request("POST", "/api/v1/auth/logout", { body: { refresh_token: make() } });
      expect({ status: answer.status, code: answer.body?.error?.code }).toEqual({
        status: 401,
        code: "AUTH_TOKEN_INVALID",
      });
    });
  }
});
