import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { loadSettings } from "../../config/load.ts";
import { createLog } from "../../config/log.ts";
import { readTables } from "../../db/backup/read.ts";
import type { Database } from "../../db/database.ts";
import { asOwner } from "../../db/grants.ts";
import { isMigrated, migrate } from "../../db/migrate.ts";
import { openOwner } from "../../db/open.ts";
import { insertUser } from "../../db/queries/users.ts";
import {
  audit,
  chainReaderOn,
  createSealer,
  dropAuditMonths,
  forgetFirst,
  makeAuditMonths,
  mayChangeAudit,
  verifyChain,
} from "../../server/features/audit/service.ts";
import { heldClock } from "../../server/ports/clock.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { openPostgresAt, postgresUrl, TEST_DATABASE } from "../support/database.ts";
import { NOW, newId, userRow } from "./rows.ts";

const ON_SERVER = TEST_DATABASE === "postgres";
if (!ON_SERVER) process.stderr.write("not on the embedded database, which has no roles: who owns the audit log\n");

const suffix = newId().replaceAll("-", "").slice(-12);
const [OWNER, APP] = [`primer_owner_${suffix}`, `primer_app_${suffix}`];

let server: Database;
const closing: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  if (!ON_SERVER) return;
  server = await openPostgresAt(postgresUrl());
  for (const role of [OWNER, APP]) await server.query(`CREATE ROLE ${role} LOGIN`);
});
afterAll(async () => {
  if (!ON_SERVER) return;
  for (const close of closing.reverse()) await close();
  for (const role of [OWNER, APP]) await server.query(`DROP ROLE ${role}`);
  await server.close();
});

/** A database of its own, as the application's role opens it. */
async function newDatabase(owner: string): Promise<{ db: Database; name: string; urlOf(role: string): string }> {
  const name = `primer_test_${newId().replaceAll("-", "")}`;
  await server.query(`CREATE DATABASE ${name} OWNER ${owner}`);
  closing.push(() => server.query(`DROP DATABASE ${name} WITH (FORCE)`));
  const urlOf = (role: string) => {
    const url = new URL(postgresUrl());
    url.pathname = `/${name}`;
    url.username = role;
    return url.href;
  };
  const db = await openPostgresAt(urlOf(APP));
  closing.push(() => db.close());
  return { db, name, urlOf };
}

const settingsWith = (url: string, admin: string) =>
  loadSettings("/nonexistent", { DATABASE_URL: url, ...(admin === "" ? {} : { DATABASE_ADMIN_URL: admin }) }).settings;

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "done",
    (error: { code?: string; exitCode?: number }) => error.code ?? error.exitCode,
  );

describe.if(ON_SERVER)("where another role owns the tables", () => {
  let db: Database;
  let settings: ReturnType<typeof settingsWith>;
  beforeAll(async () => {
    const made = await newDatabase(OWNER);
    db = made.db;
    settings = settingsWith(made.urlOf(APP), made.urlOf(OWNER));
    await asOwner(settings, "/nonexistent", db, (owner) => migrate(owner, () => NOW));
  });

  const write = (at: Date, actorId = newId()) =>
    db.transaction((tx) =>
      audit(
        tx,
        { clock: heldClock(at), random: systemRandom },
        {
          action: "login",
          outcome: "success",
          actor: { kind: "user", id: actorId },
          caller: { requestId: null, ip: "192.0.2.1", userAgent: "test" },
        },
      ),
    );

  // Rows are where they are looked for, and none looks as of somebody erased.
  test.each([
    ["a number of its choice", "number", "9000000000000000000"],
    ["a number from before", "number", "1"],
    ["no salt", "caller_salt", "NULL"],
  ])("the application's role may not write a row with %s", async (_what, column, value) => {
    const work = db.transaction(async (tx) => {
      await tx.execute("SELECT nextval('audit_log_number_seq')");
      await tx.execute(
        `INSERT INTO audit_log (id, time, action, outcome, actor_kind, ${column})
         VALUES (gen_random_uuid(), '2026-03-01', 'login', 'success', 'system', ${value})`,
      );
    });
    const cause = await work.catch((error: Error) => error.cause);
    expect(cause).toMatchObject({ code: "42501" });
  });

  const erase = (id: string) =>
    db.transaction(async (tx) => {
      const event = { action: "user.erased", outcome: "success", subject: { kind: "user", id } } as const;
      await audit(tx, { clock: heldClock(NOW), random: systemRandom }, { ...event, actor: { kind: "system" } });
      await forgetFirst(tx, id);
    });

  // Whoever takes the application over can add to the audit log, and take nothing from it.
  test.each([
    "UPDATE audit_log SET action = 'x'",
    "UPDATE audit_log SET ip = NULL",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "DELETE FROM audit_log_rest",
    "INSERT INTO audit_log_rest SELECT * FROM audit_log",
    "UPDATE audit_seals SET seq = 0",
    "DELETE FROM audit_seals",
    "TRUNCATE audit_seals",
    "INSERT INTO audit_anchors SELECT * FROM audit_anchors",
    "DELETE FROM audit_anchors",
    "ALTER TABLE audit_log DISABLE TRIGGER ALL",
    "DROP TABLE audit_log",
    "SET session_replication_role = replica",
    "CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
    "UPDATE schema_migrations SET hash = ''",
    "CREATE FUNCTION public.date_trunc(text, timestamptz) RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'",
    "CREATE TABLE public.audit_log_y2030m01 ()",
  ])("the application's role may not: %s", async (statement) => {
    expect(await codeOf(db.query(statement))).toBe("42501");
  });

  test("everything else goes on: writing, sealing, erasing, making months, reading a backup", async () => {
    expect(await isMigrated(db)).toBe(true);
    expect(await mayChangeAudit(db)).toBe(false);
    const user = userRow({});
    await insertUser(db.orm, user);
    await write(NOW, user.id);
    // Also not by saying so anywhere but in the log itself.
    await db.query("UPDATE users SET erased_at = now() WHERE id = $1", [user.id]);
    expect(await codeOf(db.query("SELECT audit_forget($1, 1)", [user.id]))).toBe("42501");
    await write(new Date("2026-01-15"));
    const seal = () => createSealer(db, () => 0).seal();
    expect((await seal()).sealed).toBe(2);
    expect(await makeAuditMonths(db)).toBe(4); // of two tables, January and March
    await erase(user.id);
    const sums = await db.snapshot((reader) =>
      readTables(
        reader,
        async () => {},
        () => {},
      ),
    );
    expect(sums["public.audit_log"]?.rows).toBe(3);
    expect(await verifyChain(chainReaderOn(db), () => {})).toMatchObject({ ok: true, rows: 2, erased: 1 });
    // A partition that was made later is guarded as well.
    expect(await codeOf(db.query("DELETE FROM audit_log_y2026m01"))).toBe("42501");
  });

  // Retention is the owner's: the application's role cannot make the log forget either.
  test("only the owner drops a month", async () => {
    const log = createLog(
      () => "error",
      { write: () => {} },
      () => NOW,
    );
    const options = {
      endingBefore: new Date("2026-02-01"),
      now: NOW,
      random: systemRandom,
      log,
      signal: new AbortController().signal,
    };
    expect(await codeOf(dropAuditMonths(db, options))).toBe(1);
    const owner = await openOwner(settings, "/nonexistent", db);
    expect(await dropAuditMonths(owner.database, options)).toBe(1);
    await owner.close();
    expect(await verifyChain(chainReaderOn(db), () => {})).toMatchObject({ ok: true, dropped: { rows: 1, months: 1 } });
  });
});

describe.if(ON_SERVER)("asOwner", () => {
  test("takes over what the application's role has made, where it may", async () => {
    const { db, name, urlOf } = await newDatabase(APP);
    await migrate(db, () => NOW);
    expect(await mayChangeAudit(db)).toBe(true);
    const settings = settingsWith(urlOf(APP), urlOf(OWNER));
    const again = () => asOwner(settings, "/nonexistent", db, (owner) => migrate(owner, () => NOW));
    // Whoever owns the database can drop what others have in it.
    expect(await codeOf(again())).toBe(2);
    await server.query(`ALTER DATABASE ${name} OWNER TO ${OWNER}`);
    expect(await codeOf(again())).toBe(1);
    // What else the role has is not touched, nor what an extension has brought.
    const elsewhere = await newDatabase(APP);
    const superuser = await openPostgresAt(urlOf(new URL(postgresUrl()).username));
    closing.push(() => superuser.close());
    await superuser.query("CREATE EXTENSION pg_stat_statements");
    await server.query(`GRANT ${APP} TO ${OWNER}`);
    expect(await again()).toEqual([]);
    await server.query(`REVOKE ${APP} FROM ${OWNER}`);
    expect(await mayChangeAudit(db)).toBe(false);
    expect(await again()).toEqual([]);
    const left = await db.query("SELECT relname FROM pg_class WHERE relowner = $1::text::regrole", [APP]);
    expect(left).toEqual([]);
    const owners = await server.query("SELECT pg_get_userbyid(datdba) AS owner FROM pg_database WHERE datname = $1", [
      elsewhere.name,
    ]);
    expect(owners).toEqual([{ owner: APP }]);
    expect(await isMigrated(db)).toBe(true);
    expect(await makeAuditMonths(db)).toBe(0);
    // From now on the application's role alone migrates nothing, and is told what to give.
    const alone = settingsWith(urlOf(APP), "");
    expect(await codeOf(asOwner(alone, "/nonexistent", db, (owner) => migrate(owner, () => NOW)))).toBe(2);
  });

  // What doctor says of the rights is so: any of these is a way to the log.
  test.each([
    (name: string) => [`ALTER DATABASE ${name} OWNER TO ${APP}`, `ALTER DATABASE ${name} OWNER TO ${OWNER}`],
    () => [`GRANT CREATE ON SCHEMA public TO ${APP}`, `REVOKE CREATE ON SCHEMA public FROM ${APP}`],
    () => [`ALTER FUNCTION audit_refuse() OWNER TO ${APP}`, `ALTER FUNCTION audit_refuse() OWNER TO ${OWNER}`],
    () => [`GRANT INSERT ON audit_anchors TO ${APP}`, `REVOKE INSERT ON audit_anchors FROM ${APP}`],
    () => [`GRANT DELETE ON audit_log_rest TO ${APP}`, `REVOKE DELETE ON audit_log_rest FROM ${APP}`],
  ])("tells of a right that is too much: %#", async (statements) => {
    const { db, name, urlOf } = await newDatabase(OWNER);
    const settings = settingsWith(urlOf(APP), urlOf(OWNER));
    await asOwner(settings, "/nonexistent", db, (owner) => migrate(owner, () => NOW));
    const superuser = await openPostgresAt(urlOf(new URL(postgresUrl()).username));
    closing.push(() => superuser.close());
    const [give = "", take = ""] = statements(name);
    expect(await mayChangeAudit(db)).toBe(false);
    await superuser.query(give);
    expect(await mayChangeAudit(db)).toBe(true);
    await superuser.query(take);
    expect(await mayChangeAudit(db)).toBe(false);
  });

  // Rights that do not bind are none: it is said, and not pretended.
  test("refuses a role that may do everything, and another database", async () => {
    const { db, urlOf } = await newDatabase(OWNER);
    const other = await newDatabase(OWNER);
    const work = (app: Database, appUrl: string, adminUrl: string) =>
      codeOf(asOwner(settingsWith(appUrl, adminUrl), "/nonexistent", app, async () => {}));
    const asSuperuser = await openPostgresAt(urlOf(new URL(postgresUrl()).username));
    closing.push(() => asSuperuser.close());
    expect(await work(asSuperuser, urlOf(new URL(postgresUrl()).username), urlOf(OWNER))).toBe(2);
    expect(await work(db, urlOf(APP), urlOf(APP))).toBe(2);
    expect(await work(db, urlOf(APP), other.urlOf(OWNER))).toBe(2);
    await server.query(`GRANT ${OWNER} TO ${APP}`);
    expect(await work(db, urlOf(APP), urlOf(OWNER))).toBe(2);
    await server.query(`REVOKE ${OWNER} FROM ${APP}`);
  });
});
