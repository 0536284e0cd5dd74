import type { Settings } from "../../../config/schema.ts";
import { ARGON2 } from "./hashes/argon2.ts";
import { BCRYPT } from "./hashes/bcrypt.ts";
import { CRYPT } from "./hashes/crypt.ts";
import { type HashFormat, HashRefused } from "./hashes/format.ts";
import { PBKDF2 } from "./hashes/pbkdf2.ts";
import { SCRYPT } from "./hashes/scrypt.ts";
import { argon2, bcrypt } from "./native.ts";

type PasswordSettings = Settings["password"];

/** Every format that is understood. No text is of two of them. */
const FORMATS: readonly HashFormat[] = [...ARGON2, ...BCRYPT, ...PBKDF2, ...SCRYPT, ...CRYPT];

/** Longer ones are none, and no pattern has to look at them. */
const MAX_HASH_LENGTH = 1024;
const PRINTABLE = /^[!-~]*$/;

/** What operators are told of hashes that they may well have, and that are not taken. */
const REFUSED: readonly (readonly [pattern: RegExp, why: string])[] = [
  [/^\$2x\$/, "$2x$ marks bcrypt hashes made with the 8-bit bug: different passwords have the same one"],
  [/^\$2\$/, "$2$ is the first bcrypt, whose hashes differ from one implementation to the next"],
  [/^\$(y|7|gy)\$/, "yescrypt and its relatives are not supported"],
  [
    /^(\{SHA\}|\{MD5\}|md5\$|sha1\$|unsalted_|[0-9a-f]{32}$|[0-9a-f]{40}$|[0-9a-f]{64}$)/i,
    "a digest taken once, without a salt or with MD5, is as good as the password itself",
  ],
  [
    /^\$(argon2|2[aby]|pbkdf2|scrypt|firebase-scrypt|bcrypt-sha256|[156PH]|apr1)\b|^\{SSHA|^(pbkdf2_|bcrypt|scrypt|argon2)/,
    "it is damaged",
  ],
];

/** A stored hash that can be checked. */
export interface ReadableHash {
  readonly format: string;
  /**
   * @param password as it was hashed, in UTF-8. One with NUL in it is never right: NUL ends the password of crypt(3) and
   * bcrypt, and HMAC does not see it at the end
   */
  verify(password: Buffer): Promise<boolean>;
}

/**
 * Reads a stored hash.
 *
 * @returns how it is checked; or, for one that is damaged, unknown or out of bounds, why it cannot be
 */
export function readHash(hash: string): ReadableHash | { readonly refused: string } {
  if (hash.length > MAX_HASH_LENGTH) return { refused: "it is too long to be a hash" };
  if (!PRINTABLE.test(hash)) return { refused: "it has characters that no hash has" };
  for (const { name, pattern, read } of FORMATS) {
    const match = pattern.exec(hash);
    if (!match) continue;
    try {
      const verify = read(match.groups ?? {});
      return { format: name, verify: async (password) => !password.includes(0) && verify(password) };
    } catch (error) {
      if (error instanceof HashRefused) return { refused: error.message };
      throw error;
    }
  }
  const known = REFUSED.find(([pattern]) => pattern.test(hash));
  return { refused: known?.[1] ?? "it is in no form that is understood" };
}

/** Hashes with the algorithm and cost that the settings ask for, with a random salt of 16 bytes. */
export async function computeHash(password: string, settings: PasswordSettings): Promise<string> {
  if (settings.algorithm === "bcrypt") {
    const { hash } = await bcrypt();
    return hash(password, { cost: settings.bcrypt_cost });
  }
  const { hash } = await argon2();
  return hash(password, {
    memoryCost: settings.memory_kib,
    timeCost: settings.iterations,
    parallelism: 1,
  });
}

/** Whether a hash was made with another algorithm or cost than the settings ask for now. */
export function isOutdated(hash: string, settings: PasswordSettings): boolean {
  const current =
    settings.algorithm === "bcrypt"
      ? new RegExp(`^\\$2b\\$${String(settings.bcrypt_cost).padStart(2, "0")}\\$`)
      : new RegExp(`^\\$argon2id\\$v=19\\$m=${settings.memory_kib},t=${settings.iterations},p=1\\$`);
  return !current.test(hash);
}
