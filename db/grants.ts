import { codeOf, failed, misused } from "../config/errors.ts";
import type { Settings } from "../config/schema.ts";
import type { Connection, Database } from "./database.ts";
import { openOwner } from "./open.ts";

/** SQLSTATE of something that a role may not do. */
const NOT_ALLOWED = "42501";

/**
 * Does what changes the schema, as the role that owns it where `database.admin_url` names one. Then the role of
 * `database.url` gets the rights to work, and none to change the audit log.
 *
 * @throws OperatorError as {@link openOwner}, and exit 2 where that role could change it all the same
 */
export async function asOwner<T>(
  settings: Settings,
  home: string,
  database: Database,
  work: (owner: Database) => Promise<T>,
): Promise<T> {
  const owner = await openOwner(settings, home, database);
  try {
    const role = owner.isOther ? await takeOver(owner.database, database) : await assertOwns(database);
    const result = await work(owner.database);
    if (role !== undefined) await grantTo(owner.database, role);
    return result;
  } finally {
    await owner.close();
  }
}

/** @throws OperatorError exit 2 where the tables belong to a role that was not named */
async function assertOwns(database: Database): Promise<undefined> {
  const [row] = await database.query<{ owner: string }>(
    `SELECT pg_get_userbyid(relowner) AS owner FROM pg_class
     WHERE oid = to_regclass('schema_migrations') AND NOT pg_has_role(relowner, 'USAGE')`,
  );
  if (!row) return undefined;
  throw misused(
    `The tables belong to ${row.owner}, and DATABASE_URL is another role: it may not change them.`,
    `Give DATABASE_ADMIN_URL, the URL of the same database as ${row.owner}, with this command.`,
  );
}

interface Roles {
  readonly application: string;
  readonly bound: boolean;
  /** Whether it can drop or change whatever anybody has in the database, or in its schema public. */
  readonly rules: boolean;
  readonly database: string;
  readonly me: string;
}

/** The owner takes whatever the application's role made while it had everything to itself. @returns that role, quoted */
async function takeOver(owner: Database, application: Database): Promise<string> {
  const [who] = await application.query<{ role: string }>("SELECT quote_ident(current_user) AS role");
  const role = who?.role ?? "";
  const [roles] = await owner.query<Roles & Record<string, unknown>>(
    `SELECT rolname AS application, NOT rolsuper AND NOT pg_has_role(oid, current_user::regrole, 'MEMBER') AS bound,
       pg_has_role(oid, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'MEMBER')
         OR pg_has_role(oid, (SELECT nspowner FROM pg_namespace WHERE nspname = 'public'), 'MEMBER') AS rules,
       quote_ident(current_database()) AS database, quote_ident(current_user) AS me
     FROM pg_roles WHERE quote_ident(rolname) = $1`,
    [role],
  );
  if (!roles?.bound) {
    throw misused(
      `DATABASE_URL connects as ${role}, which may do all that the owner of DATABASE_ADMIN_URL may: nothing would keep it from changing the audit log.`,
      `Use a role of its own for DATABASE_URL, no superuser and no member of the other: CREATE ROLE primer_app LOGIN PASSWORD '…'.`,
    );
  }
  if (roles.rules) {
    throw misused(
      `DATABASE_URL connects as ${role}, which owns the database or its schema public: it could take the audit log away.`,
      `As a superuser: ALTER DATABASE ${roles.database} OWNER TO ${roles.me}; ALTER SCHEMA public OWNER TO pg_database_owner.`,
    );
  }
  const [owned] = await owner.query<{ count: number }>(
    `SELECT count(*)::int AS count FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
     WHERE r.rolname = $1 AND c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'jobs'))`,
    [roles.application],
  );
  if (owned?.count) await takeOwn(owner, role).catch((error) => explain(error, role));
  return role;
}

/** What primer has in the database: not what an extension has brought, nor what the role owns elsewhere. */
const OWN = (table: "pg_class" | "pg_proc" | "pg_type", alias: string, namespace: string) =>
  `${namespace} IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'jobs'))
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '${table}'::regclass AND d.objid = ${alias}.oid AND d.deptype = 'e')`;

/** Sequences of a column go with their table, and types of a table too. */
const TAKE_OWN = `
  SELECT format('ALTER SCHEMA %I OWNER TO CURRENT_USER', nspname) AS statement FROM pg_namespace
    WHERE nspname = 'jobs' AND nspowner = $1::text::regrole
  UNION ALL SELECT format('ALTER %s %s OWNER TO CURRENT_USER',
      CASE relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.oid::regclass) FROM pg_class c
    WHERE relowner = $1::text::regrole AND relkind IN ('r', 'p', 'v', 'S') AND ${OWN("pg_class", "c", "c.relnamespace")}
      AND NOT (relkind = 'S' AND EXISTS (SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')))
  UNION ALL SELECT format('ALTER ROUTINE %s OWNER TO CURRENT_USER', p.oid::regprocedure) FROM pg_proc p
    WHERE proowner = $1::text::regrole AND ${OWN("pg_proc", "p", "p.pronamespace")}
  UNION ALL SELECT format('ALTER TYPE %s OWNER TO CURRENT_USER', t.oid::regtype) FROM pg_type t
    WHERE typowner = $1::text::regrole AND typtype IN ('d', 'e') AND ${OWN("pg_type", "t", "t.typnamespace")}`;

const takeOwn = (owner: Pick<Database, "longTransaction">, role: string): Promise<void> =>
  owner.longTransaction(async (connection) => {
    const statements = await connection.query<{ statement: string }>(TAKE_OWN, [role]);
    for (const { statement } of statements) await connection.query(statement);
  });

function explain(error: unknown, role: string): never {
  if (codeOf(error) !== NOT_ALLOWED) throw error;
  throw failed(
    `The tables belong to ${role}, and the role of DATABASE_ADMIN_URL may not take them over.`,
    `As a superuser: GRANT ${role} TO that role; then run the command again. REVOKE it afterwards.`,
    error,
  );
}

/** Those of extensions belong to whoever made them, who alone can give rights to them. */
const GRANT_OWN = `
  SELECT format(CASE relkind WHEN 'S' THEN 'GRANT USAGE, SELECT ON SEQUENCE %s'
      ELSE 'GRANT SELECT, INSERT, UPDATE, DELETE ON %s' END, c.oid::regclass) AS statement FROM pg_class c
    WHERE relowner = current_user::regrole AND relkind IN ('r', 'p', 'v', 'S') AND ${OWN("pg_class", "c", "c.relnamespace")}
  UNION ALL SELECT format('GRANT EXECUTE ON ROUTINE %s', p.oid::regprocedure) FROM pg_proc p
    WHERE proowner = current_user::regrole AND ${OWN("pg_proc", "p", "p.pronamespace")}`;

/**
 * What a role needs to serve and work: nothing of the schema, and of the audit log only to add to it and to read it.
 * Partitions are written through their table; backups read them one by one.
 */
async function grantTo(owner: Pick<Database, "longTransaction">, role: string): Promise<void> {
  await owner.longTransaction(async (connection) => {
    const grants = await connection.query<{ statement: string }>(GRANT_OWN);
    for (const { statement } of grants) await connection.query(`${statement} TO ${role}`);
    await connection.query(`
      REVOKE CREATE ON SCHEMA public FROM PUBLIC, ${role};
      GRANT USAGE ON SCHEMA public, jobs TO ${role};
      ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO ${role};
      REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM ${role};
      REVOKE UPDATE, DELETE, TRUNCATE ON audit_log, audit_seals FROM ${role};
      REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON audit_anchors FROM ${role}`);
    for (const name of await auditPartitions(connection)) {
      await connection.query(`REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ${name} FROM ${role}`);
    }
  });
}

async function auditPartitions(connection: Connection): Promise<string[]> {
  const rows = await connection.query<{ name: string }>(
    "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent IN ('audit_log'::regclass, 'audit_seals'::regclass)",
  );
  return rows.map(({ name }) => name);
}
