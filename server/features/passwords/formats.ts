import { pbkdf2, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import type { Settings } from "../../../config/schema.ts";

type PasswordSettings = Settings["password"];

/** One way in which a stored hash may be written. */
interface HashFormat {
  readonly name: string;
  readonly pattern: RegExp;
  verify(password: string, hash: string): Promise<boolean>;
}

/** The most work that a stored hash may ask for: a forged or mistaken one must not stop the service. */
const MAX_PBKDF2_ITERATIONS = 5_000_000;
const MAX_ARGON2_KIB = 1_048_576;
const MAX_ARGON2_KIB_PASSES = 4_194_304;

const derive = promisify(pbkdf2);

async function verifyPbkdf2(password: string, iterations: number, salt: Uint8Array, expected: Uint8Array) {
  if (iterations < 1 || iterations > MAX_PBKDF2_ITERATIONS || expected.length < 16) return false;
  return timingSafeEqual(await derive(password, salt, iterations, expected.length, "sha256"), expected);
}

const ARGON2 = /^\$argon2(?:id|i)\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=\d{1,2}\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+$/;
const PASSLIB = /^\$pbkdf2-sha256\$(?:i=)?(\d{1,8})(?:,l=\d+)?\$([A-Za-z0-9+/.]+)\$([A-Za-z0-9+/.]+)$/;
const DJANGO = /^pbkdf2_sha256\$(\d{1,8})\$([^$]+)\$([A-Za-z0-9+/=]+)$/;
/** passlib writes "." where base64 has "+". */
const base64 = (text = "") => Buffer.from(text.replaceAll(".", "+"), "base64");

const argon2 = () => import("@node-rs/argon2");
const bcrypt = () => import("@node-rs/bcrypt");

/** Every format that is understood, tried in order. */
const FORMATS: readonly HashFormat[] = [
  {
    name: "argon2",
    pattern: ARGON2,
    async verify(password, hash) {
      const [, kib, passes] = ARGON2.exec(hash)?.map(Number) ?? [];
      const bounded = Number(kib) <= MAX_ARGON2_KIB && Number(kib) * Number(passes) <= MAX_ARGON2_KIB_PASSES;
      return bounded && (await argon2()).verify(hash, password);
    },
  },
  {
    name: "bcrypt",
    pattern: /^\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}$/,
    verify: async (password, hash) => (await bcrypt()).verify(password, hash),
  },
  {
    name: "pbkdf2-sha256",
    pattern: PASSLIB,
    async verify(password, hash) {
      const [, iterations, salt, digest] = PASSLIB.exec(hash) ?? [];
      return verifyPbkdf2(password, Number(iterations), base64(salt), base64(digest));
    },
  },
  {
    name: "pbkdf2-sha256 (Django)",
    pattern: DJANGO,
    async verify(password, hash) {
      const [, iterations, salt = "", digest] = DJANGO.exec(hash) ?? [];
      return verifyPbkdf2(password, Number(iterations), Buffer.from(salt), base64(digest));
    },
  },
];

/** The format of a stored hash; undefined for a damaged or unknown one. */
export const formatOf = (hash: string): HashFormat | undefined => FORMATS.find((format) => format.pattern.test(hash));

/** Hashes with the algorithm and cost that the settings ask for, with a random salt of 16 bytes. */
export async function computeHash(password: string, settings: PasswordSettings): Promise<string> {
  if (settings.algorithm === "bcrypt") return (await bcrypt()).hash(password, { cost: settings.bcrypt_cost });
  return (await argon2()).hash(password, {
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
