import { createCipheriv, createHmac, createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { decodeJwt, decodeProtectedHeader } from "jose";
import { deriveKey } from "../../../config/secrets.ts";
import type { TestApp } from "../../support/app.ts";
import { sharedSigningKey } from "../../support/fixtures.ts";

/** Makes tokens by hand, right and wrong ones: nothing here refuses to write what a library would not. */
export const encode = (value: string | Uint8Array): string => Buffer.from(value).toString("base64url");

type Json = Readonly<Record<string, unknown>>;
type Signer = (input: string) => Uint8Array;

/** The keys of the test installation in every form that an attacker, or we ourselves, could sign with. */
export async function forgeryKeys() {
  const { privatePem, publicJwk } = await sharedSigningKey();
  const privateKey = createPrivateKey(privatePem);
  const publicKey = createPublicKey({ key: publicJwk as never, format: "jwk" });
  return {
    privateKey,
    publicKey,
    publicJwk,
    pem: publicKey.export({ type: "spki", format: "pem" }) as string,
    pkcs1: publicKey.export({ type: "pkcs1", format: "pem" }) as string,
    der: publicKey.export({ type: "spki", format: "der" }),
    modulus: Buffer.from(String(publicJwk.n), "base64url"),
  };
}

export const rsa =
  (key: KeyObject, hash = "sha256"): Signer =>
  (input) =>
    sign(hash, Buffer.from(input), key);

export const hmac =
  (secret: string | Uint8Array): Signer =>
  (input) =>
    createHmac("sha256", secret).update(input).digest();

/** A compact JWS. Header and payload may be given as text, so that they need not be what JSON.stringify would write. */
export function jws(header: Json | string, payload: Json | string, signer: Signer): string {
  const text = (part: Json | string) => (typeof part === "string" ? part : JSON.stringify(part));
  const input = `${encode(text(header))}.${encode(text(payload))}`;
  return `${input}.${encode(signer(input))}`;
}

/** Header and claims of a token that was issued. */
export const partsOf = (token: string) => ({
  header: decodeProtectedHeader(token) as Json,
  claims: decodeJwt(token) as Json,
});

/** The key that refresh tokens of the test application are sealed with. */
export function refreshSealKey(app: TestApp): { id: string; bytes: Uint8Array } {
  const key = app.deps.keys.refresh();
  return { id: key.id, bytes: deriveKey(key, "refresh token") };
}

interface JweParts {
  readonly header: Json;
  readonly plain: string | Uint8Array;
  readonly key: Uint8Array;
  readonly encryptedKey?: string;
  readonly tagLength?: number;
}

/** A compact JWE, encrypted with AES-GCM of the key's length whatever its header says. */
export function jwe({ header, plain, key, encryptedKey = "", tagLength = 16 }: JweParts): string {
  const head = encode(JSON.stringify(header));
  const iv = Buffer.alloc(12, 7);
  const cipher = createCipheriv(key.length === 32 ? "aes-256-gcm" : "aes-128-gcm", key, iv);
  cipher.setAAD(Buffer.from(head));
  const body = Buffer.concat([cipher.update(plain), cipher.final()]);
  const tag = cipher.getAuthTag().subarray(0, tagLength);
  return [head, encryptedKey, encode(iv), encode(body), encode(tag)].join(".");
}
