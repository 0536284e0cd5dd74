import { sql } from "drizzle-orm";
import { check, index, jsonb, pgTable, text, uniqueIndex } from "drizzle-orm/pg-core";
import type { JWK } from "jose";
import { id, instant } from "./columns.ts";

export const KEY_STATES = ["next", "active", "retiring", "retired"] as const;
export type KeyState = (typeof KEY_STATES)[number];

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
    createdAt: instant("created_at").notNull(),
    activatedAt: instant("activated_at"),
    retiringAt: instant("retiring_at"),
    retiredAt: instant("retired_at"),
  },
  (t) => [
    uniqueIndex("signing_keys_kid_key").on(t.kid),
    uniqueIndex("signing_keys_one_active_key").on(t.state).where(sql`${t.state} = 'active'`),
    check("signing_keys_state_known", sql`${t.state} IN ('next', 'active', 'retiring', 'retired')`),
  ],
);

/** Symmetric keys that never leave the installation, by purpose ("refresh"); sealed like the signing keys. */
export const secretKeys = pgTable(
  "secret_keys",
  {
    id: id(),
    purpose: text("purpose").notNull(),
    keyId: text("key_id").notNull(),
    state: text("state", { enum: KEY_STATES }).notNull(),
    sealedKey: text("sealed_key").notNull(),
    createdAt: instant("created_at").notNull(),
    retiredAt: instant("retired_at"),
  },
  (t) => [
    uniqueIndex("secret_keys_key_id_key").on(t.keyId),
    uniqueIndex("secret_keys_one_active_key").on(t.purpose).where(sql`${t.state} = 'active'`),
    index("secret_keys_purpose_idx").on(t.purpose),
    check("secret_keys_state_known", sql`${t.state} IN ('next', 'active', 'retiring', 'retired')`),
  ],
);
