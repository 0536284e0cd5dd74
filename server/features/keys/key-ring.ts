import { importJWK, importPKCS8, type JWK } from "jose";
import { failed } from "../../../config/errors.ts";
import { SIGNATURE_ALGORITHMS, type SignatureAlgorithm } from "../../../config/schema.ts";
import { type SecretKey, type Secrets, secretKey, unseal } from "../../../config/secrets.ts";
import type { Tx } from "../../../db/database.ts";
import { isConnectionError } from "../../../db/errors.ts";
import {
  type KeyStage,
  listKeyStages,
  listPublishedSigningKeys,
  listSecretKeys,
  type SigningKeyRow,
} from "../../../db/queries/keys.ts";
import { unavailable } from "../../errors.ts";
import { etagOf } from "../../etag.ts";
import type { Clock } from "../../ports/clock.ts";
import { openSecrets } from "./secrets.ts";

/** A key as the JOSE library imports it. */
export type CryptoKeyLike = Awaited<ReturnType<typeof importPKCS8>>;

/** A signing key, opened. The same object for as long as the key counts. */
export interface OpenKey {
  readonly kid: string;
  readonly algorithm: SignatureAlgorithm;
  readonly privateKey: CryptoKeyLike;
  readonly publicKey: CryptoKeyLike;
}

/** The published key set in the form in which it is served. */
export interface PublishedKeys {
  readonly body: string;
  readonly etag: string;
}

/** The keys of this installation, opened and ready in memory. */
export interface KeyRing {
  /** The key that signs now. */
  signing(): OpenKey;
  /** The key that a token's `kid` names, where it is one of ours that may still count. */
  verification(kid: string): OpenKey | undefined;
  published(): PublishedKeys;
  /** The key that seals refresh tokens made now. */
  refresh(): SecretKey;
  /** The refresh key that sealed a token, where it still counts. */
  refreshById(id: string): SecretKey | undefined;
  /** The master key and the pepper as they count now: those of the process, and those that were rotated in since. */
  secrets(): Secrets;
  /** The stage of every key, for whoever sees to the next one. */
  stages(): readonly KeyStage[];
  /** Reads the keys again. Several at once share one reading that began after the last of them asked. */
  reload(): Promise<void>;
  /**
   * Reads them again for a key that is not known here, in case it was made a moment ago. No more often than once a
   * second, since anybody may ask for any key.
   */
  lookAgain(): Promise<void>;
}

const LOOK_AGAIN_MS = 1000;

interface Opened {
  readonly signing: OpenKey;
  readonly byKid: ReadonlyMap<string, OpenKey>;
  readonly published: PublishedKeys;
  readonly refresh: SecretKey;
  readonly refreshKeys: ReadonlyMap<string, SecretKey>;
  readonly secrets: Secrets;
  readonly stages: readonly KeyStage[];
}

/**
 * Opens every key that counts now.
 *
 * @param base the secrets that this process was started with
 * @throws OperatorError where the master key does not fit (exit 2), or there is no key yet (exit 1)
 */
export async function openKeyRing(tx: Tx, base: Secrets, clock: Pick<Clock, "elapsed">): Promise<KeyRing> {
  let opened = await open(tx, base, new Map());
  let readAt = clock.elapsed();
  let running: Promise<void> | undefined;
  let waiting: Promise<void> | undefined;

  async function read(): Promise<void> {
    // A master key that was handed over once stays known, also when it does not wait in the database any more.
    opened = await open(tx, { ...base, master: opened.secrets.master }, opened.byKid);
    readAt = clock.elapsed();
  }
  function reload(): Promise<void> {
    if (!running) {
      running = read().finally(() => {
        running = undefined;
      });
      return running;
    }
    waiting ??= running
      .catch(() => {})
      .then(() => {
        waiting = undefined;
        return reload();
      });
    return waiting;
  }
  return {
    signing: () => opened.signing,
    verification: (kid) => opened.byKid.get(kid),
    published: () => opened.published,
    refresh: () => opened.refresh,
    refreshById: (id) => opened.refreshKeys.get(id),
    secrets: () => opened.secrets,
    stages: () => opened.stages,
    reload,
    async lookAgain() {
      if (clock.elapsed() - readAt < LOOK_AGAIN_MS) return;
      await reload().catch((error) => {
        throw isConnectionError(error) ? error : unavailable("The keys could not be read anew", error);
      });
    },
  };
}

async function open(tx: Tx, base: Secrets, known: ReadonlyMap<string, OpenKey>): Promise<Opened> {
  const { secrets } = await openSecrets(tx, base);
  const rows = await listPublishedSigningKeys(tx);
  const secretRows = (await listSecretKeys(tx)).filter((row) => row.purpose === "refresh");
  const active = rows.find((row) => row.state === "active");
  const activeRefresh = secretRows.find((row) => row.state === "active");
  if (!active || !activeRefresh) {
    throw failed("This installation has no keys yet.", "Run `primer init`; it finishes what was begun.");
  }
  const keys = await Promise.all(rows.map((row) => known.get(row.kid) ?? openSigningKey(row, secrets)));
  const byKid = new Map(keys.map((key) => [key.kid, key]));
  const refreshKeys = new Map(
    secretRows.map((row) => [row.keyId, secretKey(unseal(secrets.master, row.sealedKey, row.id))]),
  );
  return {
    signing: present(byKid.get(active.kid)),
    byKid,
    published: publish(rows.map((row) => row.publicJwk)),
    refresh: present(refreshKeys.get(activeRefresh.keyId)),
    refreshKeys,
    secrets,
    stages: await listKeyStages(tx),
  };
}

function present<T>(key: T | undefined): T {
  if (key === undefined) throw new Error("An active key was not opened");
  return key;
}

async function openSigningKey(row: SigningKeyRow, secrets: Secrets): Promise<OpenKey> {
  const algorithm = SIGNATURE_ALGORITHMS.find((candidate) => candidate === row.algorithm);
  if (!algorithm) throw new Error(`A signing key has the unknown algorithm ${row.algorithm}`);
  const pem = unseal(secrets.master, row.sealedPrivateKey, row.id).toString();
  const [privateKey, publicKey] = await Promise.all([importPKCS8(pem, algorithm), importJWK(row.publicJwk, algorithm)]);
  return { kid: row.kid, algorithm, privateKey, publicKey: publicKey as CryptoKeyLike };
}

function publish(keys: readonly JWK[]): PublishedKeys {
  const body = JSON.stringify({ keys });
  return { body, etag: etagOf(body) };
}
