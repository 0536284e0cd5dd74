import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AnyElysia } from "elysia";
import { readArchive, writeArchive } from "../../db/backup/archive.ts";
import type { Line } from "../../db/backup/format.ts";
import { loadBackup } from "../../db/backup/load.ts";
import { sumOf } from "../../db/backup/read.ts";
import type { Database } from "../../db/database.ts";
import { isMigrated } from "../../db/migrate.ts";
import { MIGRATIONS } from "../../db/migrations/index.ts";
import { openPgliteInMemory } from "../../db/pglite.ts";
import { createApp } from "../../server/app.ts";
import { chainReaderOn, createSealer, verifyChain } from "../../server/features/audit/service.ts";
import { type InspectedBackup, inspectBackup, restoreInto, takeBackup } from "../../server/features/backups/service.ts";
import { announcePresence } from "../../server/presence.ts";
import { openDeps } from "../../server/start.ts";
import { canRun } from "../drills/processes.ts";
import { openTestApp, requestsTo, type TestApp } from "../support/app.ts";
import { createPostgresDatabase, openPostgresAt, TEST_DATABASE } from "../support/database.ts";
import { seedUsers } from "./support/seed.ts";

const folder = mkdtempSync(join(tmpdir(), "primer-restore-"));
const backup = { file: join(folder, "primer.backup"), passphrase: "a passphrase of enough length" };
const LINK = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const hasPostgres = canRun(
  process.env.TEST_DATABASE_URL ? undefined : "there is no TEST_DATABASE_URL",
  `backups of ${TEST_DATABASE} restored to PostgreSQL`,
);

let source: TestApp;
let before: Tokens;
let after: Tokens;
let inspected: InspectedBackup;
type Tokens = Awaited<ReturnType<TestApp["login"]>>;

/** What the tables come to, but for what a restore changes on purpose. */
const contentOf = (db: Database) =>
  db.query(
    `SELECT format('user %s', to_jsonb(users)) AS row FROM users
     UNION ALL SELECT format('credential %s', to_jsonb(c)) FROM credentials c
     UNION ALL SELECT format('key %s', to_jsonb(k)) FROM signing_keys k
     UNION ALL SELECT format('secret %s', to_jsonb(s)) FROM secret_keys s
     UNION ALL SELECT format('session %s', to_jsonb(s) - 'revoked_at' - 'revoked_reason') FROM sessions s
     UNION ALL SELECT format('record %s', to_jsonb(l)) FROM login_records l
     UNION ALL SELECT format('job %s', to_jsonb(j)) FROM jobs.job j
     UNION ALL SELECT format('migration %s', to_jsonb(m)) FROM schema_migrations m
     UNION ALL SELECT format('right %s', to_jsonb(r)) FROM user_roles r ORDER BY 1`,
  );

const claimsOf = (jwt: string) => JSON.parse(Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString());

let content: Awaited<ReturnType<typeof contentOf>>;

beforeAll(async () => {
  source = await openTestApp();
  await seedUsers(source.db, 1000);
  const { id } = await source.createUser({ username: "ada" });
  before = await source.login("ada");
  await source.db.query(
    `INSERT INTO single_use_tokens (id, purpose, token_hash, user_id, created_at, expires_at)
     VALUES ('${crypto.randomUUID()}', 'password_reset', '${LINK}', '${id}', now(), now() + interval '1 year')`,
  );
  await source.db.transaction((tx) =>
    source.deps.jobs.enqueue(tx, "send-mail", { user_id: id, request_id: null, template: "password_changed" }),
  );
  // The last of its rows is not sealed when the backup is taken.
  await createSealer(source.db, source.clock.elapsed).seal();
  await source.login("ada");
  content = await contentOf(source.db);
  await takeBackup(source.deps, { ...backup, settingsText: null, actor: { kind: "operator" }, told() {} });
  after = await source.login("ada"); // the backup knows nothing of this session
  source.clock.advance(5000);
  inspected = await inspectBackup({ ...backup, secrets: source.deps.secrets });
});
afterAll(async () => {
  await source.close();
  rmSync(folder, { recursive: true, force: true });
});

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function emptyDatabase(kind: "PGlite" | "PostgreSQL"): Promise<Database> {
  if (kind === "PGlite") {
    const db = await openPgliteInMemory();
    ends.push(() => db.close());
    return db;
  }
  const { url, drop } = await createPostgresDatabase();
  const db = await openPostgresAt(url);
  ends.push(drop, () => db.close());
  return db;
}

const restore = (db: Database, what: Partial<typeof backup & InspectedBackup> = {}) =>
  db.longTransaction((connection) => restoreInto(connection, source.deps, { ...backup, ...what }, inspected, () => {}));

/** The application on what was restored. */
async function serveFrom(db: Database): Promise<TestApp["request"]> {
  const { settings, secrets, log, clock, random } = source.deps;
  const deps = await openDeps({ home: folder, settings, secrets, log, clock, random, db });
  ends.push(() => deps.close());
  return requestsTo(createApp(deps) as AnyElysia);
}

const kinds = (["PGlite", "PostgreSQL"] as const).filter((kind) => kind === "PGlite" || hasPostgres);

describe.each(kinds)(`a backup of ${TEST_DATABASE}, restored to %s`, (kind) => {
  // Moving from one database to the other is a backup and a restore: nothing is lost or changed on the way.
  test("has every row as it was, queued jobs among them, and the schema is whole", async () => {
    const db = await emptyDatabase(kind);
    await restore(db);
    expect(await contentOf(db)).toEqual(content);
    expect(await isMigrated(db)).toBe(true);
    const [triggers] = await db.query<{ off: number }>(
      "SELECT count(*)::int AS off FROM pg_trigger WHERE tgenabled = 'D'",
    );
    expect(triggers?.off).toBe(0);
  });

  // The audit log goes on where it was: what was sealed still is, and what comes is sealed after it.
  test("has the chain of the audit log, which goes on", async () => {
    const db = await emptyDatabase(kind);
    await restore(db);
    const verify = () => verifyChain(chainReaderOn(db), () => {});
    const restored = await verify();
    expect(restored).toMatchObject({ ok: true, unsealed: { rows: 2 } });
    expect(restored.rows).toBeGreaterThan(0);
    await createSealer(db, source.clock.elapsed).seal();
    expect(await verify()).toMatchObject({ ok: true, rows: restored.rows + 2, unsealed: { rows: 0 } });
    const request = await serveFrom(db);
    await request("POST", "/api/v1/auth/login", { body: { username: "ada", password: "wrong wrong wrong" } });
    await createSealer(db, source.clock.elapsed).seal();
    expect(await verify()).toMatchObject({ ok: true, rows: restored.rows + 3, unsealed: { rows: 0 } });
  });

  // Nothing that was handed out before a restore counts after it: what the backup knows, and what it does not.
  test("ends every session, token and link from before; passwords are as they were", async () => {
    const db = await emptyDatabase(kind);
    await restore(db);
    const request = await serveFrom(db);
    for (const tokens of [before, after]) {
      expect((await request("GET", "/api/v1/auth/verify", { token: tokens.access_token })).status).toBe(401);
      const { refresh_token } = tokens;
      expect((await request("POST", "/api/v1/auth/refresh", { body: { refresh_token } })).status).toBe(401);
    }
    // Services that verify by themselves are told by time: of some sessions nobody knows any more.
    const list = (await request("GET", "/api/v1/revocations")).body.revocations;
    expect(claimsOf(list).not_before).toBeGreaterThan(claimsOf(after.access_token).iat);
    expect(await db.query("SELECT id FROM single_use_tokens")).toEqual([]);
    expect(await db.query("SELECT id FROM sessions WHERE revoked_at IS NULL")).toEqual([]);
    expect(await db.query("SELECT id FROM refresh_families WHERE revoked_at IS NULL")).toEqual([]);

    const body = { username: "ada", password: "correct horse battery staple" };
    const login = await request("POST", "/api/v1/auth/login", { body });
    expect(login.status).toBe(200);
    const refreshed = await request("POST", "/api/v1/auth/refresh", {
      body: { refresh_token: login.body.refresh_token },
    });
    expect(refreshed.status).toBe(200);
    const verified = await request("GET", "/api/v1/auth/verify", { token: refreshed.body.access_token });
    expect(verified.status).toBe(200);
  });

  test("again over itself, and over an installation that went on: it is as the backup says", async () => {
    const db = await emptyDatabase(kind);
    await restore(db);
    await db.query("DELETE FROM users; CREATE TABLE somebody_elses (id integer)");
    await restore(db);
    expect(await contentOf(db)).toEqual(content);
    expect(await db.query("SELECT id FROM somebody_elses")).toEqual([]);
  });

  // A restore is whole or has not happened.
  test("what fails on the way leaves what was there", async () => {
    const db = await emptyDatabase(kind);
    await restore(db);
    await db.query("UPDATE users SET username = 'kept' WHERE username = 'ada'");
    const held = await contentOf(db);
    const failing = db.longTransaction(async (connection) => {
      let inserts = 0;
      const breaking: typeof connection = {
        query: (statement, values) => {
          if (statement.includes("INSERT INTO") && ++inserts > 12) throw new Error("the disk is full");
          return connection.query(statement, values);
        },
      };
      await restoreInto(breaking, source.deps, backup, inspected, () => {});
    });
    expect(await failing.then(String, (error) => error.message)).toBe("the disk is full");
    expect(await contentOf(db)).toEqual(held);
  });
});

// Whoever is at work would go on with keys and sessions that there are no more.
describe.if(hasPostgres)("processes on the database that is replaced", () => {
  test("one that came after the command had looked is seen, and nothing is changed", async () => {
    const db = await emptyDatabase("PostgreSQL");
    await restore(db);
    const { clock, random, log } = source.deps;
    const presence = announcePresence({ kind: "worker", db, clock, random, log });
    ends.push(() => presence.close());
    await presence.look();
    await db.query("UPDATE users SET username = 'kept' WHERE username = 'ada'");
    expect(await restore(db).then(String, (error) => error.exitCode)).toBe(1);
    expect(await db.query("SELECT id FROM users WHERE username = 'kept'")).toHaveLength(1);
    await presence.close();
    await restore(db);
    expect(await db.query("SELECT id FROM users WHERE username = 'kept'")).toEqual([]);
  });

  test("one that starts while it is replaced reads nothing before the end", async () => {
    const db = await emptyDatabase("PostgreSQL");
    await restore(db);
    const { settings, secrets, log, clock, random } = source.deps;
    const order: string[] = [];
    let starting: Promise<unknown> | undefined;
    const start = () =>
      openDeps({ home: folder, settings, secrets, log, clock, random, db }).then(
        async (deps) => {
          order.push("started");
          await deps.close();
        },
        () => order.push("refused"),
      );
    await db.longTransaction(async (connection) => {
      await restoreInto(connection, source.deps, backup, inspected, () => {
        starting ??= start();
      });
      order.push("restored");
    });
    await starting;
    expect(order[0]).toBe("restored");
  });
});

describe("a backup of another version", () => {
  const rewritten = async (name: string, change: (manifest: InspectedBackup["manifest"]) => unknown) => {
    const file = join(folder, `${name}.backup`);
    await writeArchive(file, backup.passphrase, source.deps.random.bytes, async (put) => {
      let isFirst = true;
      for await (const line of readArchive(backup.file, backup.passphrase)) {
        await put(isFirst ? JSON.stringify(change(JSON.parse(line))) : line);
        isFirst = false;
      }
    });
    return { file, passphrase: backup.passphrase, secrets: source.deps.secrets };
  };

  test("a newer one is refused before anything is done", async () => {
    const newer = await rewritten("newer", (manifest) => ({
      ...manifest,
      migrations: [...manifest.migrations, { name: "9999_later", hash: "x", applied_at: "2027-01-01T00:00:00Z" }],
    }));
    expect(await inspectBackup(newer).then(String, (error) => error.exitCode)).toBe(1);
  });

  // The rows come into the schema that they were in; then it is brought up to date as any database is.
  test("an older one is restored under its own schema, then migrated", async () => {
    const [name, columns] = ["public.roles", ["name", "description", "built_in", "created_at", "updated_at"]];
    const rows = await source.db.query<{ row: string }>(
      `SELECT row_to_json(r)::text AS row FROM (SELECT ${columns.join(", ")} FROM roles) r`,
    );
    const known = new Set(MIGRATIONS.slice(0, 4).map((migration) => migration.name));
    async function* older(): AsyncGenerator<Line> {
      const { manifest } = inspected;
      const migrations = manifest.migrations.filter((migration) => known.has(migration.name));
      yield { kind: "manifest", manifest: { ...manifest, migrations } };
      yield { kind: "table", head: { table: name, columns } };
      yield { kind: "rows", json: `[${rows.map(({ row }) => row).join(",")}]` };
      yield { kind: "end", sums: { [name]: await sumOf(source.db, { table: name, columns }) } };
    }
    const db = await emptyDatabase("PGlite");
    const order: string[] = [];
    await db.longTransaction((connection) => {
      const watching: typeof connection = {
        query: (statement, values) => {
          if (statement.includes('INSERT INTO "public"."roles"') && values) order.push("rows");
          if (statement.includes('CREATE TABLE "backups"')) order.push("migration");
          return connection.query(statement, values);
        },
      };
      return loadBackup(
        watching,
        older(),
        new Date(),
        () => {},
        async () => {},
      );
    });
    expect(order).toEqual(["rows", "migration"]);
    expect(await isMigrated(db)).toBe(true);
    expect((await db.query("SELECT name FROM roles")).length).toBe(rows.length);
  });
});
