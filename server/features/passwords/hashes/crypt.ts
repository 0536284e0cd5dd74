import { createHash, timingSafeEqual } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { assertBounded, base64, type HashFormat, HashRefused, type Verify } from "./format.ts";

/**
 * The hashes of crypt(3) that are made of a plain digest, some thousand times over. They are computed here, in slices
 * between which requests are answered: there is no primitive for them, and the libraries that have them compute them in
 * one go.
 */
const SLICE = 2048;
const CRYPT_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

type Algorithm = "md5" | "sha1" | "sha256" | "sha512";
type Part = Uint8Array | string;

const digestOf = (algorithm: Algorithm, ...parts: readonly Part[]): Buffer => {
  const hash = createHash(algorithm);
  for (const part of parts) hash.update(part);
  return hash.digest();
};

/** Runs `step` so many times, letting others in between. */
async function repeat(times: number, step: (round: number) => void): Promise<void> {
  for (let round = 0; round < times; round++) {
    if (round > 0 && round % SLICE === 0) await setImmediate();
    step(round);
  }
}

/** The first bytes of a digest that is written again and again. */
const cycled = (digest: Buffer, length: number): Buffer => Buffer.alloc(length, digest);

/** Four characters for three bytes, lowest bits first, as crypt(3) writes them. */
function cryptBase64(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 3) {
    const three = bytes.subarray(at, at + 3);
    let value = (three[0] ?? 0) | ((three[1] ?? 0) << 8) | ((three[2] ?? 0) << 16);
    for (let digit = 0; digit <= three.length; digit++, value >>>= 6) text += CRYPT_ALPHABET[value & 63];
  }
  return text;
}

/** crypt(3) mixes the bytes of a digest before it writes them: three at a time, each this far from the one before. */
function mixed(digest: Buffer, order: readonly number[]): Uint8Array {
  return Uint8Array.from(order, (index) => digest[index] ?? 0);
}

const sameText = (a: string, b: string) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));

/** The work grows with the password, which those who made these hashes kept shorter than this (bytes). */
const LONGEST_PASSWORD = 256;

const againstText =
  (expected: string, compute: (password: Buffer) => Promise<string>): Verify =>
  async (password) =>
    password.length <= LONGEST_PASSWORD && sameText(await compute(password), expected);

/** SHA-crypt's order: each group of three moves on by one place in another of the three parts of the digest. */
function shaOrder(bytes: number): number[] {
  const third = Math.floor(bytes / 3);
  const step = bytes === 64 ? 1 : 2;
  const groups = Array.from({ length: third }, (_, group) => {
    const three = [0, third, third * 2].map((start) => start + group);
    const turn = (group * step) % 3;
    return [...three.slice(turn), ...three.slice(0, turn)].reverse();
  });
  return [...groups.flat(), ...(bytes === 64 ? [63] : [30, 31])];
}

const MAX_SHA_ROUNDS = 1_000_000;
const MIN_SHA_ROUNDS = 1000;
const DEFAULT_SHA_ROUNDS = 5000;
const SHA_CRYPT = {
  5: { algorithm: "sha256", order: shaOrder(32) },
  6: { algorithm: "sha512", order: shaOrder(64) },
} as const;

/** Steps 1 to 21 of "Unix crypt using SHA-256 and SHA-512" (Ulrich Drepper, version 0.6). */
async function shaCrypt(kind: 5 | 6, password: Buffer, salt: string, rounds: number): Promise<string> {
  const { algorithm, order } = SHA_CRYPT[kind];
  const inner = digestOf(algorithm, password, salt, password);
  const parts: Part[] = [password, salt, cycled(inner, password.length)];
  for (let bits = password.length; bits > 0; bits >>= 1) parts.push(bits & 1 ? inner : password);
  let digest = digestOf(algorithm, ...parts);
  const p = cycled(digestOf(algorithm, ...Array(password.length).fill(password)), password.length);
  const s = cycled(digestOf(algorithm, ...Array(16 + (digest[0] ?? 0)).fill(salt)), salt.length);
  await repeat(rounds, (round) => {
    const odd = round % 2 === 1;
    const hash = createHash(algorithm).update(odd ? p : digest);
    if (round % 3 !== 0) hash.update(s);
    if (round % 7 !== 0) hash.update(p);
    digest = hash.update(odd ? digest : p).digest();
  });
  return cryptBase64(mixed(digest, order));
}

const MD5_ORDER = [12, 6, 0, 13, 7, 1, 14, 8, 2, 15, 9, 3, 5, 10, 4, 11];
const MD5_ROUNDS = 1000;

/** MD5-crypt as FreeBSD made it (Poul-Henning Kamp); Apache's differs in its name alone. */
async function md5Crypt(password: Buffer, salt: string, magic: string): Promise<string> {
  const inner = digestOf("md5", password, salt, password);
  const parts: Part[] = [password, magic, salt, cycled(inner, password.length)];
  const first = password.subarray(0, 1);
  for (let bits = password.length; bits > 0; bits >>= 1) parts.push(bits & 1 ? "\0" : first);
  let digest = digestOf("md5", ...parts);
  await repeat(MD5_ROUNDS, (round) => {
    const odd = round % 2 === 1;
    const hash = createHash("md5").update(odd ? password : digest);
    if (round % 3 !== 0) hash.update(salt);
    if (round % 7 !== 0) hash.update(password);
    digest = hash.update(odd ? digest : password).digest();
  });
  return cryptBase64(mixed(digest, MD5_ORDER));
}

const MAX_PHPASS_EXPONENT = 20;

/** phpass's portable hash (Solar Designer): MD5 over and over, of the digest before and the password. */
async function phpass(password: Buffer, salt: string, rounds: number): Promise<string> {
  let digest = digestOf("md5", salt, password);
  await repeat(rounds, () => {
    digest = digestOf("md5", digest, password);
  });
  return cryptBase64(digest);
}

const LDAP_DIGESTS: Readonly<Record<string, { readonly algorithm: Algorithm; readonly bytes: number }>> = {
  SSHA: { algorithm: "sha1", bytes: 20 },
  SSHA256: { algorithm: "sha256", bytes: 32 },
  SSHA512: { algorithm: "sha512", bytes: 64 },
};
const MAX_LDAP_SALT_BYTES = 64;

/** The digest of password and salt, once; the salt stands behind the digest. */
function saltedSha(scheme: string, encoded: string): Verify {
  const { algorithm, bytes } = LDAP_DIGESTS[scheme.toUpperCase()] ?? { algorithm: "sha1", bytes: 20 };
  const whole = base64(encoded);
  const [digest, salt] = [whole.subarray(0, bytes), whole.subarray(bytes)];
  if (digest.length < bytes) throw new HashRefused(`its digest has ${digest.length} bytes, not ${bytes}`);
  assertBounded("salt's length in bytes", salt.length, MAX_LDAP_SALT_BYTES);
  return async (password) => timingSafeEqual(digestOf(algorithm, password, salt), digest);
}

export const CRYPT: readonly HashFormat[] = [
  {
    name: "sha-crypt",
    pattern:
      /^\$(?<kind>[56])\$(?:rounds=(?<rounds>\d{1,9})\$)?(?<salt>[^$\s:]{0,16})\$(?<digest>[./A-Za-z0-9]{43}|[./A-Za-z0-9]{86})$/,
    read({ kind, rounds, salt = "", digest = "" }) {
      const which = kind === "5" ? 5 : 6;
      if (digest.length !== (which === 5 ? 43 : 86)) throw new HashRefused("its digest is not of its algorithm");
      const asked = rounds === undefined ? DEFAULT_SHA_ROUNDS : Math.max(MIN_SHA_ROUNDS, Number(rounds));
      assertBounded("number of rounds", asked, MAX_SHA_ROUNDS);
      return againstText(digest, (password) => shaCrypt(which, password, salt, asked));
    },
  },
  {
    name: "md5-crypt",
    pattern: /^(?<magic>\$1\$|\$apr1\$)(?<salt>[^$\s:]{0,8})\$(?<digest>[./A-Za-z0-9]{22})$/,
    read: ({ magic = "", salt = "", digest = "" }) =>
      againstText(digest, (password) => md5Crypt(password, salt, magic)),
  },
  {
    name: "phpass",
    pattern: /^\$[PH]\$(?<cost>[./A-Za-z0-9])(?<salt>[./A-Za-z0-9]{8})(?<digest>[./A-Za-z0-9]{22})$/,
    read({ cost = "", salt = "", digest = "" }) {
      const exponent = CRYPT_ALPHABET.indexOf(cost);
      assertBounded("number of rounds (exponent)", exponent, MAX_PHPASS_EXPONENT);
      return againstText(digest, (password) => phpass(password, salt, 2 ** exponent));
    },
  },
  {
    name: "salted sha",
    pattern: /^\{(?<scheme>SSHA|SSHA256|SSHA512)\}(?<encoded>[A-Za-z0-9+/]+={0,2})$/i,
    read: ({ scheme = "", encoded = "" }) => saltedSha(scheme, encoded),
  },
];
