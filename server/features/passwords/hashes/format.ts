/** Whether a password, in UTF-8, is the one that was hashed. */
export type Verify = (password: Buffer) => Promise<boolean>;

/** One way in which a stored hash may be written. */
export interface HashFormat {
  /** As reports call it. */
  readonly name: string;
  /** Tells the format by its whole text; what the groups capture is all that `read` sees. */
  readonly pattern: RegExp;
  /** @throws HashRefused where checking it would be too much work, or too little to be worth the name */
  read(parts: Readonly<Record<string, string>>): Verify;
}

/** Why a hash is not taken: a sentence for the operator, without anything of the hash. */
export class HashRefused extends Error {
  constructor(message: string) {
    super(message);
    this.name = "HashRefused";
  }
}

/** A forged or mistaken hash must not stop the service: whatever its parameters multiply to has a bound. */
export function assertBounded(what: string, asked: number, most: number): void {
  if (asked >= 1 && asked <= most) return;
  throw new HashRefused(`its ${what} is ${asked}, and may be 1 to ${most}`);
}

const MIN_DIGEST_BYTES = 16;
const MAX_DIGEST_BYTES = 128;

/** A shorter one would be right by chance, a longer one is not what these algorithms make. */
export function assertDigest(digest: Uint8Array): void {
  if (digest.length >= MIN_DIGEST_BYTES && digest.length <= MAX_DIGEST_BYTES) return;
  throw new HashRefused(`its digest has ${digest.length} bytes, not ${MIN_DIGEST_BYTES} to ${MAX_DIGEST_BYTES}`);
}

/** Base64 in any of its alphabets, padded or not; passlib writes "." where base64 has "+". */
export const base64 = (text = ""): Buffer => Buffer.from(text.replaceAll(".", "+"), "base64");

/** Base64 as passlib and PHC strings have it: without padding. */
export const unpadded = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64").replaceAll("=", "");
