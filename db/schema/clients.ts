import { index, pgTable, text, uniqueIndex, uuid } from "drizzle-orm/pg-core";
import { id, instant } from "./columns.ts";

/** Services that may introspect and revoke tokens. The id is the `client_id` that they show. */
export const clients = pgTable(
  "clients",
  { id: id(), name: text("name").notNull(), createdAt: instant("created_at").notNull() },
  (t) => [uniqueIndex("clients_name_key").on(t.name)],
);

/** A client's secrets, hashed. Two count while one is replaced: the old one until `expires_at`. */
export const clientSecrets = pgTable(
  "client_secrets",
  {
    id: id(),
    clientId: uuid("client_id")
      .notNull()
      .references(() => clients.id, { onDelete: "cascade" }),
    secretHash: text("secret_hash").notNull(),
    createdAt: instant("created_at").notNull(),
    expiresAt: instant("expires_at"),
  },
  (t) => [index("client_secrets_client_id_idx").on(t.clientId)],
);
