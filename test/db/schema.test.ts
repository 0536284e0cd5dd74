import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { is } from "drizzle-orm";
import { getTableConfig, PgTable } from "drizzle-orm/pg-core";
import { migrationList } from "../../db/build/list-migrations.ts";
import type { Database } from "../../db/database.ts";
import { violatedUniqueness } from "../../db/errors.ts";
import { MIGRATIONS } from "../../db/migrations/index.ts";
import journal from "../../db/migrations/meta/_journal.json";
import { insertSecretKey, insertSigningKey } from "../../db/queries/keys.ts";
import { insertUser } from "../../db/queries/users.ts";
import * as schema from "../../db/schema/index.ts";
import { credentials } from "../../db/schema/users.ts";
import { scratchFolder } from "../drills/processes.ts";
import { openTestDatabase } from "../support/database.ts";
import { credentialRow, secretKeyRow, signingKeyRow, userRow } from "./rows.ts";

const root = join(import.meta.dir, "../..");
let db: Database;
beforeAll(async () => {
  db = await openTestDatabase();
});
afterAll(() => db.close());

/** The SQLSTATE and the constraint that an insert ran into. */
async function refusal(insert: PromiseLike<unknown>): Promise<{ code: unknown; constraint: unknown }> {
  try {
    await insert;
  } catch (error) {
    let cause = error as { code?: string; constraint?: string; constraint_name?: string; cause?: unknown };
    while (!cause.code && cause.cause) cause = cause.cause as typeof cause;
    return { code: cause.code, constraint: cause.constraint ?? cause.constraint_name };
  }
  return { code: undefined, constraint: undefined };
}

// What no two rows may share is refused by the database itself, so no race and no forgotten check lets it through.
describe("constraints", () => {
  test("two accounts never share a user name, whatever its case", async () => {
    await insertUser(db.orm, userRow({ username: "grace" }));
    expect(await refusal(insertUser(db.orm, userRow({ username: "grace" })))).toEqual({
      code: "23505",
      constraint: "users_username_key",
    });
    expect(await refusal(insertUser(db.orm, userRow({ username: "Grace" })))).toEqual({
      code: "23514",
      constraint: "users_username_is_lower_case",
    });
  });

  test("two accounts never share an e-mail address, whatever its case", async () => {
    await insertUser(db.orm, userRow({ email: "Ada@example.test", emailKey: "ada@example.test" }));
    const again = userRow({ email: "ADA@example.test", emailKey: "ada@example.test" });
    const error = await insertUser(db.orm, again).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(violatedUniqueness(error)).toBe("users_email_key");
  });

  // The key by which addresses are compared cannot be kept in a spelling that would let a second account in.
  test("an e-mail key is kept in lower case", async () => {
    const row = userRow({ email: "Lin@example.test", emailKey: "Lin@example.test" });
    expect((await refusal(insertUser(db.orm, row))).code).toBe("23514");
  });

  test("a status that nobody knows is refused", async () => {
    const row = { ...userRow({}), status: "sleeping" as "active" };
    expect(await refusal(insertUser(db.orm, row))).toEqual({ code: "23514", constraint: "users_status_known" });
  });

  test("an account has one password, and as many other credentials as it likes", async () => {
    const user = userRow({});
    await insertUser(db.orm, user);
    await db.orm.insert(credentials).values(credentialRow(user.id, "password"));
    await db.orm.insert(credentials).values([credentialRow(user.id, "passkey"), credentialRow(user.id, "passkey")]);
    expect(await refusal(db.orm.insert(credentials).values(credentialRow(user.id, "password")))).toEqual({
      code: "23505",
      constraint: "credentials_one_password_key",
    });
  });

  test("one signing key is active, however many are next, retiring or retired", async () => {
    for (const state of ["active", "next", "retiring", "retired", "retired"] as const) {
      await insertSigningKey(db.orm, signingKeyRow(state));
    }
    expect(await refusal(insertSigningKey(db.orm, signingKeyRow("active")))).toEqual({
      code: "23505",
      constraint: "signing_keys_one_active_key",
    });
    const unknown = signingKeyRow("lost" as "active");
    expect((await refusal(insertSigningKey(db.orm, unknown))).constraint).toBe("signing_keys_state_known");
  });

  test("one secret key is active for each purpose", async () => {
    await insertSecretKey(db.orm, secretKeyRow("refresh", "active"));
    await insertSecretKey(db.orm, secretKeyRow("other", "active"));
    await insertSecretKey(db.orm, secretKeyRow("refresh", "retiring"));
    expect(await refusal(insertSecretKey(db.orm, secretKeyRow("refresh", "active")))).toEqual({
      code: "23505",
      constraint: "secret_keys_one_active_key",
    });
  });

  test("a secret key's state is one that is known", async () => {
    const unknown = secretKeyRow("refresh", "lost" as "active");
    expect((await refusal(insertSecretKey(db.orm, unknown))).code).toBe("23514");
  });
});

const tables = Object.values(schema).filter((value) => is(value, PgTable));
const sorted = (names: readonly (string | undefined)[]) => [...names].sort();
const named = (rows: readonly { name: string }[]) => sorted(rows.map((row) => row.name));

// The migrations build exactly what the code believes is there.
describe("the schema in the code and in the database agree", () => {
  test("on the tables", async () => {
    const rows = await db.query<{ name: string }>(
      `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
       AND NOT relispartition AND relname <> 'schema_migrations'`,
    );
    expect(named(rows)).toEqual(sorted(tables.map((table) => getTableConfig(table).name)));
  });

  test.each(tables.map((table) => [getTableConfig(table).name, getTableConfig(table)] as const))(
    "on %s",
    async (name, config) => {
      const columns = await db.query<{ name: string; type: string; required: boolean }>(
        `SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS required
         FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname`,
        [name],
      );
      const primary = new Set(config.primaryKeys.flatMap((key) => key.columns.map((column) => column.name)));
      const declared = config.columns.map((column) => ({
        name: column.name,
        type: column.getSQLType().replace(" (", "("),
        required: column.notNull || primary.has(column.name),
      }));
      const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
      expect(columns.map((column) => ({ ...column })).sort(byName)).toEqual(declared.sort(byName));

      const indexes = await db.query<{ name: string }>(
        `SELECT c.relname AS name FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE i.indrelid = $1::regclass AND NOT i.indisprimary`,
        [name],
      );
      expect(named(indexes)).toEqual(sorted(config.indexes.map((index) => index.config.name)));

      const constraints = await db.query<{ name: string }>(
        "SELECT conname AS name FROM pg_constraint WHERE conrelid = $1::regclass AND contype IN ('c', 'f')",
        [name],
      );
      const expected = [...config.checks.map((check) => check.name), ...config.foreignKeys.map((key) => key.getName())];
      expect(named(constraints)).toEqual(sorted(expected));
    },
  );

  test("so that drizzle-kit finds nothing to generate", async () => {
    const scratch = scratchFolder();
    try {
      const out = join(scratch.path, "migrations");
      cpSync(join(root, "db/migrations"), out, { recursive: true });
      const generate = Bun.spawn(
        ["bun", "--bun", "node_modules/.bin/drizzle-kit", "generate", "--dialect=postgresql"].concat([
          `--schema=${join(root, "db/schema/index.ts")}`,
          `--out=${out}`,
        ]),
        { cwd: root, stdin: "ignore", stdout: "pipe", stderr: "pipe" },
      );
      expect(await generate.exited).toBe(0);
      const left = (folder: string) => [...new Bun.Glob("**/*").scanSync(folder)].sort();
      expect(left(out)).toEqual(left(join(root, "db/migrations")));
    } finally {
      scratch.remove();
    }
  });
});

// Every process applies the same migrations in the same order.
describe("the list of migrations", () => {
  test("is in the journal's order, strictly increasing, without a gap", () => {
    const { entries } = journal;
    expect(entries.map((entry) => entry.idx)).toEqual(entries.map((_, index) => index));
    expect(entries.map((entry) => entry.tag)).toEqual(sorted(entries.map((entry) => entry.tag)) as string[]);
    for (const [index, entry] of entries.entries()) {
      expect(entry.tag).toStartWith(`${String(index).padStart(4, "0")}_`);
      expect(entry.when).toBeGreaterThan(entries[index - 1]?.when ?? 0);
    }
    expect(MIGRATIONS.map((migration) => migration.name)).toEqual(entries.map((entry) => entry.tag));
  });

  test("is the one that is generated", () => {
    expect(readFileSync(join(root, "db/migrations/index.ts"), "utf8")).toBe(migrationList());
  });
});
