import { sql } from "drizzle-orm";
import { boolean, check, index, pgTable, primaryKey, text, uniqueIndex, uuid } from "drizzle-orm/pg-core";
import { id, instant } from "./columns.ts";

export const USER_STATUSES = ["active", "pending", "disabled", "deactivated"] as const;
export type UserStatus = (typeof USER_STATUSES)[number];

/** People. The user name is kept in lower case; `email_key` is the address by which no two accounts may be the same. */
export const users = pgTable(
  "users",
  {
    id: id(),
    username: text("username").notNull(),
    email: text("email").notNull(),
    emailKey: text("email_key").notNull(),
    emailVerifiedAt: instant("email_verified_at"),
    status: text("status", { enum: USER_STATUSES }).notNull(),
    passwordChangeRequired: boolean("password_change_required").notNull().default(false),
    createdAt: instant("created_at").notNull(),
    updatedAt: instant("updated_at").notNull(),
    lastLoginAt: instant("last_login_at"),
    deactivatedAt: instant("deactivated_at"),
    /** Until when somebody who gave their account up takes it back by logging in; null where it was not they who did. */
    reclaimableUntil: instant("reclaimable_until"),
    /** Nothing personal is left in the row. It stays until nobody can show a token of its sessions any more. */
    erasedAt: instant("erased_at"),
  },
  (t) => [
    // Byte by byte: whatever the language of the database, these also find what begins with a text.
    uniqueIndex("users_username_key").on(t.username.op("text_pattern_ops")),
    uniqueIndex("users_email_key").on(t.emailKey.op("text_pattern_ops")),
    /**
     * Finds what has a text in it; it is missing where the database does not have the extension. What waits to be put into
     * it (256 kB at most) is read by each search, and put in by whoever comes next: a moment's work.
     */
    index("users_search_idx")
      .using("gin", t.username.op("gin_trgm_ops"), t.emailKey.op("gin_trgm_ops"))
      .with({ gin_pending_list_limit: 256 }),
    // Read backwards. Not by desc(), which puts NULL last and so serves no plain ORDER BY … DESC.
    index("users_created_at_idx").on(t.createdAt, t.id),
    index("users_pending_idx").on(t.createdAt, t.id).where(sql`${t.status} = 'pending'`),
    index("users_deactivated_idx").on(t.deactivatedAt, t.id).where(sql`${t.deactivatedAt} IS NOT NULL`),
    index("users_erased_at_idx").on(t.erasedAt).where(sql`${t.erasedAt} IS NOT NULL`),
    check("users_username_is_lower_case", sql`${t.username} = lower(${t.username})`),
    check("users_email_key_is_lower_case", sql`${t.emailKey} = lower(${t.emailKey})`),
    check("users_status_known", sql`${t.status} IN ('active', 'pending', 'disabled', 'deactivated')`),
  ],
);

/** What a person proves who they are with. A password's `secret` is its hash in PHC or modular crypt form. */
export const credentials = pgTable(
  "credentials",
  {
    id: id(),
    userId: uuid("user_id")
      .notNull()
      .references(() => users.id, { onDelete: "cascade" }),
    kind: text("kind").notNull(),
    secret: text("secret").notNull(),
    /** The pepper under the hash, where there is one: imported hashes have none. */
    pepperId: text("pepper_id"),
    createdAt: instant("created_at").notNull(),
    updatedAt: instant("updated_at").notNull(),
    lastUsedAt: instant("last_used_at"),
  },
  (t) => [
    index("credentials_user_id_idx").on(t.userId),
    uniqueIndex("credentials_one_password_key").on(t.userId).where(sql`${t.kind} = 'password'`),
  ],
);

export const roles = pgTable("roles", {
  name: text("name").primaryKey(),
  description: text("description").notNull().default(""),
  builtIn: boolean("built_in").notNull().default(false),
  createdAt: instant("created_at").notNull(),
  updatedAt: instant("updated_at").notNull(),
});

export const rolePermissions = pgTable(
  "role_permissions",
  {
    role: text("role")
      .notNull()
      .references(() => roles.name, { onDelete: "cascade" }),
    permission: text("permission").notNull(),
  },
  (t) => [primaryKey({ columns: [t.role, t.permission] })],
);

/** A role gives everything that the roles it includes give, and what those include. Never in a circle. */
export const roleInclusions = pgTable(
  "role_inclusions",
  {
    role: text("role")
      .notNull()
      .references(() => roles.name, { onDelete: "cascade" }),
    includes: text("includes")
      .notNull()
      .references(() => roles.name, { onDelete: "restrict" }),
  },
  (t) => [primaryKey({ columns: [t.role, t.includes] }), index("role_inclusions_includes_idx").on(t.includes)],
);

/** A role that somebody has on one thing only, and on everything under it: "tenants/acme". */
export const resourceGrants = pgTable(
  "resource_grants",
  {
    userId: uuid("user_id")
      .notNull()
      .references(() => users.id, { onDelete: "cascade" }),
    role: text("role")
      .notNull()
      .references(() => roles.name, { onDelete: "restrict" }),
    resource: text("resource").notNull(),
    grantedAt: instant("granted_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.userId, t.role, t.resource] }), index("resource_grants_role_idx").on(t.role)],
);

export const userRoles = pgTable(
  "user_roles",
  {
    userId: uuid("user_id")
      .notNull()
      .references(() => users.id, { onDelete: "cascade" }),
    role: text("role")
      .notNull()
      .references(() => roles.name, { onDelete: "restrict" }),
    grantedAt: instant("granted_at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.userId, t.role] }), index("user_roles_role_idx").on(t.role)],
);
