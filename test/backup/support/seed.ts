import type { Connection, Database } from "../../../db/database.ts";

const AT_ONCE = 50_000;

/** So many users, in as many transactions as keep each of them short. */
export async function seedMany(db: Pick<Database, "longTransaction">, count: number): Promise<void> {
  for (let seeded = 0; seeded < count; seeded += AT_ONCE) {
    await db.longTransaction((connection) => seedUsers(connection, Math.min(AT_ONCE, count - seeded), seeded));
  }
  await db.longTransaction((connection) => connection.query("ANALYZE"));
}

/** Whoever is seeded has no password: their hash is made up, and as long and as random as a real one. */
export async function seedUsers(db: Connection, count: number, from = 0): Promise<void> {
  const numbers = `generate_series(${from + 1}, ${from + count}) AS n`;
  const statements = [
    `INSERT INTO users (id, username, email, email_key, status, created_at, updated_at)
     SELECT gen_random_uuid(), 'seeded' || n, 'seeded' || n || '@example.test', 'seeded' || n || '@example.test', 'active', now(), now()
     FROM ${numbers}`,
    `INSERT INTO credentials (id, user_id, kind, secret, created_at, updated_at)
     SELECT gen_random_uuid(), id, 'password', '$argon2id$v=19$m=19456,t=2,p=1$' || md5(random()::text) || '$' || md5(random()::text), now(), now()
     FROM users u WHERE NOT EXISTS (SELECT FROM credentials WHERE user_id = u.id)`,
    `INSERT INTO user_roles (user_id, role, granted_at) SELECT id, 'user', now() FROM users ON CONFLICT DO NOTHING`,
    `INSERT INTO sessions (id, user_id, client_id, amr, auth_time, created_at, last_seen_at, expires_at, user_agent, ip)
     SELECT gen_random_uuid(), id, 'primer', '{pwd}', now(), now(), now(), now() + interval '30 days',
       E'A "browser" with a \\\\ and\ta tab', '2001:db8::1'
     FROM users u WHERE NOT EXISTS (SELECT FROM sessions WHERE user_id = u.id)`,
    `INSERT INTO refresh_families (id, session_id, generation, key_id, secret_hash, created_at, rotated_at, idle_expires_at)
     SELECT gen_random_uuid(), id, 1, 'key', md5(random()::text), now(), now(), now() + interval '1 day'
     FROM sessions s WHERE NOT EXISTS (SELECT FROM refresh_families WHERE session_id = s.id)`,
  ];
  for (const statement of statements) await db.query(statement);
}
