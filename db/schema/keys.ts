import { sql } from "drizzle-orm";
import { boolean, check, index, jsonb, pgTable, text, uniqueIndex } from "drizzle-orm/pg-core";
import type { JWK } from "jose";
import { id, instant } from "./columns.ts";

export const KEY_STATES = ["next", "active", "retiring", "retired"] as const;
export type KeyState = (typeof KEY_STATES)[number];

/** When a key goes from state to state: `activates_at` and `retires_at` are the plan, the others what happened. */
const stages = () => ({
  createdAt: instant("created_at").notNull(),
  /** From when on a "next" key is the active one. */
  activatesAt: instant("activates_at"),
  activatedAt: instant("activated_at"),
  /** Whether the keys before it are retired the moment it becomes active: what they made is not trusted any more. */
  emergency: boolean("emergency").notNull().default(false),
  retiringAt: instant("retiring_at"),
  /** From when on nothing that counts can bear a "retiring" key. */
  retiresAt: instant("retires_at"),
  retiredAt: instant("retired_at"),
});

/** Keys that sign access tokens. The private part is sealed under the master key, bound to the row's id. */
export const signingKeys = pgTable(
  "signing_keys",
  {
    id: id(),
    /** RFC 7638 thumbprint of the public part. */
    kid: text("kid").notNull(),
    algorithm: text("algorithm").notNull(),
    state: text("state", { enum: KEY_STATES }).notNull(),
    publicJwk: jsonb("public_jwk").$type<JWK>().notNull(),
    sealedPrivateKey: text("sealed_private_key").notNull(),
    ...stages(),
  },
  (t) => [
    uniqueIndex("signing_keys_kid_key").on(t.kid),
    uniqueIndex("signing_keys_one_next_key").on(t.state).where(sql`${t.state} = 'next'`),
    uniqueIndex("signing_keys_one_active_key").on(t.state).where(sql`${t.state} = 'active'`),
    check("signing_keys_state_known", sql`${t.state} IN ('next', 'active', 'retiring', 'retired')`),
  ],
);

/** Symmetric keys that never leave the installation, by purpose ("refresh", "pepper", "master"); sealed like the signing keys. */
export const secretKeys = pgTable(
  "secret_keys",
  {
    id: id(),
    purpose: text("purpose").notNull(),
    keyId: text("key_id").notNull(),
    state: text("state", { enum: KEY_STATES }).notNull(),
    sealedKey: text("sealed_key").notNull(),
    ...stages(),
  },
  (t) => [
    uniqueIndex("secret_keys_key_id_key").on(t.keyId),
    uniqueIndex("secret_keys_one_next_key").on(t.purpose).where(sql`${t.state} = 'next'`),
    uniqueIndex("secret_keys_one_active_key").on(t.purpose).where(sql`${t.state} = 'active'`),
    index("secret_keys_purpose_idx").on(t.purpose),
    check("secret_keys_state_known", sql`${t.state} IN ('next', 'active', 'retiring', 'retired')`),
  ],
);
