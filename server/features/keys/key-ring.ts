import type { importPKCS8 } from "jose";
import type { SignatureAlgorithm } from "../../../config/schema.ts";
import type { SecretKey } from "../../../config/secrets.ts";

/** A key as the JOSE library imports it. */
export type CryptoKeyLike = Awaited<ReturnType<typeof importPKCS8>>;

export interface SigningKey {
  readonly kid: string;
  readonly algorithm: SignatureAlgorithm;
  readonly privateKey: CryptoKeyLike;
}

export interface VerificationKey {
  readonly algorithm: SignatureAlgorithm;
  readonly publicKey: CryptoKeyLike;
}

/** The published key set in the form in which it is served. */
export interface PublishedKeys {
  readonly body: string;
  readonly etag: string;
}

/** The keys of this installation, opened and ready in memory. */
export interface KeyRing {
  signing(): SigningKey;
  /** The key that a token's `kid` names, where it is one of ours that may still count. */
  verification(kid: string): VerificationKey | undefined;
  published(): PublishedKeys;
  /** The key that seals refresh tokens made now. */
  refresh(): SecretKey;
  /** The refresh key that sealed a token, where it still counts. */
  refreshById(id: string): SecretKey | undefined;
}
