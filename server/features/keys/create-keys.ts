import { calculateJwkThumbprint, exportJWK, exportPKCS8, generateKeyPair, type JWK } from "jose";
import type { SignatureAlgorithm } from "../../../config/schema.ts";
import { seal, secretKey } from "../../../config/secrets.ts";
import type { Tx } from "../../../db/database.ts";
import { insertSecretKey, insertSigningKey, type SecretPurpose } from "../../../db/queries/keys.ts";
import type { Deps } from "../../deps.ts";
import { type AuditEvent, audit } from "../audit/service.ts";

type KeyDeps = Pick<Deps, "secrets" | "clock" | "random">;

/** As what a new key begins: active at once, or next in turn at a time. */
export type Beginning =
  | { readonly state: "active" }
  | { readonly state: "next"; readonly activatesAt: Date; readonly emergency: boolean };

/** A fresh key pair, not kept anywhere yet. Making one of 4096 bits takes seconds, so it is done before a transaction. */
export interface NewSigningKey {
  readonly algorithm: SignatureAlgorithm;
  readonly kid: string;
  readonly publicJwk: JWK;
  readonly privatePem: string;
}

/** Makes a key pair whose kid is its RFC 7638 thumbprint. `bits` counts for RSA only. */
export async function generateSigningKey(algorithm: SignatureAlgorithm, bits: number): Promise<NewSigningKey> {
  const { publicKey, privateKey } = await generateKeyPair(algorithm, { modulusLength: bits, extractable: true });
  const publicPart = await exportJWK(publicKey);
  const kid = await calculateJwkThumbprint(publicPart, "sha256");
  const publicJwk = { ...publicPart, kid, alg: algorithm, use: "sig" };
  return { algorithm, kid, publicJwk, privatePem: await exportPKCS8(privateKey) };
}

/** Keeps a key pair, sealed under the master key and bound to its row. */
export async function keepSigningKey(
  tx: Tx,
  deps: KeyDeps,
  key: NewSigningKey,
  beginning: Beginning,
  actor: AuditEvent["actor"],
): Promise<void> {
  const row = newRow(deps, beginning);
  await insertSigningKey(tx, {
    ...row,
    kid: key.kid,
    algorithm: key.algorithm,
    publicJwk: key.publicJwk,
    sealedPrivateKey: seal(deps.secrets.master, Buffer.from(key.privatePem), row.id, deps.random.bytes),
  });
  await recordCreated(tx, deps, "signing", key.kid, actor);
}

/** Makes a secret key for a purpose and keeps it likewise. @returns its id */
export async function createSecretKey(
  tx: Tx,
  deps: KeyDeps,
  purpose: SecretPurpose,
  beginning: Beginning,
  actor: AuditEvent["actor"],
): Promise<string> {
  const row = newRow(deps, beginning);
  const key = secretKey(deps.random.bytes(32));
  await insertSecretKey(tx, {
    ...row,
    purpose,
    keyId: key.id,
    sealedKey: seal(deps.secrets.master, key.bytes, row.id, deps.random.bytes),
  });
  await recordCreated(tx, deps, purpose, key.id, actor);
  return key.id;
}

function newRow({ clock, random }: KeyDeps, beginning: Beginning) {
  const now = clock.now();
  const times = beginning.state === "active" ? { activatedAt: now } : {};
  return { id: random.id(now), createdAt: now, ...beginning, ...times };
}

const recordCreated = (tx: Tx, deps: KeyDeps, purpose: string, keyId: string, actor: AuditEvent["actor"]) =>
  audit(tx, deps, {
    action: "key.created",
    outcome: "success",
    actor,
    subject: { kind: "key", id: keyId },
    details: { purpose },
  });
