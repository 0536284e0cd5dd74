import { sql } from "drizzle-orm";
import { index, integer, jsonb, pgTable, text, uniqueIndex, uuid } from "drizzle-orm/pg-core";
import { id, instant } from "./columns.ts";
import { users } from "./users.ts";

/** One login on one device. Its row decides whether anything that names it still counts. */
export const sessions = pgTable(
  "sessions",
  {
    id: id(),
    userId: uuid("user_id")
      .notNull()
      .references(() => users.id, { onDelete: "cascade" }),
    clientId: text("client_id").notNull(),
    /** How the person proved who they are (RFC 8176), and when last. */
    amr: text("amr").array().notNull(),
    authTime: instant("auth_time").notNull(),
    createdAt: instant("created_at").notNull(),
    lastSeenAt: instant("last_seen_at").notNull(),
    expiresAt: instant("expires_at").notNull(),
    revokedAt: instant("revoked_at"),
    revokedReason: text("revoked_reason"),
    deviceName: text("device_name"),
    userAgent: text("user_agent"),
    ip: text("ip"),
    /** The hash of the random value that the browser keeps in a cookie, where the session is bound to one. */
    fingerprintHash: text("fingerprint_hash"),
  },
  (t) => [
    index("sessions_user_id_idx").on(t.userId, t.createdAt.desc()),
    index("sessions_expires_at_idx").on(t.expiresAt),
    index("sessions_revoked_at_idx").on(t.revokedAt).where(sql`${t.revokedAt} IS NOT NULL`),
  ],
);

/**
 * The line of refresh tokens of a session: which generation counts now. The secret of a generation is an HMAC under the
 * refresh key `key_id`, so any node can rebuild it; the row keeps only its hash.
 */
export const refreshFamilies = pgTable(
  "refresh_families",
  {
    id: id(),
    sessionId: uuid("session_id")
      .notNull()
      .references(() => sessions.id, { onDelete: "cascade" }),
    generation: integer("generation").notNull(),
    keyId: text("key_id").notNull(),
    secretHash: text("secret_hash").notNull(),
    createdAt: instant("created_at").notNull(),
    rotatedAt: instant("rotated_at").notNull(),
    idleExpiresAt: instant("idle_expires_at").notNull(),
    revokedAt: instant("revoked_at"),
  },
  (t) => [
    uniqueIndex("refresh_families_session_id_key").on(t.sessionId),
    index("refresh_families_idle_expires_at_idx").on(t.idleExpiresAt),
  ],
);

/** Links and codes that work once: of a token only the hash is kept. */
export const singleUseTokens = pgTable(
  "single_use_tokens",
  {
    id: id(),
    purpose: text("purpose").notNull(),
    /** What it is about, such as a session's id: of one purpose and subject only the newest works. */
    subject: text("subject"),
    tokenHash: text("token_hash").notNull(),
    userId: uuid("user_id").references(() => users.id, { onDelete: "cascade" }),
    details: jsonb("details").$type<Record<string, unknown>>().notNull().default({}),
    createdAt: instant("created_at").notNull(),
    expiresAt: instant("expires_at").notNull(),
    usedAt: instant("used_at"),
  },
  (t) => [
    uniqueIndex("single_use_tokens_token_hash_key").on(t.tokenHash),
    uniqueIndex("single_use_tokens_newest_only_key").on(t.purpose, t.subject).where(sql`${t.usedAt} IS NULL`),
    index("single_use_tokens_user_id_idx").on(t.userId, t.purpose),
    index("single_use_tokens_expires_at_idx").on(t.expiresAt),
  ],
);
