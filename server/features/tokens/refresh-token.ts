import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { CompactEncrypt, compactDecrypt, decodeProtectedHeader } from "jose";
import { deriveKey, type SecretKey } from "../../../config/secrets.ts";
import { isConnectionError } from "../../../db/errors.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { isId } from "../../ports/random.ts";
import { isCanonical } from "./compact.ts";

/**
 * A refresh token is a JWE that only points: to a family and a generation of it, with a secret that proves both. The
 * family's row decides. Symmetric keys only: an encrypted token under a public key would prove nothing about who made it
 * (RFC 8725, section 3.6).
 */
const TYPE = "primer-refresh+jwe";
const MAX_TOKEN_LENGTH = 1024;

export interface RefreshPointer {
  readonly familyId: string;
  readonly generation: number;
  readonly secret: string;
}

/** The secret of a generation: whoever holds the refresh key can work it out again, so it is kept nowhere. */
export const generationSecret = (key: SecretKey, familyId: string, generation: number): string =>
  createHmac("sha256", deriveKey(key, "refresh secret")).update(`${familyId}.${generation}`).digest("base64url");

/** What a row keeps of a secret, a generation's or a browser's: nothing that it could be made from again. */
export const hashSecret = (secret: string): string => createHash("sha256").update(secret).digest("base64url");

/** Whether a secret is the one that a hash was made of, in a time that does not tell how nearly. */
export function fitsHash(secret: string, hash: string): boolean {
  const [given, kept] = [Buffer.from(hashSecret(secret)), Buffer.from(hash)];
  return given.length === kept.length && timingSafeEqual(given, kept);
}

export async function sealRefreshToken(key: SecretKey, familyId: string, generation: number): Promise<string> {
  const pointer = { f: familyId, g: generation, s: generationSecret(key, familyId, generation) };
  return new CompactEncrypt(Buffer.from(JSON.stringify(pointer)))
    .setProtectedHeader({ alg: "dir", enc: "A256GCM", kid: key.id, typ: TYPE })
    .encrypt(deriveKey(key, "refresh token"));
}

/** Opens a refresh token. @throws AppError AUTH_TOKEN_INVALID for whatever we did not make; SERVICE_UNAVAILABLE where the keys cannot be read */
export async function openRefreshToken(deps: Pick<Deps, "keys">, token: string): Promise<RefreshPointer> {
  try {
    const compact = token.length <= MAX_TOKEN_LENGTH && /^[\w-]+\.\.[\w-]+\.[\w-]+\.[\w-]+$/.test(token);
    if (!compact || !isCanonical(token)) throw new Error("Not a compact JWE with a direct key");
    const header = decodeProtectedHeader(token);
    const kid = header.kid ?? "";
    if (!deps.keys.refreshById(kid)) await deps.keys.lookAgain();
    const key = deps.keys.refreshById(kid);
    if (!key || header.typ !== TYPE || "zip" in header || "crit" in header)
      throw new Error("Not a refresh token of ours");
    const { plaintext } = await compactDecrypt(token, deriveKey(key, "refresh token"), {
      keyManagementAlgorithms: ["dir"],
      contentEncryptionAlgorithms: ["A256GCM"],
    });
    const { f, g, s } = JSON.parse(Buffer.from(plaintext).toString());
    if (!isId(f) || !Number.isSafeInteger(g) || g < 1 || typeof s !== "string") throw new Error("Not a pointer");
    return { familyId: f, generation: g, secret: s };
  } catch (error) {
    if (isConnectionError(error) || error instanceof AppError) throw error;
    throw new AppError("AUTH_TOKEN_INVALID", { internal: "The refresh token does not open", cause: error });
  }
}
