import { pbkdf2, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { assertBounded, assertDigest, base64, type HashFormat, HashRefused, type Verify } from "./format.ts";

/** Bytes of each digest, and how many rounds take about a second: a longer key takes all of them for each digest in it. */
const DIGESTS: Readonly<Record<string, { readonly bytes: number; readonly mostRounds: number }>> = {
  sha1: { bytes: 20, mostRounds: 5_000_000 },
  sha256: { bytes: 32, mostRounds: 5_000_000 },
  sha512: { bytes: 64, mostRounds: 2_000_000 },
};

const derive = promisify(pbkdf2);

function verifier(algorithm: string, rounds: number, salt: Buffer, digest: Buffer): Verify {
  const known = DIGESTS[algorithm];
  if (!known) throw new HashRefused(`PBKDF2 with ${algorithm} is not known`);
  assertDigest(digest);
  assertBounded("number of rounds", rounds * Math.ceil(digest.length / known.bytes), known.mostRounds);
  return async (password) => timingSafeEqual(await derive(password, salt, rounds, digest.length, algorithm), digest);
}

/** PBKDF2 (RFC 8018) with HMAC of SHA-1, SHA-256 or SHA-512. */
export const PBKDF2: readonly HashFormat[] = [
  {
    // passlib's, and those of PHC strings (Kratos, Auth0). Without a digest's name it is SHA-1.
    name: "pbkdf2",
    pattern:
      /^\$pbkdf2(?:-(?<algorithm>sha1|sha256|sha512))?\$(?:i=)?(?<rounds>\d{1,8})(?:,l=\d{1,3})?\$(?<salt>[A-Za-z0-9+/.]*)={0,2}\$(?<digest>[A-Za-z0-9+/.]+)={0,2}$/,
    read: ({ algorithm = "sha1", rounds, salt, digest }) =>
      verifier(algorithm, Number(rounds), base64(salt), base64(digest)),
  },
  {
    name: "pbkdf2 (Django)",
    pattern: /^pbkdf2_(?<algorithm>sha1|sha256)\$(?<rounds>\d{1,8})\$(?<salt>[^$]+)\$(?<digest>[A-Za-z0-9+/]+={0,2})$/,
    read: ({ algorithm = "", rounds, salt = "", digest }) =>
      verifier(algorithm, Number(rounds), Buffer.from(salt), base64(digest)),
  },
  {
    name: "pbkdf2 (Werkzeug)",
    pattern:
      /^pbkdf2:(?<algorithm>sha1|sha256|sha512):(?<rounds>\d{1,8})\$(?<salt>[^$]+)\$(?<digest>(?:[0-9a-f]{2})+)$/,
    read: ({ algorithm = "", rounds, salt = "", digest = "" }) =>
      verifier(algorithm, Number(rounds), Buffer.from(salt), Buffer.from(digest, "hex")),
  },
];
