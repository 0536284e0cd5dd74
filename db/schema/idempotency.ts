import { index, pgTable, primaryKey, text } from "drizzle-orm/pg-core";
import { instant } from "./columns.ts";

/**
 * What was answered to requests that came with an Idempotency-Key, so that the same request is answered the same once
 * more. A row is written in the transaction of the action: it is there exactly if the action is.
 */
export const idempotencyKeys = pgTable(
  "idempotency_keys",
  {
    /** Whose key it is: two people may use the same one. */
    callerId: text("caller_id").notNull(),
    keyHash: text("key_hash").notNull(),
    /** What was asked and what was answered, sealed under the master key: it may hold a secret. Null while it is worked out. */
    sealed: text("sealed"),
    /** What the answer is about: with a user goes what was answered about them. */
    subjectId: text("subject_id"),
    expiresAt: instant("expires_at").notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.callerId, t.keyHash] }),
    index("idempotency_keys_subject_id_idx").on(t.subjectId),
    index("idempotency_keys_expires_at_idx").on(t.expiresAt),
  ],
);
