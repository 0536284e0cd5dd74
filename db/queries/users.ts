import { and, eq, gt, inArray, isNull, lte, or, type SQL, sql } from "drizzle-orm";
import type { Reader, Statement, Tx } from "../database.ts";
import { installation } from "../schema/installation.ts";
import { invitations } from "../schema/invitations.ts";
import { knownDevices, loginRecords } from "../schema/logins.ts";
import { sessions, singleUseTokens } from "../schema/sessions.ts";
import { credentials, resourceGrants, roles, userRoles, users } from "../schema/users.ts";
import { deleteBaselineOf } from "./baselines.ts";
import { deleteAnswersOf } from "./idempotency.ts";

export type UserRow = typeof users.$inferSelect;

/** The names of a user's roles, sorted. Written out, since the query builder leaves table names off inside a column. */
export const rolesOfUser = sql<string[]>`(
  SELECT coalesce(json_agg(ur.role ORDER BY ur.role), '[]'::json) FROM user_roles ur WHERE ur.user_id = users.id
)`;

/** Every permission that a user's roles give, with the roles that those include, sorted. */
export const permissionsOfUser = sql<string[]>`(
  WITH RECURSIVE held AS (
    SELECT ur.role FROM user_roles ur WHERE ur.user_id = users.id
    UNION SELECT ri.includes FROM role_inclusions ri JOIN held ON held.role = ri.role
  )
  SELECT coalesce(json_agg(DISTINCT rp.permission), '[]'::json)
  FROM held JOIN role_permissions rp ON rp.role = held.role
)`;

/** A role on one thing, and what it allows there. */
export interface ResourceGrant {
  readonly role: string;
  readonly resource: string;
  readonly permissions: readonly string[];
}

/** What a user has on single things. */
export const grantsOfUser = sql<ResourceGrant[]>`(
  WITH RECURSIVE held AS (
    SELECT rg.role AS granted, rg.resource, rg.role FROM resource_grants rg WHERE rg.user_id = users.id
    UNION SELECT held.granted, held.resource, ri.includes FROM role_inclusions ri JOIN held ON held.role = ri.role
  ), allowed AS (
    SELECT held.granted AS role, held.resource,
      coalesce(json_agg(DISTINCT rp.permission) FILTER (WHERE rp.permission IS NOT NULL), '[]'::json) AS permissions
    FROM held LEFT JOIN role_permissions rp ON rp.role = held.role GROUP BY held.granted, held.resource
  )
  SELECT coalesce(json_agg(allowed ORDER BY resource, role), '[]'::json) FROM allowed
)`;

export const withRights = { user: users, roles: rolesOfUser, permissions: permissionsOfUser };

export type UserWithRights = { user: UserRow; roles: string[]; permissions: string[] };

/** A user's roles on single things. */
export async function listGrants(tx: Reader, userId: string): Promise<ResourceGrant[]> {
  const [row] = await tx.select({ grants: grantsOfUser }).from(users).where(eq(users.id, userId));
  return row?.grants ?? [];
}

/** Gives a user exactly these roles on single things. */
export async function replaceGrants(
  tx: Tx,
  userId: string,
  grants: readonly Pick<ResourceGrant, "role" | "resource">[],
  at: Date,
): Promise<void> {
  await tx.delete(resourceGrants).where(eq(resourceGrants.userId, userId));
  const rows = grants.map(({ role, resource }) => ({ userId, role, resource, grantedAt: at }));
  if (rows.length > 0) await tx.insert(resourceGrants).values(rows);
}

const KEYS = { email: users.emailKey, username: users.username, id: users.id } as const;

/** What one user is known by. */
export interface UserKey {
  readonly kind: keyof typeof KEYS;
  readonly key: string;
}

export const isKeyOf = ({ kind, key }: UserKey): SQL => eq(KEYS[kind], key);

export const isPasswordOf = (userId: typeof users.id | string): SQL | undefined =>
  and(eq(credentials.userId, userId), eq(credentials.kind, "password"));

/** A user with their password and their rights, in one statement: the account that somebody wants to prove to be theirs. */
export async function findUserWithPassword(tx: Tx, by: UserKey) {
  const [row] = await tx
    .select({ ...withRights, password: credentials })
    .from(users)
    .leftJoin(credentials, isPasswordOf(users.id))
    .where(isKeyOf(by));
  return row;
}

export type LoginAccount = NonNullable<Awaited<ReturnType<typeof findUserWithPassword>>>;

/**
 * A user with all that they may do, when their password was set, and from when on tokens count here, in one indexed read:
 * what a token that names nothing but its user is held against. Not the password's hash, so that it may be remembered.
 */
export async function findUserAsOfNow(tx: Tx, by: UserKey) {
  const [row] = await tx
    .select({
      ...withRights,
      grants: grantsOfUser,
      password: { createdAt: credentials.createdAt, updatedAt: credentials.updatedAt },
      notBefore: installation.notBefore,
    })
    .from(users)
    .leftJoin(credentials, isPasswordOf(users.id))
    .leftJoin(installation, eq(installation.only, 1)) // by its key: the planner would expect many, and compile for them
    .where(isKeyOf(by));
  return row;
}

export type UserAsOfNow = NonNullable<Awaited<ReturnType<typeof findUserAsOfNow>>>;

/** A user by id, user name or e-mail key. */
export async function findUser(tx: Tx, by: { id?: string; username?: string; emailKey?: string }) {
  const matches = [
    by.id === undefined ? undefined : eq(users.id, by.id),
    by.username === undefined ? undefined : eq(users.username, by.username),
    by.emailKey === undefined ? undefined : eq(users.emailKey, by.emailKey),
  ];
  const [row] = await tx
    .select(withRights)
    .from(users)
    .where(and(isNull(users.erasedAt), or(...matches)));
  return row satisfies UserWithRights | undefined;
}

/** The same by id, with the row locked until the transaction ends. */
export async function lockUser(tx: Tx, id: string): Promise<UserWithRights | undefined> {
  await tx.select({ id: users.id }).from(users).where(eq(users.id, id)).for("update");
  return findUser(tx, { id });
}

/** A user whose time is over, by the column that says so, the longest over first. */
export interface OverdueUser extends UserWithRights {
  readonly since: Date;
}

/** What keeps an account only for a time: since it waits to be verified, or since it was given up or taken out of use. */
export const OVERDUE = { pending: users.createdAt, deactivated: users.deactivatedAt } as const;

/** Users of a status since `until` or before, and not erased; after the one given, the longest ones first. */
export async function listOverdueUsers(
  tx: Reader,
  status: keyof typeof OVERDUE,
  page: { until: Date; limit: number; after?: OverdueUser },
): Promise<OverdueUser[]> {
  const since = OVERDUE[status];
  const { until, limit, after } = page;
  const isLater = after && or(gt(since, after.since), and(eq(since, after.since), gt(users.id, after.user.id)));
  const rows = await tx
    .select({ ...withRights, since })
    .from(users)
    .where(and(eq(users.status, status), isNull(users.erasedAt), lte(since, until), isLater))
    .orderBy(since, users.id)
    .limit(limit);
  return rows.map((row) => ({ ...row, since: row.since ?? row.user.createdAt }));
}

/** Active users who hold one of these roles everywhere, by id. */
export async function listActiveHolders(tx: Reader, roleNames: readonly string[], limit: number): Promise<string[]> {
  const holders = tx
    .select({ id: userRoles.userId })
    .from(userRoles)
    .where(inArray(userRoles.role, [...roleNames]));
  const rows = await tx
    .select({ id: users.id })
    .from(users)
    .where(and(eq(users.status, "active"), inArray(users.id, holders)))
    .orderBy(users.id)
    .limit(limit);
  return rows.map(({ id }) => id);
}

export const insertUser = (tx: Tx, row: typeof users.$inferInsert) => tx.insert(users).values(row);

export const updateUser = (tx: Tx, id: string, change: Partial<typeof users.$inferInsert>) =>
  tx.update(users).set(change).where(eq(users.id, id));

/**
 * Keeps an account's row locked until the transaction ends: whatever disables it or changes its password meanwhile is
 * either seen here, or comes after and ends the sessions that are made or strengthened here.
 *
 * @returns false where the account's status or password, whether that has to be changed, or until when its owner may take
 * it back, is not as it was read
 */
export async function lockAccount(tx: Tx, { user, password }: LoginAccount): Promise<boolean> {
  const locked = tx
    .select({ id: users.id })
    .from(users)
    .where(
      and(
        eq(users.id, user.id),
        eq(users.status, user.status),
        eq(users.passwordChangeRequired, user.passwordChangeRequired),
        user.reclaimableUntil ? eq(users.reclaimableUntil, user.reclaimableUntil) : isNull(users.reclaimableUntil),
      ),
    )
    .for("no key update")
    .execute(); // is sent first; what is sent behind it is done when it is
  const passwords = tx.select({ changedAt: credentials.updatedAt }).from(credentials).where(isPasswordOf(user.id));
  const [[now], same] = await Promise.all([passwords, locked]);
  return same.length === 1 && now?.changedAt.getTime() === password?.updatedAt.getTime();
}

/** Sets the password of an account, whether it had one or not. */
export const upsertPassword = (tx: Tx, row: typeof credentials.$inferInsert) =>
  tx
    .insert(credentials)
    .values(row)
    .onConflictDoUpdate({
      target: credentials.userId,
      targetWhere: sql`${credentials.kind} = 'password'`,
      set: {
        secret: row.secret,
        pepperId: row.pepperId ?? null,
        // By which it is told that it was changed, also twice in one moment.
        updatedAt: sql`greatest(${row.updatedAt.toISOString()}::timestamptz, ${credentials.updatedAt} + interval '1 millisecond')`,
      },
    });

/** Replaces a password's hash with another of the same password, unless it was changed in between; so `updatedAt` stays. */
export const replaceHash = (tx: Tx, id: string, from: string, to: { secret: string; pepperId: string | null }) =>
  tx
    .update(credentials)
    .set(to)
    .where(and(eq(credentials.id, id), eq(credentials.secret, from)));

/** Deletes a registration that nobody has confirmed: nothing was ever given out for it. @returns false where somebody has, by now */
export async function deleteUnconfirmed(tx: Tx, id: string): Promise<boolean> {
  const gone = await tx
    .delete(users)
    .where(and(eq(users.id, id), eq(users.status, "pending")))
    .returning({ id: users.id });
  return gone.length === 1;
}

/** Takes everything personal from a user and what belongs to them. The sessions must have been ended before. */
export async function eraseUser(tx: Tx, id: string, at: Date): Promise<void> {
  await tx.delete(credentials).where(eq(credentials.userId, id));
  await tx.delete(userRoles).where(eq(userRoles.userId, id));
  await tx.delete(resourceGrants).where(eq(resourceGrants.userId, id));
  await tx.delete(knownDevices).where(eq(knownDevices.userId, id));
  await tx.delete(loginRecords).where(eq(loginRecords.userId, id));
  await deleteBaselineOf(tx, id);
  await tx.delete(invitations).where(eq(invitations.emailKey, sql`(SELECT email_key FROM users WHERE id = ${id})`));
  await tx.delete(invitations).where(and(eq(invitations.invitedBy, id), isNull(invitations.usedAt)));
  await tx.delete(singleUseTokens).where(eq(singleUseTokens.userId, id));
  await deleteAnswersOf(tx, id);
  await tx
    .update(sessions)
    .set({ deviceName: null, userAgent: null, ip: null, fingerprintHash: null })
    .where(eq(sessions.userId, id));
  await tx
    .update(users)
    .set({
      username: `erased-${id}`,
      email: `${id}@erased.invalid`,
      emailKey: `${id}@erased.invalid`,
      emailVerifiedAt: null,
      status: "deactivated",
      lastLoginAt: null,
      reclaimableUntil: null,
      updatedAt: at,
      erasedAt: at,
    })
    .where(eq(users.id, id));
}

export const listRoleNames = async (tx: Tx): Promise<string[]> =>
  (await tx.select({ name: roles.name }).from(roles).orderBy(roles.name)).map((row) => row.name);

/** Gives a user exactly these roles. */
export async function replaceUserRoles(tx: Tx, userId: string, names: readonly string[], at: Date): Promise<void> {
  for (const statement of roleReplacement(tx, userId, names, at)) await statement;
}

/** The same as statements, for whoever sends them with the commit. */
export const roleReplacement = (tx: Tx, userId: string, names: readonly string[], at: Date): Statement[] => [
  tx.delete(userRoles).where(eq(userRoles.userId, userId)),
  ...(names.length > 0 ? [tx.insert(userRoles).values(names.map((role) => ({ userId, role, grantedAt: at })))] : []),
];

/**
 * How many active users hold a role. Locks the role until the transaction ends, so that two changes at once cannot each
 * leave the other's holder as the last one.
 */
export async function countActiveHolders(tx: Tx, role: string): Promise<number> {
  await tx.select({ name: roles.name }).from(roles).where(eq(roles.name, role)).for("update");
  const holders = tx.select({ id: userRoles.userId }).from(userRoles).where(eq(userRoles.role, role));
  const [row] = await tx
    .select({ count: sql<number>`count(*)::int` })
    .from(users)
    .where(and(eq(users.status, "active"), inArray(users.id, holders)));
  return row?.count ?? 0;
}

/** Everybody who holds the role admin, the first one first. */
export const listAdministrators = (tx: Tx): Promise<UserWithRights[]> =>
  tx
    .select(withRights)
    .from(users)
    .innerJoin(userRoles, and(eq(userRoles.userId, users.id), eq(userRoles.role, "admin")))
    .orderBy(users.createdAt, users.id);
