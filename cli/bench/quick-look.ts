/** A look at this machine that takes less than two seconds, for `primer init`. */
import { availableParallelism, totalmem } from "node:os";
import type { Settings } from "../../config/schema.ts";
import { measureSteps, type Recommendation, recommend } from "./calibrate.ts";
import { hashRate } from "./ceiling.ts";

const STEP_MS = 120;
const LONGEST_HASH_MS = 250;
/** Without a key there is nothing to sign with, and making one takes seconds; an RSA signature of 4096 bits takes about half of the weakest hash. */
const HASHES_PER_SIGNATURE = 0.55;
/** Those of elliptic curves cost next to nothing. */
const CHEAP_SIGNATURES = 10_000;

/** Passwords that this machine can check a second with these settings, on all cores. */
export const quickHashRate = (password: Settings["password"]): Promise<number> => hashRate(password, 2 * STEP_MS);

/** The strongest argon2id parameters with which this machine reaches a rate of logins; never weaker than the defaults. */
export async function quickRecommendation(settings: Settings, loginsPerSecond: number): Promise<Recommendation> {
  const steps = await measureSteps(settings.password, {
    hashMs: LONGEST_HASH_MS,
    durationMs: STEP_MS,
    leastPerSecond: loginsPerSecond,
  });
  const isRsa = /^[RP]S/.test(settings.tokens.algorithm);
  const signPerSecond = isRsa ? rsaRate(steps[0].perSecond, settings.keys.bits) : CHEAP_SIGNATURES;
  const machine = { cores: availableParallelism(), memoryMiB: Math.round(totalmem() / 1024 / 1024) };
  return recommend({ ...machine, signPerSecond, steps }, { hashMs: LONGEST_HASH_MS, loginsPerSecond });
}

/** The work of an RSA signature grows with the third power of its bits. */
const rsaRate = (hashesPerSecond: number, bits: number) =>
  (hashesPerSecond / HASHES_PER_SIGNATURE) * (4096 / bits) ** 3;
