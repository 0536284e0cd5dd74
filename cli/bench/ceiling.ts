/** What this machine can do at best: the same work as primer's, with nothing around it. */
import { availableParallelism } from "node:os";
import { generateKeyPair } from "jose";
import type { Settings, SignatureAlgorithm } from "../../config/schema.ts";
import { computeHash, readHash } from "../../server/features/passwords/formats.ts";

type HashSettings = Parameters<typeof computeHash>[1];

/** How many a second get done when this many are always under way. */
async function rateOf(work: () => Promise<unknown>, atATime: number, durationMs: number): Promise<number> {
  await work();
  const began = performance.now();
  const until = began + durationMs;
  let done = 0;
  let lastAt = began;
  const loop = async () => {
    while (performance.now() < until) {
      await work();
      done++;
      lastAt = performance.now();
    }
  };
  await Promise.all(Array.from({ length: atATime }, loop));
  return (done / (lastAt - began)) * 1000;
}

/** Twice the cores: while one answer is taken, the next is under way. */
const atATime = () => availableParallelism() * 2;

/** Verifications a second of a password hash with these parameters, on all cores. */
export async function hashRate(settings: HashSettings, durationMs: number): Promise<number> {
  const stored = readHash(await computeHash("a password that nobody has", settings));
  if ("refused" in stored) throw new Error(`The hash cannot be read: ${stored.refused}`);
  const password = Buffer.from("a password that nobody has");
  return rateOf(() => stored.verify(password), atATime(), durationMs);
}

/** How long one hash takes on a machine that does nothing else (milliseconds): the median of some. */
export async function hashTime(settings: HashSettings, times: number): Promise<number> {
  const took: number[] = [];
  for (let round = 0; round < times; round++) {
    const began = performance.now();
    await computeHash("a password that nobody has", settings);
    took.push(performance.now() - began);
  }
  return took.sort((a, b) => a - b)[Math.floor(times / 2)] ?? 0;
}

const PARAMETERS: Readonly<Record<SignatureAlgorithm, Parameters<SubtleCrypto["sign"]>[0]>> = {
  RS256: "RSASSA-PKCS1-v1_5",
  PS256: { name: "RSA-PSS", saltLength: 32 },
  ES256: { name: "ECDSA", hash: "SHA-256" },
  EdDSA: "Ed25519",
};

/** About as long as what is signed of an access token (bytes). */
const SIGNED_BYTES = 600;

export interface Signer {
  /** Signatures a second on all cores. */
  rate(durationMs: number): Promise<number>;
}

/** Makes a key, which takes seconds for RSA, to measure signatures with. */
export async function openSigner({ tokens, keys }: Pick<Settings, "tokens" | "keys">): Promise<Signer> {
  const { privateKey } = await generateKeyPair(tokens.algorithm, { modulusLength: keys.bits });
  const data = new Uint8Array(SIGNED_BYTES);
  const sign = () => crypto.subtle.sign(PARAMETERS[tokens.algorithm], privateKey, data);
  return { rate: (durationMs) => rateOf(sign, atATime(), durationMs) };
}
