import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Database } from "../../db/database.ts";
import { hasSearchIndex, listUsers, searchUsers, type UserSearch } from "../../db/queries/user-search.ts";
import { openTestDatabase, TEST_DATABASE } from "../support/database.ts";

/** On PostgreSQL a million in the long form; the embedded database is for fewer. */
const FULL = Boolean(process.env.TEST_FULL);
const USERS = FULL ? (TEST_DATABASE === "postgres" ? 1_000_000 : 100_000) : 20_000;
/** For one page. The embedded database has one thread and a short form shares its machine with other suites. */
const WITHIN_MS = FULL && TEST_DATABASE === "postgres" ? 50 : 250;
if (!FULL)
  process.stderr.write(
    `short form: ${USERS} users instead of 1,000,000 (PostgreSQL, a page within 50 ms) or 100,000 (embedded); TEST_FULL\n`,
  );

/**
 * Users made in the order of their numbers, the last one the newest: one in two at gmail.com, every 10,000th at rare.test,
 * the oldest tenth at old.test.
 */
const SEED = `
  INSERT INTO users (id, username, email, email_key, status, created_at, updated_at)
  SELECT gen_random_uuid(), name, name || '@' || domain, name || '@' || domain, 'active', made, made
  FROM (SELECT substr(md5(n::text), 1, 6) || '.' || n AS name, timestamptz '2020-01-01' + n * interval '1 second' AS made,
    CASE WHEN n % 10000 = 0 THEN 'rare.test' WHEN n <= ${USERS} / 10 THEN 'old.test'
      WHEN n % 2 = 0 THEN 'gmail.com' ELSE 'mail' || n % 1000 || '.test' END AS domain
    FROM generate_series(1, ${USERS}) AS n) AS made_up`;

let db: Database;
beforeAll(async () => {
  db = await openTestDatabase();
  // At once and not a few at a time, which takes minutes.
  await db.query("ALTER INDEX users_search_idx SET (gin_pending_list_limit = 2000000)");
  await db.longTransaction((connection) => connection.query(SEED));
  await db.query("ALTER INDEX users_search_idx SET (gin_pending_list_limit = 256)");
  await db.exclusively("statistics", (connection) => connection.query("VACUUM ANALYZE users"));
}, 600_000);
afterAll(() => db.close());

const anywhere = (text: string): UserSearch => ({ text, where: "anywhere" });
const beginning = (text: string): UserSearch => ({ text, where: "beginning" });
const LIMIT = 51;

/** What fits, in the order of a list, found by reading every row. */
const allThatFit = async ({ text, where }: UserSearch) => {
  const at = where === "beginning" ? "= 1" : "> 0";
  const rows = await db.query<{ username: string }>(
    `SELECT username FROM users WHERE erased_at IS NULL AND (strpos(username, $1) ${at} OR strpos(email_key, $1) ${at})
     ORDER BY created_at DESC, id DESC`,
    [text],
  );
  return rows.map(({ username }) => username);
};

const namesOf = (rows: readonly { user: { username: string } }[]) => rows.map(({ user }) => user.username);

const SEARCHES: readonly [name: string, search: UserSearch][] = [
  ["that one in two fits", anywhere("gmail")],
  ["that one in 10,000 fits", anywhere("@rare.test")],
  ["that nobody fits", anywhere("zzqzz")],
  ["that only old users fit", anywhere("@old.test")],
  ["with few letters in a row", anywhere("a.1")],
  ["of a beginning of two characters", beginning("ab")],
  ["of a beginning of one character", beginning("a")],
  ["of a beginning that nobody has", beginning("zz")],
];
/** All that fit are read and sorted: how long that takes depends on how many they are. */
const SLOWER = ["that only old users fit", "with few letters in a row"];

describe(`among ${USERS} users, a search`, () => {
  test.each(SEARCHES)("%s answers the newest that fit", async (name, search) => {
    expect(await hasSearchIndex(db.orm)).toBe(true);
    const page = () => searchUsers(db.orm, { limit: LIMIT }, search);
    const names = namesOf(await page());
    expect(names).toEqual((await allThatFit(search)).slice(0, LIMIT));
    const times: number[] = [];
    for (let round = 0; round < 5; round++) {
      const began = performance.now();
      await page();
      times.push(performance.now() - began);
    }
    const [typical = 0] = times.sort((a, b) => a - b).slice(2);
    process.stderr.write(`${TEST_DATABASE}, ${USERS} users, ${name}: ${typical.toFixed(1)} ms\n`);
    if (!SLOWER.includes(name)) expect(typical).toBeLessThan(WITHIN_MS);
  });

  // Whoever pages through a search sees everybody once, in order, however far behind the page is.
  test.each(SEARCHES.slice(1, 4))("%s: its pages are the whole, in order", async (_name, search) => {
    const expected = (await allThatFit(search)).slice(0, 2000);
    const seen: string[] = [];
    let last: { createdAt: Date; id: string } | undefined;
    do {
      const rows = await searchUsers(db.orm, { limit: 500, ...(last ? { after: last } : {}) }, search);
      seen.push(...namesOf(rows));
      last = rows.length === 500 ? rows.at(-1)?.user : undefined;
    } while (last && seen.length < expected.length);
    expect(seen).toEqual(expected);
  });

  test("a page far behind takes no longer than the first", async () => {
    const [oldest] = await db.query<{ id: string; at: string }>(
      `SELECT id, created_at::text AS at FROM users ORDER BY created_at OFFSET ${Math.floor(USERS / 4)} LIMIT 1`,
    );
    const after = { id: oldest?.id ?? "", createdAt: new Date(oldest?.at ?? "") };
    const timed = async (work: () => Promise<unknown>) => {
      await work();
      const began = performance.now();
      await work();
      return performance.now() - began;
    };
    expect(await timed(() => listUsers(db.orm, { limit: LIMIT, after }))).toBeLessThan(WITHIN_MS);
    expect(await timed(() => searchUsers(db.orm, { limit: LIMIT, after }, anywhere("gmail")))).toBeLessThan(WITHIN_MS);
  });
});

// What stands for anything in a pattern stands for itself in a search.
test.each([
  ["%", []],
  ["_", ["under_score"]],
  ["r_s", ["under_score"]],
  ["d.r", []],
  ["back\\slash", ["backslash"]],
])("%s is looked for as it is", async (text, expected) => {
  await db.query(
    `INSERT INTO users (id, username, email, email_key, status, created_at, updated_at)
     SELECT gen_random_uuid(), name, key, key, 'active', now(), now()
     FROM (VALUES ('under_score', 'score@example.test'), ('backslash', 'back\\slash@example.test')) AS given (name, key)
     ON CONFLICT DO NOTHING`,
  );
  const found = await searchUsers(db.orm, { limit: LIMIT }, anywhere(text));
  expect(namesOf(found).filter((name) => /^[a-z_]+$/.test(name))).toEqual(expected);
});
