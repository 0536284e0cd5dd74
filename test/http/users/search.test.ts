import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { migrate } from "../../../db/migrate.ts";
import { hasSearchIndex, SEARCH_INDEX_STATEMENTS } from "../../../db/queries/user-search.ts";
import { createPostgresDatabase, openPostgresAt, TEST_DATABASE } from "../../support/database.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";

const PATH = "/api/v1/users";

let app: HttpApp;
let admin: string;
beforeAll(async () => {
  app = await openHttpApp();
  const people: [string, string][] = [
    ["root", "root@example.test"],
    ["ada.lovelace", "Ada@Analytical.test"],
    ["adam", "adam@garden.test"],
    ["grace", "grace@navy.test"],
    ["under_score", "u@example.test"],
    ["wanda", "wanda@navy.test"],
  ];
  for (const [username, email] of people) {
    await app.createUser({ username, email, roles: username === "root" ? ["admin"] : ["user"] });
    app.clock.advance(1000);
  }
  admin = (await app.login("root")).access_token;
});
afterAll(() => app.close());

const get = (query: string) => app.request("GET", `${PATH}?${query}`, { token: admin });
const namesOf = (body: { data: { username: string }[] }) => body.data.map(({ username }) => username);
const search = async (q: string) => namesOf((await get(`q=${encodeURIComponent(q)}`)).body);

describe("GET /users?q=", () => {
  test.each<[string, string[]]>([
    ["lovelace", ["ada.lovelace"]],
    ["nda", ["wanda"]],
    ["NAVY", ["wanda", "grace"]],
    ["analytical.", ["ada.lovelace"]],
    ["ada", ["adam", "ada.lovelace"]],
    ["r_s", ["under_score"]],
    ["r%s", []],
    ["gra%", []],
    ["nobody", []],
    ["ad", ["adam", "ada.lovelace"]],
    ["wa", ["wanda"]],
    ["an", []],
    ["a", ["adam", "ada.lovelace"]],
    ["_", []],
    ["%", []],
    ["\\", []],
    ["\u0000", []],
    [" grace ", ["grace"]],
  ])("%j: %j", async (q, expected) => {
    expect(await search(q)).toEqual(expected);
  });

  test("pages keep their order, and the last one says so", async () => {
    const first = (await get("q=navy&limit=1")).body;
    const next = (await get(`q=navy&limit=1&cursor=${first.next_cursor}`)).body;
    expect([namesOf(first), namesOf(next), next.next_cursor]).toEqual([["wanda"], ["grace"], null]);
    expect((await get("q=navy&cursor=none")).status).toBe(422);
  });

  test("nothing is searched for with nothing to search for", async () => {
    expect((await get("q=")).status).toBe(422);
    expect((await get(`q=${"x".repeat(255)}`)).status).toBe(422);
  });
});

// Where the extension was refused, users are found by how they begin, and doctor's statements put that right.
test("without the index a search is by the beginning, and it can be made later", async () => {
  await app.db.query("DROP INDEX users_search_idx");
  expect([await search("lovelace"), await search("ada"), await search("wanda@n")]).toEqual([
    [],
    ["adam", "ada.lovelace"],
    ["wanda"],
  ]);
  for (const statement of SEARCH_INDEX_STATEMENTS.split("; ")) {
    // In one transaction, as the embedded database has it, nothing is made concurrently.
    await app.db.query(TEST_DATABASE === "pglite" ? statement.replace(" CONCURRENTLY", "") : statement);
  }
  expect(await search("lovelace")).toEqual(["ada.lovelace"]);
});

// Not every server has the extension, and a hosted one may refuse it: the migration goes on without.
test("a PostgreSQL that refuses the extension is migrated all the same", async () => {
  if (TEST_DATABASE === "pglite") {
    process.stderr.write("not on the embedded database, which has the extension: a refused one\n");
    return;
  }
  const { url, drop } = await createPostgresDatabase();
  const db = await openPostgresAt(url);
  try {
    await db.query(`
      CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE insufficient_privilege USING MESSAGE = 'not on the list'; END $$;
      CREATE EVENT TRIGGER refuse_extensions ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION') EXECUTE FUNCTION refuse()`);
    await migrate(db, () => new Date());
    expect(await hasSearchIndex(db.orm)).toBe(false);
    await db.query("DROP EVENT TRIGGER refuse_extensions");
    for (const statement of SEARCH_INDEX_STATEMENTS.split("; ")) await db.query(statement);
    expect(await hasSearchIndex(db.orm)).toBe(true);
  } finally {
    await db.close();
    await drop();
  }
});
