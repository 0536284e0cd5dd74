import { createHash, createPublicKey, verify } from "node:crypto";

/** Two letters for the algorithm, eight bytes for the key's id. */
const HEAD_BYTES = 10;
const KEY_BYTES = HEAD_BYTES + 32;
const SIGNATURE_BYTES = HEAD_BYTES + 64;
const COMMENT = "trusted comment: ";

/**
 * Whether a file was signed with minisign (https://jedisct1.github.io/minisign/) by the owner of a public key: Ed25519 over
 * the BLAKE2b hash of the file, or over the file itself as older versions do, and over the trusted comment.
 *
 * @param signature the text of the .minisig file
 * @param publicKey in base64, as minisign prints it
 */
export function isSignedBy(file: Uint8Array, signature: string, publicKey: string): boolean {
  const [, first = "", comment = "", second = ""] = signature.split(/\r?\n/);
  const [key, signed, whole] = [publicKey, first, second].map((text) => Buffer.from(text, "base64")) as [
    Buffer,
    Buffer,
    Buffer,
  ];
  if (key.length !== KEY_BYTES || signed.length !== SIGNATURE_BYTES || !comment.startsWith(COMMENT)) return false;
  if (!key.subarray(2, HEAD_BYTES).equals(signed.subarray(2, HEAD_BYTES))) return false;
  const algorithm = signed.toString("latin1", 0, 2);
  if (algorithm !== "ED" && algorithm !== "Ed") return false;
  const message = algorithm === "ED" ? createHash("blake2b512").update(file).digest() : file;
  const jwk = { kty: "OKP", crv: "Ed25519", x: key.subarray(HEAD_BYTES).toString("base64url") };
  const by = createPublicKey({ key: jwk, format: "jwk" });
  const own = signed.subarray(HEAD_BYTES);
  const commented = Buffer.concat([own, Buffer.from(comment.slice(COMMENT.length))]);
  return verify(null, message, by, own) && verify(null, commented, by, whole);
}
