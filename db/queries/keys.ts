import { and, eq, inArray } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { secretKeys, signingKeys } from "../schema/keys.ts";

export type SigningKeyRow = typeof signingKeys.$inferSelect;
export type SecretKeyRow = typeof secretKeys.$inferSelect;

/** Every signing key that a live token may bear, or that will sign next. */
export const listPublishedSigningKeys = (tx: Tx): Promise<SigningKeyRow[]> =>
  tx
    .select()
    .from(signingKeys)
    .where(inArray(signingKeys.state, ["next", "active", "retiring"]));

export const insertSigningKey = (tx: Tx, row: typeof signingKeys.$inferInsert) => tx.insert(signingKeys).values(row);

/** The keys of one purpose that still count, sealed. */
export const listSecretKeys = (tx: Tx, purpose: string): Promise<SecretKeyRow[]> =>
  tx
    .select()
    .from(secretKeys)
    .where(and(eq(secretKeys.purpose, purpose), inArray(secretKeys.state, ["active", "retiring"])));

export const insertSecretKey = (tx: Tx, row: typeof secretKeys.$inferInsert) => tx.insert(secretKeys).values(row);
