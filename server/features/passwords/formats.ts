import { pbkdf2, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import type { Settings } from "../../../config/schema.ts";

type PasswordSettings = Settings["password"];

/** One way in which a stored hash may be written. */
interface HashFormat {
  readonly name: string;
  readonly pattern: RegExp;
  /** Whether checking it is bounded work: a forged or mistaken hash must not stop the service. */
  isBounded(hash: string): boolean;
  verify(password: string, hash: string): Promise<boolean>;
}

const MAX_PBKDF2_ITERATIONS = 5_000_000;
const MAX_ARGON2_KIB = 1_048_576;
const MAX_ARGON2_KIB_PASSES = 4_194_304;

const ARGON2 = /^\$argon2(?:id|i)\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=\d{1,2}\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+$/;
const BCRYPT = /^\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}$/;
const PASSLIB = /^\$pbkdf2-sha256\$(?:i=)?(\d{1,8})(?:,l=\d+)?\$([A-Za-z0-9+/.]+)\$([A-Za-z0-9+/.]+)$/;
const DJANGO = /^pbkdf2_sha256\$(\d{1,8})\$([^$]+)\$([A-Za-z0-9+/=]+)$/;
/** passlib writes "." where base64 has "+". */
const base64 = (text = "") => Buffer.from(text.replaceAll(".", "+"), "base64");
const djangoSalt = (text = "") => Buffer.from(text);

const argon2 = () => import("@node-rs/argon2");
const bcrypt = () => import("@node-rs/bcrypt");
const derive = promisify(pbkdf2);

/** PBKDF2-HMAC-SHA256; the pattern captures iterations, salt and digest. */
const pbkdf2Format = (name: string, pattern: RegExp, saltOf: (text?: string) => Uint8Array): HashFormat => ({
  name,
  pattern,
  isBounded(hash) {
    const [, iterations, , digest] = pattern.exec(hash) ?? [];
    const count = Number(iterations);
    return count >= 1 && count <= MAX_PBKDF2_ITERATIONS && base64(digest).length >= 16;
  },
  async verify(password, hash) {
    const [, iterations, salt, digest] = pattern.exec(hash) ?? [];
    const expected = base64(digest);
    return timingSafeEqual(
      await derive(password, saltOf(salt), Number(iterations), expected.length, "sha256"),
      expected,
    );
  },
});

/** Every format that is understood, tried in order. */
const FORMATS: readonly HashFormat[] = [
  {
    name: "argon2",
    pattern: ARGON2,
    isBounded(hash) {
      const [, kib = 0, passes = 0] = ARGON2.exec(hash)?.map(Number) ?? [];
      return kib <= MAX_ARGON2_KIB && kib * passes <= MAX_ARGON2_KIB_PASSES;
    },
    verify: async (password, hash) => (await argon2()).verify(hash, password),
  },
  {
    name: "bcrypt",
    pattern: BCRYPT,
    isBounded: () => true,
    verify: async (password, hash) => (await bcrypt()).verify(password, hash),
  },
  pbkdf2Format("pbkdf2-sha256", PASSLIB, base64),
  pbkdf2Format("pbkdf2-sha256 (Django)", DJANGO, djangoSalt),
];

/** The format of a stored hash; undefined for one that is damaged, unknown or too much work. */
export const formatOf = (hash: string): HashFormat | undefined =>
  FORMATS.find((format) => format.pattern.test(hash) && format.isBounded(hash));

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
