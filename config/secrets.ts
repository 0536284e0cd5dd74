import { createCipheriv, createDecipheriv, createHash, createHmac } from "node:crypto";
import { OperatorError } from "./errors.ts";
import { SECRETS_FILE, type Variables } from "./load.ts";

/** Source of cryptographically strong random bytes. */
export type RandomBytes = (length: number) => Uint8Array;

/** A 256-bit secret with the id that what it sealed or keyed carries. The id is made from the key, so it cannot lie. */
export interface SecretKey {
  readonly id: string;
  readonly bytes: Uint8Array;
}

/** The newest key first: it seals; the others only open what they sealed before. */
export type Keyring = readonly [SecretKey, ...SecretKey[]];

/** What the installation must never lose and never show. */
export interface Secrets {
  /** Seals what the database keeps under lock: signing keys, refresh keys, secrets in jobs. */
  readonly master: Keyring;
  /** Keys the HMAC that is put over a password before it is hashed, so that a stolen database alone is worth less. */
  readonly pepper: Keyring;
}

const KEY_BYTES = 32;

/** A new secret in the form that secrets.env keeps. */
export const generateSecret = (random: RandomBytes): string => Buffer.from(random(KEY_BYTES)).toString("base64url");

/**
 * Reads the master key and the pepper from PRIMER_MASTER_KEY and PRIMER_PEPPER (secrets.env, environment, or …_FILE).
 * Each is one or several base64url texts of 32 bytes, comma-separated, the newest first.
 *
 * @throws OperatorError (exit 2) naming the variable that is missing or weak; nothing is made anew here
 */
export function readSecrets(variables: Variables): Secrets {
  return { master: readKeyring("PRIMER_MASTER_KEY", variables), pepper: readKeyring("PRIMER_PEPPER", variables) };
}

function readKeyring(name: string, variables: Variables): Keyring {
  const value = variables[name];
  if (!value) {
    throw new OperatorError(
      2,
      `${name} is missing: ${SECRETS_FILE} is not in the home, or lacks it.`,
      `Put back the ${SECRETS_FILE} that \`primer init\` wrote, from its backup; on a new installation run \`primer init\`. Without it the keys in the database cannot be opened, and nothing was changed.`,
    );
  }
  const [first, ...rest] = value.split(",").map((text) => parseKey(name, text.trim()));
  if (!first) throw weak(name);
  return [first, ...rest];
}

function parseKey(name: string, text: string): SecretKey {
  const bytes = /^[A-Za-z0-9_-]{43}$/.test(text) ? Buffer.from(text, "base64url") : undefined;
  if (bytes?.length !== KEY_BYTES || new Set(bytes).size < 16) throw weak(name);
  return secretKey(bytes);
}

const weak = (name: string) =>
  new OperatorError(2, `${name} is not a key: expected 32 random bytes in base64url (43 characters).`);

/** Names a key after its own bytes. */
export function secretKey(bytes: Uint8Array): SecretKey {
  const id = createHash("sha256").update("primer key id").update(bytes).digest("base64url").slice(0, 8);
  return { id, bytes };
}

/** A key for one purpose, drawn from another, so that no two uses share a key. */
export const deriveKey = (key: SecretKey, purpose: string): Uint8Array =>
  createHmac("sha256", key.bytes).update(purpose).digest();

const SEAL_PURPOSE = "seal at rest";
const IV_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Encrypts with AES-256-GCM under the newest key of the ring. `context` (a row's id) is authenticated with it: the text
 * opens only where it was sealed for. The result names its key: "v1.KEYID.BASE64URL".
 */
export function seal(ring: Keyring, plain: Uint8Array, context: string, random: RandomBytes): string {
  const iv = random(IV_BYTES);
  const cipher = createCipheriv("aes-256-gcm", deriveKey(ring[0], SEAL_PURPOSE), iv);
  cipher.setAAD(Buffer.from(context));
  const sealed = Buffer.concat([iv, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  return `v1.${ring[0].id}.${sealed.toString("base64url")}`;
}

/** The id of the key that sealed a text. */
export const sealedBy = (sealed: string): string => sealed.split(".")[1] ?? "";

/**
 * Opens what {@link seal} closed.
 *
 * @throws OperatorError (exit 2) where no key of the ring sealed it, or where a byte or its place was changed
 */
export function unseal(ring: Keyring, sealed: string, context: string): Buffer {
  const key = ring.find((candidate) => candidate.id === sealedBy(sealed));
  if (!key) {
    throw new OperatorError(
      2,
      `The database was sealed with master key ${sealedBy(sealed)}, but PRIMER_MASTER_KEY is ${ring[0].id}.`,
      `Put back the ${SECRETS_FILE} that belongs to this database. Nothing was changed.`,
    );
  }
  const bytes = Buffer.from(sealed.split(".")[2] ?? "", "base64url");
  try {
    const decipher = createDecipheriv("aes-256-gcm", deriveKey(key, SEAL_PURPOSE), bytes.subarray(0, IV_BYTES), {
      authTagLength: TAG_BYTES,
    });
    decipher.setAAD(Buffer.from(context));
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    return Buffer.concat([decipher.update(bytes.subarray(IV_BYTES, -TAG_BYTES)), decipher.final()]);
  } catch (error) {
    throw new OperatorError(1, `A sealed value of ${context} was damaged or moved from another row.`, undefined, {
      cause: error,
    });
  }
}
