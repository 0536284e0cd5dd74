import { asc, count, gt, sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { credentials, type UserStatus, users } from "../schema/users.ts";
import { anyIdOf, anyOf } from "./any-of.ts";
import { rolesOfUser } from "./users.ts";

/** What decides whether a user is there already, or their name or address is somebody else's. */
export type StandingUser = Pick<typeof users.$inferSelect, "id" | "username" | "emailKey" | "status">;

/** A user with password and roles, as it is written in one go. */
export interface ImportedRow {
  readonly id: string;
  readonly username: string;
  readonly email: string;
  readonly emailKey: string;
  readonly emailVerifiedAt: Date | null;
  readonly status: UserStatus;
  readonly passwordChangeRequired: boolean;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  readonly lastLoginAt: Date | null;
  readonly deactivatedAt: Date | null;
  readonly credential: {
    readonly id: string;
    readonly secret: string;
    readonly pepperId: string | null;
    readonly changedAt: Date;
  } | null;
  readonly roles: readonly string[];
  readonly grants: readonly RoleOnThing[];
}

/** A role that somebody has on one thing only. */
export interface RoleOnThing {
  readonly role: string;
  readonly resource: string;
}

/** Everybody who has one of these ids, names or addresses; some of them more than once. */
export function listStandingUsers(
  tx: Pick<Tx, "select">,
  keys: { ids: readonly string[]; usernames: readonly string[]; emailKeys: readonly string[] },
): Promise<StandingUser[]> {
  const standing = () =>
    tx.select({ id: users.id, username: users.username, emailKey: users.emailKey, status: users.status }).from(users);
  return standing()
    .where(sql`${users.id} = ${anyIdOf(keys.ids)}`)
    .unionAll(standing().where(sql`${users.username} = ${anyOf(keys.usernames)}`))
    .unionAll(standing().where(sql`${users.emailKey} = ${anyOf(keys.emailKeys)}`));
}

/**
 * Writes users with their passwords and roles in one statement, which takes a fraction of what one each would.
 *
 * @returns the ids of those that were written: not those whose name or address somebody took at the same moment
 */
export async function insertImportedUsers(tx: Tx, rows: readonly ImportedRow[], now: Date): Promise<Set<string>> {
  if (rows.length === 0) return new Set();
  const result = await tx.execute(sql`
    WITH incoming AS (
      SELECT * FROM jsonb_to_recordset(${JSON.stringify(rows.map(flat))}::text::jsonb) AS row(
        id uuid, username text, email text, email_key text, email_verified_at timestamptz, status text,
        password_change_required boolean, created_at timestamptz, updated_at timestamptz, last_login_at timestamptz,
        deactivated_at timestamptz, credential_id uuid, secret text, pepper_id text, changed_at timestamptz, roles jsonb, grants jsonb
      )
    ), written AS (
      INSERT INTO users (id, username, email, email_key, email_verified_at, status, password_change_required,
        created_at, updated_at, last_login_at, deactivated_at)
      SELECT id, username, email, email_key, email_verified_at, status, password_change_required,
        created_at, updated_at, last_login_at, deactivated_at
      FROM incoming ON CONFLICT DO NOTHING RETURNING id
    ), with_password AS (
      INSERT INTO credentials (id, user_id, kind, secret, pepper_id, created_at, updated_at)
      SELECT credential_id, id, 'password', secret, pepper_id, created_at, changed_at
      FROM incoming JOIN written USING (id) WHERE credential_id IS NOT NULL
    ), with_roles AS (
      INSERT INTO user_roles (user_id, role, granted_at)
      SELECT id, role, ${now.toISOString()}::text::timestamptz
      FROM incoming JOIN written USING (id), jsonb_array_elements_text(roles) AS role
    ), with_grants AS (
      INSERT INTO resource_grants (user_id, role, resource, granted_at)
      SELECT id, held->>'role', held->>'resource', ${now.toISOString()}::text::timestamptz
      FROM incoming JOIN written USING (id), jsonb_array_elements(grants) AS held
      ON CONFLICT DO NOTHING
    )
    SELECT id FROM written`);
  return new Set(rowsOf(result).map(({ id }) => id));
}

const flat = ({ credential, ...user }: ImportedRow) => ({
  id: user.id,
  username: user.username,
  email: user.email,
  email_key: user.emailKey,
  email_verified_at: user.emailVerifiedAt,
  status: user.status,
  password_change_required: user.passwordChangeRequired,
  created_at: user.createdAt,
  updated_at: user.updatedAt,
  last_login_at: user.lastLoginAt,
  deactivated_at: user.deactivatedAt,
  credential_id: credential?.id ?? null,
  secret: credential?.secret ?? null,
  pepper_id: credential?.pepperId ?? null,
  changed_at: credential?.changedAt ?? null,
  roles: user.roles,
  grants: user.grants,
});

/** What a statement answered, in the shape of either driver. */
const rowsOf = (result: unknown): { id: string }[] =>
  Array.isArray(result) ? result : (result as { rows: { id: string }[] }).rows;

export async function countUsers(tx: Pick<Tx, "select">): Promise<number> {
  const [row] = await tx.select({ count: count() }).from(users);
  return row?.count ?? 0;
}

const rolesOnThings = sql<RoleOnThing[]>`(
  SELECT coalesce(json_agg(json_build_object('role', rg.role, 'resource', rg.resource) ORDER BY rg.resource, rg.role), '[]')
  FROM resource_grants rg WHERE rg.user_id = users.id
)`;

/** Users with everything that moves with them, by id, from after this one on. */
export const listUsersToExport = (tx: Pick<Tx, "select">, page: { after?: string; limit: number }) =>
  tx
    .select({ user: users, roles: rolesOfUser, grants: rolesOnThings, password: credentials })
    .from(users)
    .leftJoin(credentials, sql`${credentials.userId} = ${users.id} AND ${credentials.kind} = 'password'`)
    .where(page.after === undefined ? undefined : gt(users.id, page.after))
    .orderBy(asc(users.id))
    .limit(page.limit);
