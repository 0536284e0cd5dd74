import { scrypt } from "node:crypto";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { type Identity, type Recipient, Stanza } from "age-encryption";
import type { RandomBytes } from "../../config/secrets.ts";

/**
 * The passphrase recipient of the age format (https://age-encryption.org/v1, "scrypt recipient stanza"), with scrypt run
 * beside the event loop: a server that takes a backup goes on serving.
 */
const LABEL = "age-encryption.org/v1/scrypt";
/** 128 MiB and a third of a second: OWASP's least for scrypt. */
const WORK_FACTOR = 17;
/** What is asked of us at most when a file is opened: one gibibyte. */
const MAX_WORK_FACTOR = 20;
const SALT_BYTES = 16;
/** The key that it encrypts is used once, so the nonce is fixed. */
const NONCE = new Uint8Array(12);

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");

function wrappingKey(passphrase: string, salt: Uint8Array, workFactor: number): Promise<Uint8Array> {
  const N = 2 ** workFactor;
  return new Promise((resolve, reject) => {
    scrypt(
      passphrase,
      Buffer.concat([Buffer.from(LABEL), salt]),
      32,
      { N, r: 8, p: 1, maxmem: 2048 * N },
      (error, key) => (error ? reject(error) : resolve(key)),
    );
  });
}

export const passphraseRecipient = (passphrase: string, random: RandomBytes): Recipient => ({
  async wrapFileKey(fileKey) {
    const salt = random(SALT_BYTES);
    const key = await wrappingKey(passphrase, salt, WORK_FACTOR);
    const body = chacha20poly1305(key, NONCE).encrypt(fileKey);
    return [new Stanza(["scrypt", base64(salt), String(WORK_FACTOR)], body)];
  },
});

/** Answers null where the passphrase is not the one, or its stanza was changed. */
export const passphraseIdentity = (passphrase: string): Identity => ({
  async unwrapFileKey([stanza, ...more]) {
    const [kind, encodedSalt = "", workFactor = ""] = stanza?.args ?? [];
    if (!stanza || more.length > 0 || kind !== "scrypt" || stanza.args.length !== 3) return null;
    const salt = Buffer.from(encodedSalt, "base64");
    const isPlain = /^[1-9][0-9]?$/.test(workFactor) && base64(salt) === encodedSalt;
    if (!isPlain || Number(workFactor) > MAX_WORK_FACTOR || salt.length !== SALT_BYTES || stanza.body.length !== 32) {
      return null;
    }
    const key = await wrappingKey(passphrase, salt, Number(workFactor));
    try {
      return chacha20poly1305(key, NONCE).decrypt(stanza.body);
    } catch {
      return null;
    }
  },
});
