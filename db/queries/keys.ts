import { and, eq, inArray, max, ne, sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { installation } from "../schema/installation.ts";
import { type KeyState, secretKeys, signingKeys } from "../schema/keys.ts";
import { sessions } from "../schema/sessions.ts";
import { credentials } from "../schema/users.ts";

export type SigningKeyRow = typeof signingKeys.$inferSelect;

/** What a secret key is for: sealing refresh tokens, the HMAC over passwords, sealing what the database keeps. */
export type SecretPurpose = "refresh" | "pepper" | "master";

/** Every signing key that a live token may bear, or that will sign next. */
export const listPublishedSigningKeys = (tx: Tx): Promise<SigningKeyRow[]> =>
  tx.select().from(signingKeys).where(ne(signingKeys.state, "retired")).orderBy(signingKeys.id);

export const insertSigningKey = (tx: Tx, row: typeof signingKeys.$inferInsert) => tx.insert(signingKeys).values(row);

export type SealedSecret = Pick<typeof secretKeys.$inferSelect, "id" | "purpose" | "keyId" | "state" | "sealedKey">;

/**
 * The secret keys that still count, sealed. Asked before migrations too, so it reads only columns that were there from
 * the first one on.
 */
export const listSecretKeys = (tx: Tx) =>
  tx
    .select({
      id: secretKeys.id,
      purpose: secretKeys.purpose,
      keyId: secretKeys.keyId,
      state: secretKeys.state,
      sealedKey: secretKeys.sealedKey,
    })
    .from(secretKeys)
    .where(ne(secretKeys.state, "retired"))
    .orderBy(secretKeys.id);

export const insertSecretKey = (tx: Tx, row: typeof secretKeys.$inferInsert) => tx.insert(secretKeys).values(row);

/** A key of any kind, without what is sealed. */
export interface KeyStage {
  readonly id: string;
  /** "signing", or the purpose of a secret key. */
  readonly purpose: "signing" | SecretPurpose;
  /** The kid of a signing key, the id of a secret one. */
  readonly keyId: string;
  /** Null where there is only one. */
  readonly algorithm: string | null;
  readonly state: KeyState;
  readonly emergency: boolean;
  readonly createdAt: Date;
  readonly activatesAt: Date | null;
  readonly activatedAt: Date | null;
  readonly retiringAt: Date | null;
  readonly retiresAt: Date | null;
  readonly retiredAt: Date | null;
}

const STAGE_COLUMNS = [
  "id",
  "state",
  "emergency",
  "createdAt",
  "activatesAt",
  "activatedAt",
  "retiringAt",
  "retiresAt",
  "retiredAt",
] as const;

type StageColumns = Pick<typeof secretKeys, (typeof STAGE_COLUMNS)[number]>;

const stageColumns = (table: typeof signingKeys | typeof secretKeys) =>
  Object.fromEntries(STAGE_COLUMNS.map((name) => [name, table[name]])) as unknown as StageColumns;

/** Every key there is or was, the oldest first. */
export async function listKeyStages(tx: Tx): Promise<KeyStage[]> {
  const signing = await tx
    .select({ ...stageColumns(signingKeys), keyId: signingKeys.kid, algorithm: signingKeys.algorithm })
    .from(signingKeys);
  const secret = await tx
    .select({ ...stageColumns(secretKeys), keyId: secretKeys.keyId, purpose: secretKeys.purpose })
    .from(secretKeys);
  const all: KeyStage[] = [
    ...signing.map((row) => ({ ...row, purpose: "signing" as const })),
    ...secret.map((row) => ({ ...row, purpose: row.purpose as SecretPurpose, algorithm: null })),
  ];
  return all.sort((a, b) => (a.id < b.id ? -1 : 1));
}

type StageChange = Partial<Omit<KeyStage, "id" | "purpose" | "keyId" | "algorithm">>;

/** Moves a key to another state. A retired key's secret is wiped: nothing will ever need it again. */
export async function updateKeyStage(tx: Tx, key: KeyStage, change: StageChange): Promise<void> {
  const wiped = change.state === "retired";
  if (key.purpose === "signing") {
    const set = { ...change, ...(wiped ? { sealedPrivateKey: "" } : {}) };
    await tx.update(signingKeys).set(set).where(eq(signingKeys.id, key.id));
  } else {
    const set = { ...change, ...(wiped ? { sealedKey: "" } : {}) };
    await tx.update(secretKeys).set(set).where(eq(secretKeys.id, key.id));
  }
}

/** One transaction at a time changes keys, whichever process it is in. */
export const lockKeys = (tx: Tx) => tx.select({ only: installation.only }).from(installation).for("update");

/** When the last session that is open now will be over. */
export async function lastSessionEnd(tx: Tx): Promise<Date | null> {
  const [row] = await tx.select({ end: max(sessions.expiresAt) }).from(sessions);
  return row?.end ?? null;
}

/** Everything that is sealed under the master key, but for the new master key that waits under the old one. */
export async function listSealed(tx: Tx): Promise<{ table: "signing" | "secret"; id: string; sealed: string }[]> {
  const signing = await tx
    .select({ id: signingKeys.id, sealed: signingKeys.sealedPrivateKey })
    .from(signingKeys)
    .where(ne(signingKeys.state, "retired"));
  const secret = await tx
    .select({ id: secretKeys.id, sealed: secretKeys.sealedKey })
    .from(secretKeys)
    .where(and(ne(secretKeys.state, "retired"), ne(secretKeys.purpose, "master")));
  return [
    ...signing.map((row) => ({ ...row, table: "signing" as const })),
    ...secret.map((row) => ({ ...row, table: "secret" as const })),
  ];
}

export async function updateSealed(tx: Tx, row: { table: "signing" | "secret"; id: string; sealed: string }) {
  if (row.table === "signing") {
    await tx.update(signingKeys).set({ sealedPrivateKey: row.sealed }).where(eq(signingKeys.id, row.id));
  } else {
    await tx.update(secretKeys).set({ sealedKey: row.sealed }).where(eq(secretKeys.id, row.id));
  }
}

export const updateMasterKeyId = (tx: Tx, masterKeyId: string) => tx.update(installation).set({ masterKeyId });

/** How many passwords stand on each pepper; null is none. */
export const countPasswordsByPepper = (tx: Tx) =>
  tx
    .select({ pepperId: credentials.pepperId, count: sql<number>`count(*)::int` })
    .from(credentials)
    .where(inArray(credentials.kind, ["password"]))
    .groupBy(credentials.pepperId);
