import { createCipheriv, type ScryptOptions, scrypt, timingSafeEqual } from "node:crypto";
import { assertBounded, assertDigest, base64, type HashFormat, HashRefused, unpadded, type Verify } from "./format.ts";

/** N times r times p: about a second of work. */
const MAX_WORK = 2 ** 22;
/** 128 · N · r, which is 256 MiB. */
const MAX_MEMORY = 2 ** 28;
/** What Node.js allocates beside it. */
const MORE_MEMORY = 2 ** 24;
const AES_BLOCK_BYTES = 16;
const AES_KEY_BYTES = 32;

interface Cost {
  readonly N: number;
  readonly r: number;
  readonly p: number;
}

function assertCost({ N, r, p }: Cost): void {
  if (!Number.isInteger(Math.log2(N)) || N < 2) throw new HashRefused(`its N is ${N}, which is no power of two`);
  assertBounded("work (N times r times p)", N * r * p, MAX_WORK);
  assertBounded("memory (128 times N times r)", 128 * N * r, MAX_MEMORY);
}

/** @returns `length` bytes (RFC 7914) */
const derive = (password: Buffer, salt: Buffer, length: number, cost: Cost): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const options: ScryptOptions = { ...cost, maxmem: MAX_MEMORY + MORE_MEMORY };
    scrypt(password, salt, length, options, (error, key) => (error ? reject(error) : resolve(key)));
  });

function verifier(cost: Cost, salt: Buffer, digest: Buffer): Verify {
  assertCost(cost);
  assertDigest(digest);
  return async (password) => timingSafeEqual(await derive(password, salt, digest.length, cost), digest);
}

const costOf = (N: string | undefined, r: string | undefined, p: string | undefined): Cost => ({
  N: Number(N),
  r: Number(r),
  p: Number(p),
});

/** Most write the exponent of N; Kratos writes N itself, which no exponent reaches. */
const MAX_EXPONENT = 31;
const powerOf = (ln: string | undefined) => (Number(ln) <= MAX_EXPONENT ? String(2 ** Number(ln)) : ln);

export const SCRYPT: readonly HashFormat[] = [
  {
    name: "scrypt",
    pattern:
      /^\$scrypt\$ln=(?<ln>\d{1,8}),r=(?<r>\d{1,3}),p=(?<p>\d{1,3})\$(?<salt>[A-Za-z0-9+/.]*)={0,2}\$(?<digest>[A-Za-z0-9+/.]+)={0,2}$/,
    read: ({ ln, r, p, salt, digest }) => verifier(costOf(powerOf(ln), r, p), base64(salt), base64(digest)),
  },
  {
    name: "scrypt (Werkzeug)",
    pattern: /^scrypt:(?<N>\d{1,8}):(?<r>\d{1,3}):(?<p>\d{1,3})\$(?<salt>[^$]+)\$(?<digest>(?:[0-9a-f]{2})+)$/,
    read: ({ N, r, p, salt = "", digest = "" }) =>
      verifier(costOf(N, r, p), Buffer.from(salt), Buffer.from(digest, "hex")),
  },
  {
    name: "scrypt (Django)",
    pattern: /^scrypt\$(?<N>\d{1,8})\$(?<salt>[^$]+)\$(?<r>\d{1,3})\$(?<p>\d{1,3})\$(?<digest>[A-Za-z0-9+/]+={0,2})$/,
    read: ({ N, r, p, salt = "", digest }) => verifier(costOf(N, r, p), Buffer.from(salt), base64(digest)),
  },
  {
    // Firebase's, in the form that `firebaseHash` gives it.
    name: "scrypt (Firebase)",
    pattern:
      /^\$firebase-scrypt\$ln=(?<ln>\d{1,2}),r=(?<r>\d{1,3})\$(?<salt>[A-Za-z0-9+/]+)\$(?<stream>[A-Za-z0-9+/]+)$/,
    read({ ln, r, salt, stream }) {
      const cost = costOf(powerOf(ln), r, "1");
      assertCost(cost);
      const expected = base64(stream);
      assertDigest(expected);
      return async (password) =>
        timingSafeEqual(
          keystream(await derive(password, base64(salt), AES_KEY_BYTES, cost), expected.length),
          expected,
        );
    },
  },
];

/** The parameters of a Firebase project, from its console: Authentication, Users, Password hash parameters. */
export interface FirebaseParameters {
  readonly signerKey: Buffer;
  readonly saltSeparator: Buffer;
  readonly rounds: number;
  readonly memCost: number;
}

/** AES-256-CTR from a counter of zero: what Firebase encrypts its signer key with. */
const keystream = (key: Buffer, length: number): Buffer =>
  createCipheriv("aes-256-ctr", key, Buffer.alloc(AES_BLOCK_BYTES)).update(Buffer.alloc(length));

/**
 * A hash of Firebase's scrypt in a form that can be checked by itself. Firebase encrypts the project's signer key with a
 * key made of the password, in a mode that only adds a stream to it; with the signer key taken away again that stream is
 * left, which is the digest of a plain scrypt. So the signer key is needed here once and is never kept.
 *
 * @throws HashRefused where hash and signer key are not of one length
 */
export function firebaseHash(salt: Buffer, hash: Buffer, parameters: FirebaseParameters): string {
  const { signerKey, saltSeparator, rounds, memCost } = parameters;
  if (hash.length !== signerKey.length) throw new HashRefused("it does not fit the signer key");
  const stream = hash.map((byte, index) => byte ^ (signerKey[index] ?? 0));
  const whole = Buffer.concat([salt, saltSeparator]);
  return `$firebase-scrypt$ln=${memCost},r=${rounds}$${unpadded(whole)}$${unpadded(stream)}`;
}
