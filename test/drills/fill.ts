/** An installation that has been in use for years, made by SQL: to log in as often would take days. */
import type { SecretKey } from "../../config/secrets.ts";
import type { Connection, Database } from "../../db/database.ts";
import { generationSecret, hashSecret, sealRefreshToken } from "../../server/features/tokens/service.ts";
import type { Session } from "./load.ts";

const DAY_MS = 24 * 3_600_000;
const ROWS_AT_A_TIME = 100_000;
/** Sessions that follow each other are of users far apart: has no divisor in common with how many users there are here. */
const STRIDE = 7919;
const AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/** How many there are of what. */
export interface Size {
  readonly users: number;
  /** Those alive, made one after the other over the last four weeks; each with its refresh tokens and its login. */
  readonly sessions: number;
}

type Fillable = Pick<Database, "exclusively">;

/** What is filled. */
export const TABLES = ["users", "credentials", "user_roles", "sessions", "refresh_families", "login_records"] as const;

/** A time of which SQL works out the milliseconds since 1970. */
const instant = (ms: string) => `to_timestamp((${ms}) / 1000.0)`;

/** An id as the program makes them, in the order of time; but another table works out whose it is. `kind` is a digit. */
const idOf = (kind: number, ms: string, n: string) =>
  `(lpad(to_hex(${ms}), 12, '0') || '700${kind}8000' || lpad(to_hex(${n}), 12, '0'))::uuid`;

/** Numbers `n` from $1 to $2 with a time in milliseconds (`at`), and more. */
const numbers = (at: string, more = "") =>
  `(SELECT n, (${at})::bigint AS at${more} FROM generate_series($1::bigint, $2::bigint) AS n) AS made`;

/** Registered one after the other, until four weeks ago. */
function usersOf({ users }: Size, now: number) {
  const [since, every] = [now - 1000 * DAY_MS, Math.floor((970 * DAY_MS) / users)];
  const at = (n: string) => `(${since} + ${every} * ${n})`;
  return {
    idAt: (n: string) => idOf(1, at(n), n),
    /** The number of a user who has the session or login of a number. */
    numberOf: (n: string) => `(1 + ${n} * ${STRIDE} % ${users})`,
    made: numbers(at("n")),
  };
}

function insertUsers(size: Size, now: number): string[] {
  const { idAt, made } = usersOf(size, now);
  return [
    `INSERT INTO users (id, username, email, email_key, email_verified_at, status, created_at, updated_at, last_login_at)
     SELECT ${idAt("n")}, 'user' || n, 'user' || n || '@example.org', 'user' || n || '@example.org', t, 'active', t, t, t
     FROM (SELECT n, ${instant("at")} AS t FROM ${made}) AS timed`,
    `INSERT INTO credentials (id, user_id, kind, secret, pepper_id, created_at, updated_at)
     SELECT ${idOf(2, "at", "n")}, ${idAt("n")}, kind, secret, pepper_id, ${instant("at")}, ${instant("at")}
     FROM ${made}, (SELECT kind, secret, pepper_id FROM credentials JOIN users ON users.id = user_id
       WHERE username = 'admin') AS shared`,
    `INSERT INTO user_roles (user_id, role, granted_at) SELECT ${idAt("n")}, 'user', ${instant("at")} FROM ${made}`,
  ];
}

/** @param made numbers with when it began (`at`), was last used (`used`), and was ended, or null (`ended`) */
function insertSessions(size: Size, now: number, keyId: string, made: string): string[] {
  const { idAt, numberOf } = usersOf(size, now);
  const [begun, used, ended] = [instant("at"), instant("used"), instant("ended")];
  return [
    `INSERT INTO sessions (id, user_id, client_id, amr, auth_time, created_at, last_seen_at, expires_at, revoked_at,
       revoked_reason, user_agent, ip)
     SELECT ${idOf(3, "at", "n")}, ${idAt(numberOf("n"))}, 'primer', '{pwd}', ${begun}, ${begun}, ${used},
       ${instant(`at + ${30 * DAY_MS}`)}, ${ended}, CASE WHEN ended IS NOT NULL THEN 'logout' END, '${AGENT}',
       '10.0.0.' || n % 250
     FROM ${made}`,
    `INSERT INTO refresh_families (id, session_id, generation, key_id, secret_hash, created_at, rotated_at,
       idle_expires_at, revoked_at)
     SELECT ${idOf(4, "at", "n")}, ${idOf(3, "at", "n")}, 1, '${keyId}', md5(n::text) || left(md5('.' || n), 11), ${begun}, ${used},
       ${instant(`used + ${DAY_MS}`)}, ${ended}
     FROM ${made}`,
  ];
}

/** @param made numbers with when somebody logged in (`at`) */
function insertLogins(size: Size, now: number, made: string): string {
  const { idAt, numberOf } = usersOf(size, now);
  return `INSERT INTO login_records (id, user_id, session_id, outcome, reason, ip, user_agent, request_id, created_at)
     SELECT ${idOf(5, "at", "n")}, ${idAt(numberOf("n"))}, ${idOf(3, "at", "n")}, 'success', 'password',
       '10.0.0.' || n % 250, '${AGENT}', ${idOf(6, "at", "n")}, ${instant("at")}
     FROM ${made}`;
}

/** The statements for numbers from one to another, so many at a time. What they refer to is there by how they are made. */
async function insert(connection: Connection, statements: readonly string[], count: number): Promise<void> {
  await connection.query("SET session_replication_role = replica"); // else each row is looked up in the table it refers to
  for (let from = 1; from <= count; from += ROWS_AT_A_TIME) {
    const to = Math.min(count, from + ROWS_AT_A_TIME - 1);
    for (const statement of statements) await connection.query(statement, [from, to]);
  }
}

/** As a database is that has been in use for a while: nothing waits to be done, and what there is, is known. */
async function settle(connection: Connection): Promise<void> {
  for (const table of TABLES) await connection.query(`VACUUM (ANALYZE) ${table}`);
  await connection.query("CHECKPOINT");
}

/** Makes tokens for families that were filled in, as many as are asked for and evenly over all of them. */
async function sealTokens(connection: Connection, ids: string, count: number, key: SecretKey): Promise<Session[]> {
  const families = await connection.query<{ id: string }>(ids, [1, count]);
  const hashes = families.map(({ id }) => hashSecret(generationSecret(key, id, 1)));
  await connection.query(
    `UPDATE refresh_families SET secret_hash = made.hash
     FROM unnest($1::uuid[], $2::text[]) AS made (id, hash) WHERE refresh_families.id = made.id`,
    [`{${families.map(({ id }) => id).join(",")}}`, `{${hashes.join(",")}}`],
  );
  const sealed = families.map(({ id }) => sealRefreshToken(key, id, 1));
  return (await Promise.all(sealed)).map((refresh_token) => ({ access_token: "", refresh_token }));
}

/**
 * Fills a database that has just been set up. Its users are user1, user2, …, with the administrator's password.
 *
 * @param tokens of how many of the sessions tokens are wanted
 * @param key the one that seals refresh tokens
 * @returns those sessions, to be refreshed before anything else
 */
export const fill = (db: Fillable, size: Size, tokens: number, key: SecretKey): Promise<Session[]> =>
  db.exclusively("drill", async (connection) => {
    const now = Date.now();
    await insert(connection, insertUsers(size, now), size.users);
    const [since, every] = [now - 28 * DAY_MS, Math.floor((28 * DAY_MS) / size.sessions)];
    // Used within the last twenty hours, each at another time.
    const alive = numbers(`${since} + ${every} * n`, `, ${now} - n % 72000 * 1000 AS used, NULL::bigint AS ended`);
    const statements = [...insertSessions(size, now, key.id, alive), insertLogins(size, now, alive)];
    await insert(connection, statements, size.sessions);
    const apart = Math.floor(size.sessions / tokens);
    const spread = `(SELECT n * ${apart} AS n, ${since} + ${every} * n * ${apart} AS at
      FROM generate_series($1::bigint, $2::bigint) AS n) AS made`;
    const sessions = await sealTokens(connection, `SELECT ${idOf(4, "at", "n")} AS id FROM ${spread}`, tokens, key);
    await settle(connection);
    return sessions;
  });

/**
 * Adds what is over: half of the sessions were ended and half not used any more, a day after they began.
 *
 * @param days so many days ago the last of them was over, and the last of the logins was made `loginDays` ago; the others
 * one after the other within the `spreadDays` before
 */
export const addOver = (
  db: Fillable,
  size: Size,
  over: { sessions: number; days: number; logins: number; loginDays: number; spreadDays: number },
  key: SecretKey,
): Promise<void> =>
  db.exclusively("drill", async (connection) => {
    const now = Date.now();
    const at = (days: number, count: number) =>
      `${now - days * DAY_MS} - (${count} - n) * ${Math.floor((over.spreadDays * DAY_MS) / count)}`;
    const sessions = `(SELECT *, at + 3600000 AS used, CASE WHEN n % 2 = 0 THEN at + ${DAY_MS} END AS ended
      FROM ${numbers(at(over.days + 2, over.sessions))}) AS over`;
    await insert(connection, insertSessions(size, now, key.id, sessions), over.sessions);
    await insert(connection, [insertLogins(size, now, numbers(at(over.loginDays, over.logins)))], over.logins);
    await settle(connection);
  });
