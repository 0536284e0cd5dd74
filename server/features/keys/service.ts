import { createHash } from "node:crypto";
import {
  calculateJwkThumbprint,
  exportJWK,
  exportPKCS8,
  generateKeyPair,
  importJWK,
  importPKCS8,
  type JWK,
} from "jose";
import { failed } from "../../../config/errors.ts";
import { SIGNATURE_ALGORITHMS, type SignatureAlgorithm } from "../../../config/schema.ts";
import { seal, secretKey, unseal } from "../../../config/secrets.ts";
import type { Tx } from "../../../db/database.ts";
import {
  insertSecretKey,
  insertSigningKey,
  listPublishedSigningKeys,
  listSecretKeys,
} from "../../../db/queries/keys.ts";
import type { Deps } from "../../deps.ts";
import { audit } from "../audit/service.ts";
import type { CryptoKeyLike, KeyRing, PublishedKeys, VerificationKey } from "./key-ring.ts";

export const REFRESH_PURPOSE = "refresh";

type KeyDeps = Pick<Deps, "secrets" | "clock" | "random">;

/**
 * Opens every key that counts now.
 *
 * @throws OperatorError where the master key does not fit (exit 2), or there is no key yet (exit 1)
 */
export async function openKeyRing(tx: Tx, deps: Pick<Deps, "secrets">): Promise<KeyRing> {
  const rows = await listPublishedSigningKeys(tx);
  const active = rows.find((row) => row.state === "active");
  const refreshRows = await listSecretKeys(tx, REFRESH_PURPOSE);
  const activeRefresh = refreshRows.find((row) => row.state === "active");
  if (!active || !activeRefresh) {
    throw failed("This installation has no keys yet.", "Run `primer init`; it finishes what was begun.");
  }

  const signing = await openSigningKey(active.id, active.sealedPrivateKey, active.algorithm, active.kid, deps);
  const verification = new Map<string, VerificationKey>();
  for (const row of rows) {
    const algorithm = known(row.algorithm);
    verification.set(row.kid, { algorithm, publicKey: (await importJWK(row.publicJwk, algorithm)) as CryptoKeyLike });
  }
  const refreshKeys = new Map(
    refreshRows.map((row) => [row.keyId, secretKey(unseal(deps.secrets.master, row.sealedKey, row.id))]),
  );
  const refresh = refreshKeys.get(activeRefresh.keyId);
  if (!refresh) throw new Error("The active refresh key was not opened");
  const published = publish(rows.map((row) => row.publicJwk));

  return {
    signing: () => signing,
    verification: (kid) => verification.get(kid),
    published: () => published,
    refresh: () => refresh,
    refreshById: (id) => refreshKeys.get(id),
  };
}

async function openSigningKey(id: string, sealed: string, algorithm: string, kid: string, deps: Pick<Deps, "secrets">) {
  const pem = unseal(deps.secrets.master, sealed, id).toString();
  const name = known(algorithm);
  return { kid, algorithm: name, privateKey: await importPKCS8(pem, name) };
}

function known(algorithm: string): SignatureAlgorithm {
  const name = SIGNATURE_ALGORITHMS.find((candidate) => candidate === algorithm);
  if (!name) throw new Error(`A signing key has the unknown algorithm ${algorithm}`);
  return name;
}

function publish(keys: readonly JWK[]): PublishedKeys {
  const body = JSON.stringify({ keys });
  return { body, etag: `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"` };
}

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

/** Keeps a key pair as the active one, sealed under the master key and bound to its row. */
export async function insertActiveSigningKey(tx: Tx, deps: KeyDeps, key: NewSigningKey): Promise<void> {
  const now = deps.clock.now();
  const id = deps.random.id(now);
  await insertSigningKey(tx, {
    id,
    kid: key.kid,
    algorithm: key.algorithm,
    state: "active",
    publicJwk: key.publicJwk,
    sealedPrivateKey: seal(deps.secrets.master, Buffer.from(key.privatePem), id, deps.random.bytes),
    createdAt: now,
    activatedAt: now,
  });
  await recordCreated(tx, deps, "signing", key.kid);
}

/** Makes the key that refresh tokens are sealed with. */
export async function createRefreshKey(tx: Tx, deps: KeyDeps): Promise<void> {
  const now = deps.clock.now();
  const id = deps.random.id(now);
  const key = secretKey(deps.random.bytes(32));
  await insertSecretKey(tx, {
    id,
    purpose: REFRESH_PURPOSE,
    keyId: key.id,
    state: "active",
    sealedKey: seal(deps.secrets.master, key.bytes, id, deps.random.bytes),
    createdAt: now,
  });
  await recordCreated(tx, deps, REFRESH_PURPOSE, key.id);
}

const recordCreated = (tx: Tx, deps: KeyDeps, purpose: string, keyId: string) =>
  audit(tx, deps, {
    action: "key.created",
    outcome: "success",
    actor: { kind: "operator" },
    subject: { kind: "key", id: keyId },
    details: { purpose },
  });
