import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { OperatorError } from "../../../config/errors.ts";
import {
  BATCH_SIZE,
  beginExport,
  beginImport,
  exportPage,
  finishImport,
  type ImportOptions,
  importBatch,
} from "../../../server/features/moving/service.ts";
import { openTestApp, PASSWORD, type TestApp } from "../../support/app.ts";
import { EXPORTS, exportText } from "../../support/moving/exports.ts";
import { importInto, inputOf } from "../../support/moving/import-into.ts";

let app: TestApp;
beforeAll(async () => {
  app = await openTestApp();
});
afterAll(() => app.close());
afterEach(() => app.db.query("DELETE FROM users"));

const BY = { actor: { kind: "operator" } } as const;
const line = (...users: readonly object[]) => users.map((user) => `${JSON.stringify(user)}\n`).join("");
const user = (name: string, more: object = {}) => ({ username: name, email: `${name}@example.test`, ...more });
const importing = (text: string, options: Partial<ImportOptions> = {}) =>
  importInto(app.deps, "ndjson", inputOf(text), options);
const names = async () =>
  (await app.db.query<{ username: string }>("SELECT username FROM users ORDER BY username")).map((row) => row.username);

interface Case {
  readonly name: string;
  readonly before?: readonly object[];
  readonly given: string;
  readonly options?: Partial<ImportOptions>;
  readonly rejected?: Readonly<Record<number, string>>;
  readonly existing?: number;
  readonly names: readonly string[];
}

const GOOD_BCRYPT = "$2b$06$VVrBq.RqNoxaxY/e90uHIOW1Ki6gXytPx.mZiFVGu6xlMBMS0Cqdu";
const LONG = "x".repeat(1024 * 1024);

const CASES: readonly Case[] = [
  { name: "names are kept in small letters", given: line(user("Ada")), names: ["ada"] },
  {
    name: "a name that does not fit",
    given: line({ ...user("ada"), username: "ada l" }, user("bob")),
    rejected: { 1: "username_invalid" },
    names: ["bob"],
  },
  {
    name: "such a name, renamed",
    given: line({ ...user("ada"), username: "Ädá (L.)" }),
    options: { rename: true },
    names: ["ada-l"],
  },
  {
    name: "a name that is the address makes one of it",
    given: line({ username: "Ada@Example.test", email: "ada@example.test" }),
    names: ["ada"],
  },
  {
    name: "no name of letters at all",
    given: line({ username: "愛", email: "愛@example.test" }),
    options: { rename: true },
    names: [expect.stringMatching(/^user-[0-9a-f]{8}$/) as unknown as string],
  },
  { name: "no address", given: line({ username: "ada" }), rejected: { 1: "email_missing" }, names: [] },
  {
    name: "no address that works",
    given: line({ username: "ada", email: "ada" }),
    rejected: { 1: "email_invalid" },
    names: [],
  },
  {
    name: "half a character in the address",
    given: '{"username":"ada","email":"a\\ud800@example.test"}\n',
    rejected: { 1: "email_invalid" },
    names: [],
  },
  {
    name: "a NUL in the hash",
    given: line(user("ada", { password_hash: `pbkdf2_sha256$1000$a\u0000b$${"A".repeat(43)}=` })),
    rejected: { 1: "password_hash_refused" },
    names: [],
  },
  {
    name: "a hash that asks for too much",
    given: line(
      user("ada", { password_hash: `$2b$19$${"a".repeat(53)}` }),
      user("bob", { password_hash: GOOD_BCRYPT }),
    ),
    rejected: { 1: "password_hash_refused" },
    names: ["bob"],
  },
  {
    name: "such a hash, left out",
    given: line(user("ada", { password_hash: "x" })),
    options: { withoutPassword: true },
    names: ["ada"],
  },
  {
    name: "a pepper that is not here",
    given: line(user("ada", { password_hash: GOOD_BCRYPT, password_pepper_id: "elsewhere" })),
    rejected: { 1: "pepper_unknown" },
    names: [],
  },
  {
    name: "fields of the wrong kind",
    given: line(
      user("ada", { password_hash: {} }),
      user("bob", { created_at: "soon" }),
      user("cy", { email_verified: "perhaps" }),
      user("di", { status: "king" }),
      user("ed", { email: ["e@x.test"] }),
      user("flo", { roles: 7 }),
    ),
    rejected: { 1: "damaged", 2: "damaged", 3: "damaged", 4: "damaged", 5: "damaged" },
    names: ["flo"],
  },
  {
    name: "times that no database can keep",
    given: line(
      user("ada", { created_at: "-271821-04-20T00:00:00.000Z" }),
      user("bob", { created_at: "+275760-09-13T00:00:00.000Z" }),
    ),
    names: ["ada", "bob"],
  },
  {
    name: "lines that are no objects",
    given: `null\n[1]\n"x"\n{"username":\n\n${line(user("ada"))}\u0000\n`,
    rejected: { 1: "damaged", 2: "damaged", 3: "damaged", 4: "damaged", 7: "damaged" },
    names: ["ada"],
  },
  {
    name: "a line without end",
    given: `${line(user("ada"))}{"username":"${LONG}${LONG}"}\n${line(user("bob"))}`,
    rejected: { 2: "damaged" },
    names: ["ada", "bob"],
  },
  {
    name: "names of what every object has",
    given: line(user("constructor", { roles: ["__proto__", "constructor", "\ud800\u0000", "x".repeat(5000)] }), {
      ...user("bob"),
      ["__proto__"]: { email: "x" },
    }),
    names: ["bob", "constructor"],
  },
  { name: "the same user twice", given: line(user("ada"), user("ada")), existing: 1, names: ["ada"] },
  {
    name: "one name, two addresses",
    given: line(user("ada"), { ...user("ada"), email: "other@example.test" }),
    rejected: { 2: "username_taken" },
    names: ["ada"],
  },
  {
    name: "one name, two addresses, renamed",
    given: line(user("ada"), { ...user("ada"), email: "other@example.test" }),
    options: { rename: true },
    names: ["ada", expect.stringMatching(/^ada-[0-9a-f]{8}$/) as unknown as string],
  },
  {
    name: "one address, two names",
    given: line(user("ada"), { ...user("bob"), email: "ADA@example.test" }),
    rejected: { 2: "email_taken" },
    names: ["ada"],
  },
  {
    name: "somebody is here",
    before: [user("ada", { roles: ["user", "admin"] })],
    given: line(user("ada", { roles: ["admin"], status: "disabled", password_hash: GOOD_BCRYPT }), user("bob")),
    existing: 1,
    names: ["ada", "bob"],
  },
  {
    name: "an unconfirmed registration of the address is not taken for its owner",
    before: [user("ada", { status: "pending" })],
    given: line(
      user("ada"),
      { ...user("bob"), email: "ada@example.test" },
      { ...user("ada"), email: "x@example.test" },
    ),
    rejected: { 1: "registration_pending", 2: "registration_pending", 3: "registration_pending" },
    names: ["ada"],
  },
];

describe("what becomes of users", () => {
  test.each(CASES.map((one) => [one.name, one] as const))(
    "%s",
    async (_name, { before = [], given, options, ...expected }) => {
      if (before.length > 0) expect((await importing(line(...before))).tally.imported).toBe(before.length);
      const standing = await app.db.query("SELECT * FROM users");
      const dry = await importing(given, { ...options, dryRun: true });
      expect(await app.db.query("SELECT * FROM users")).toEqual(standing);
      const real = await importing(given, options);
      // What was foretold is what happens.
      expect(dry).toEqual(real);
      expect(Object.fromEntries(real.rejects.map(({ at, code }) => [at, code]))).toEqual(expected.rejected ?? {});
      expect(real.tally.existing).toBe(expected.existing ?? 0);
      expect(await names()).toEqual([...expected.names]);
      // Who was here is as before.
      for (const row of standing) expect(await app.db.query("SELECT * FROM users")).toContainEqual(row);
      // Nothing of a hash is in what is told.
      expect(JSON.stringify(real)).not.toContain("$2b$");
    },
  );

  // A dry run writes nothing that it could find, and foretells all the same what comes of users far apart in the export.
  test.each([false, true])("users far apart in one export (--rename: %p)", async (rename) => {
    const between = Array.from({ length: BATCH_SIZE }, (_, index) => user(`u${index}`));
    const last = [
      user("ada"),
      { ...user("ada"), email: "other@example.test" },
      { ...user("bob"), email: "ada@example.test" },
    ];
    const text = line(user("ada"), ...between, ...last, { email: "x@a.test" }, ...between, { email: "x@b.test" });
    const dry = await importing(text, { rename, dryRun: true });
    const real = await importing(text, { rename });
    expect(dry.tally).toEqual(real.tally);
    expect(real.tally.existing).toBe(BATCH_SIZE + 1);
    expect(real.rejects.map(({ code }) => code)).toEqual(rename ? ["email_taken"] : ["username_taken", "email_taken"]);
  });

  // A second run finds whom the first one renamed, and nobody comes twice however often it is run.
  test("renamed users are found again", async () => {
    const text = line(
      user("ada"),
      { ...user("ada"), email: "other@example.test" },
      { ...user("b b"), email: "b@example.test" },
    );
    expect((await importing(text, { rename: true })).tally.imported).toBe(3);
    const before = await names();
    expect((await importing(text, { rename: true })).tally).toMatchObject({ imported: 0, existing: 3, rejected: 0 });
    expect(await names()).toEqual(before);
  });

  test("a user who changed name and address since is found by the id there", async () => {
    const text = exportText("django.json");
    await importInto(app.deps, "django", inputOf(text));
    await app.db.query(
      "UPDATE users SET username = 'daniel', email = 'n@x.test', email_key = 'n@x.test' WHERE username = 'dan'",
    );
    expect((await importInto(app.deps, "django", inputOf(text))).tally).toMatchObject({ imported: 0, existing: 2 });
  });

  // Two imports of one export at once: everybody comes in once, with one password.
  test("two imports at once", async () => {
    const users = Array.from({ length: 300 }, (_, index) => user(`u${index}`, { password_hash: GOOD_BCRYPT }));
    const node = await app.otherNode();
    const runs = await Promise.all(
      [app.deps, node.deps].map((deps) => importInto(deps, "ndjson", inputOf(line(...users), 4096))),
    );
    const counts = runs.map(({ tally }) => tally);
    expect(counts.reduce((sum, { imported }) => sum + imported, 0)).toBe(300);
    const [row] = await app.db.query<{ users: number; passwords: number }>(
      "SELECT (SELECT count(*)::int FROM users) AS users, (SELECT count(*)::int FROM credentials) AS passwords",
    );
    expect(row).toEqual({ users: 300, passwords: 300 });
  });

  // Only who wrote primer's own format, or says so with --role-map, makes administrators.
  test("a role of another product is none here, whatever it is called", async () => {
    const text = exportText("keycloak-realm.json").replaceAll('"editors"', '"admin"');
    const { tally } = await importInto(app.deps, "keycloak", inputOf(text), { roleMap: {} });
    expect(tally.roles_ignored).toMatchObject({ admin: 5 });
    expect(await app.db.query("SELECT DISTINCT role FROM user_roles")).toEqual([{ role: "user" }]);
  });

  test("a role that is not here is refused before anything is written", async () => {
    const options = {
      product: "keycloak",
      roleMap: { a: "king" },
      rename: false,
      withoutPassword: false,
      dryRun: false,
    };
    await expect(beginImport(app.deps, options, {}, BY)).rejects.toMatchObject({ errorCode: "VALIDATION_FAILED" });
  });
});

describe("damaged exports", () => {
  const whole = EXPORTS.filter(({ path }) => /\.\w+$/.test(path));

  // Whatever is in the file, the import ends with a sentence for the operator, or with rejects: never with a crash.
  test.each(whole.map(({ format, path }) => [format, path] as const))(
    "%s, cut off and with wrong bytes",
    async (format, path) => {
      const good = await Bun.file(path).bytes();
      let seed = 7;
      const random = (below: number) => {
        seed = (seed * 1103515245 + 12345) % 2 ** 31;
        return seed % below;
      };
      for (let round = 0; round < 24; round++) {
        const bytes = Buffer.from(good);
        const cut = round % 2 === 0 ? bytes.subarray(0, random(bytes.length)) : bytes;
        if (round % 2 === 1) for (let flips = 0; flips < 3; flips++) bytes[random(bytes.length)] = random(256);
        try {
          await importInto(app.deps, format, inputOf(cut, 1 + random(5000)), { dryRun: true });
        } catch (error) {
          expect(error).toBeInstanceOf(OperatorError);
          expect((error as OperatorError).exitCode).toBe(1);
        }
      }
    },
  );

  test("what stood before the damaged place is in, and a whole export goes on from there", async () => {
    const text = exportText("keycloak-realm.json");
    const cut = text.slice(0, text.indexOf('"kat"'));
    await expect(importInto(app.deps, "keycloak", inputOf(cut))).rejects.toThrow("damaged after user 2");
    expect(await names()).toEqual(["kai", "kim"]);
    expect((await importInto(app.deps, "keycloak", inputOf(text))).tally).toMatchObject({ imported: 3, existing: 2 });
  });

  test("a list nested without end is refused, not followed", async () => {
    const deep = `{"users":[${"[".repeat(200_000)}`;
    await expect(importInto(app.deps, "keycloak", inputOf(deep, 65_536))).rejects.toBeInstanceOf(OperatorError);
  });

  test.each(["csv", "keycloak", "ndjson"])(
    "a file that cannot be read any more is what is told (%s)",
    async (format) => {
      async function* open() {
        yield Buffer.from(format === "keycloak" ? '{"users":[' : "email\n");
        throw new OperatorError(1, "The disk is gone");
      }
      const input = { name: "x", bytes: 0, files: [{ name: "x", open }] };
      await expect(importInto(app.deps, format, input)).rejects.toThrow("The disk is gone");
    },
  );

  test("a quote that never ends in CSV is refused", async () => {
    await expect(importInto(app.deps, "csv", inputOf('username,email\nada,"ada@example.test\n'))).rejects.toThrow(
      "damaged",
    );
  });

  test.each(["\ufeff", " \r\n\t"])("%j before the export does no harm", async (before) => {
    for (const { format, path, report, sourceOptions } of whole) {
      if (path.endsWith(".csv") && before !== "\ufeff") continue;
      const input = inputOf(before + (await Bun.file(path).text()), 3);
      const { tally } = await importInto(app.deps, format, input, {
        dryRun: true,
        ...(sourceOptions ? { sourceOptions } : {}),
      });
      expect(tally.imported).toBe((report as { imported: number }).imported);
    }
  });
});

test("pages of a list, one after the other in one file", async () => {
  const text = exportText("kratos.json");
  const other = text.replaceAll("@kratos.example", "@second.example").replaceAll('"id": "e0', '"id": "e1');
  const { tally } = await importInto(app.deps, "kratos", inputOf(`${text}\n${other}`), { rename: true });
  expect(tally).toMatchObject({ read: 6, imported: 6 });
});

describe("moving out", () => {
  const table = () =>
    app.db.query(
      `SELECT u.id, username, email, email_key, email_verified_at, status, password_change_required, u.created_at, u.updated_at,
         last_login_at, deactivated_at, c.secret, c.pepper_id, c.updated_at AS changed_at,
         (SELECT json_agg(role ORDER BY role) FROM user_roles WHERE user_id = u.id) AS roles,
         (SELECT json_agg(resource) FROM resource_grants WHERE user_id = u.id) AS things
       FROM users u LEFT JOIN credentials c ON c.user_id = u.id ORDER BY u.id`,
    );

  // Nothing is lost on the way out and in again, on an installation with the same pepper.
  test("import(export(x)) is x", async () => {
    await app.createUser({ username: "ada", roles: ["admin", "user"] });
    await app.createUser({ username: "bea", email: "'=Bea+x@example.test" });
    await importing(
      line(
        user("cy", { password_hash: GOOD_BCRYPT, email_verified: false }),
        user("di", { status: "pending" }),
        user("ed", { roles: [], status: "deactivated", deactivated_at: "2026-01-01T00:00:00Z" }),
      ),
    );
    await app.login("bea");
    await app.db.query(
      "INSERT INTO resource_grants (user_id, role, resource, granted_at) SELECT id, 'user', 'tenants/acme', created_at FROM users WHERE username = 'cy'",
    );
    const before = await table();
    expect(before).toHaveLength(5);
    const exported = await exportPage(app.deps, undefined);
    await app.db.query("DELETE FROM users");
    const { tally } = await importInto(app.deps, "primer", inputOf(line(...exported)));
    expect(tally).toMatchObject({ imported: 5, rejected: 0 });
    expect(await table()).toEqual(before);
    expect(await app.login("ada", PASSWORD)).toHaveProperty("access_token");
  });

  test("pages follow each other without a gap", async () => {
    const many = Array.from({ length: BATCH_SIZE + 5 }, (_, index) => user(`u${index}`));
    await importInto(app.deps, "ndjson", inputOf(line(...many), 65_536));
    const first = await exportPage(app.deps, undefined);
    const second = await exportPage(app.deps, first.at(-1)?.id);
    expect([first.length, second.length]).toEqual([BATCH_SIZE, 5]);
    expect(new Set([...first, ...second].map(({ username }) => username)).size).toBe(BATCH_SIZE + 5);
  });

  // Whoever takes all hashes with them, or brings users in, is on record; a try that writes nothing is not.
  test("each import and export is in the audit log once, with its counts", async () => {
    await app.db.query("DELETE FROM audit_log").catch(() => {});
    const options = { product: "ndjson", rename: false, withoutPassword: false, dryRun: false };
    await beginImport(app.deps, { ...options, dryRun: true }, {}, BY);
    const started = await auditCount();
    await beginImport(app.deps, options, { format: "ndjson" }, BY);
    await importBatch(app.deps, [{ username: "ada", email: "ada@example.test" }], options);
    await finishImport(app.deps, { format: "ndjson", imported: 1 }, true, BY);
    await beginExport(app.deps, { format: "csv" }, BY);
    const rows = await app.db.query<{ action: string; details: object; actor_kind: string }>(
      "SELECT action, details, actor_kind FROM audit_log WHERE action LIKE 'users.%' ORDER BY id DESC LIMIT 3",
    );
    expect((await auditCount()) - started).toBe(3);
    expect(rows.map(({ action }) => action).sort()).toEqual(["users.exported", "users.import_began", "users.imported"]);
    for (const row of rows) expect(row.actor_kind).toBe("operator");
    expect(rows.find(({ action }) => action === "users.imported")?.details).toMatchObject({ imported: 1 });
    expect(rows.find(({ action }) => action === "users.exported")?.details).toMatchObject({ users: 1 });
  });

  const auditCount = async () =>
    (await app.db.query<{ n: number }>("SELECT count(*)::int AS n FROM audit_log WHERE action LIKE 'users.%'"))[0]?.n ??
    0;
});
