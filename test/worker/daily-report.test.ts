import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { insertUser } from "../../db/queries/users.ts";
import { auditLog } from "../../db/schema/audit.ts";
import { signInAnomalies } from "../../db/schema/baselines.ts";
import { loginRecords } from "../../db/schema/logins.ts";
import { createRole } from "../../server/features/roles/service.ts";
import { changeUser, eraseUser } from "../../server/features/users/service.ts";
import { prepareMail } from "../../worker/mail/prepare-mail.ts";
import { newId, userRow } from "../db/rows.ts";
import { openTestApp, type TestApp } from "../support/app.ts";
import { changeSettings, queuedMails, runSchedule } from "./support/schedules.ts";

const BY_OPERATOR = { actor: { kind: "operator" } } as const;

let app: TestApp;
beforeAll(async () => {
  app = await openTestApp();
  await createRole(app.deps, "reader", { description: "", permissions: ["reports:read"], includes: [] }, BY_OPERATOR);
  await createRole(app.deps, "lead", { description: "", permissions: [], includes: ["reader"] }, BY_OPERATOR);
  await createRole(app.deps, "clerk", { description: "", permissions: ["users:read"], includes: [] }, BY_OPERATOR);
});
afterAll(() => app.close());
beforeEach(() => app.db.query("DELETE FROM jobs.job"));
afterEach(async () => {
  await app.db.longTransaction((connection) =>
    connection.query("SET LOCAL session_replication_role = replica; DELETE FROM audit_log"),
  );
  await app.db.query("DELETE FROM login_records; DELETE FROM sign_in_anomalies; DELETE FROM users");
});

async function logins(at: string, outcome: "success" | "failure", count: number, ip: string | null = "192.0.2.1") {
  const rows = Array.from({ length: count }, () => ({
    id: newId(),
    outcome,
    reason: "x",
    ip,
    createdAt: new Date(at),
  }));
  await app.db.orm.insert(loginRecords).values(rows);
}

const registered = (at: string, more: object = {}) =>
  insertUser(app.db.orm, userRow({ createdAt: new Date(at), ...more }));

async function locked(at: string, count: number) {
  const rows = Array.from({ length: count }, () => ({
    id: newId(),
    time: new Date(at),
    action: "account.locked",
    outcome: "success" as const,
    actorKind: "system" as const,
  }));
  await app.db.orm.insert(auditLog).values(rows);
}

const reader = (username: string, roles = ["reader"]) => app.createUser({ username, roles });

// The clock of the tests stands at 2026-03-01T12:00Z, a Sunday: the report is about Saturday, 28 February.
describe("the daily report", () => {
  test("has the figures that the tables have, of the day and of the weekday before, each from midnight to midnight", async () => {
    await reader("grace");
    await logins("2026-02-28T00:00:00.000Z", "success", 3);
    await logins("2026-02-28T23:59:59.999Z", "success", 4);
    await logins("2026-02-27T23:59:59.999Z", "success", 100);
    await logins("2026-03-01T00:00:00.000Z", "success", 100);
    await logins("2026-02-28T10:00:00Z", "failure", 5, "203.0.113.9");
    await logins("2026-02-28T10:00:00Z", "failure", 2, "2001:db8:7:1:aaaa::1");
    await logins("2026-02-28T10:00:00Z", "failure", 2, "2001:db8:7:1:bbbb::2");
    await logins("2026-02-28T10:00:00Z", "failure", 1, null);
    for (let last = 1; last <= 6; last++) await logins("2026-02-28T10:00:00Z", "failure", 1, `198.51.100.${last}`);
    await logins("2026-02-21T00:00:00.000Z", "success", 6);
    await logins("2026-02-21T23:59:59.999Z", "failure", 7);
    await logins("2026-02-20T23:59:59.999Z", "failure", 100);
    await registered("2026-02-28T12:00:00Z");
    await registered("2026-02-28T12:00:00Z", { status: "pending" });
    await registered("2026-02-28T12:00:00Z", { status: "deactivated", erasedAt: new Date("2026-02-28T13:00:00Z") });
    await registered("2026-02-21T12:00:00Z");
    await locked("2026-02-28T01:00:00Z", 2);
    await locked("2026-02-22T00:00:00.000Z", 9);
    expect(await runSchedule(app, "daily-report")).toMatchObject({ outcome: "done" });
    const figures = { sign_ins: 7, failures: 16, new_users: 2, locked_accounts: 2 };
    const [mail, ...more] = await queuedMails(app, "daily_report");
    expect(more).toEqual([]);
    expect(mail).toMatchObject({
      day: "2026-02-28",
      figures,
      week_before: { sign_ins: 6, failures: 7, new_users: 1, locked_accounts: 0 },
      top_failing: [
        { address: "203.0.113.9", failures: 5 },
        { address: "2001:db8:7:1::/64", failures: 4 },
        { address: "198.51.100.1", failures: 1 },
        { address: "198.51.100.2", failures: 1 },
        { address: "198.51.100.3", failures: 1 },
      ],
    });
    const [counted] = await app.db.query(
      `SELECT count(*) FILTER (WHERE outcome = 'success')::int AS sign_ins,
         count(*) FILTER (WHERE outcome = 'failure')::int AS failures
       FROM login_records WHERE created_at::date = '2026-02-28'`,
    );
    expect(figures).toMatchObject(counted as object);
  });

  // What is mailed of unusual hours is what the tables have of that day, the worst first.
  test("names the networks and the accounts that were most unusual on that day", async () => {
    const { id: user_id } = await reader("grace");
    const { id: other } = await reader("ada", ["user"]);
    const unusual = (hour: string, owner: object, score: number) =>
      app.db.orm.insert(signInAnomalies).values({
        id: newId(),
        hour: new Date(hour),
        score,
        signals: ["burst"],
        good: 1,
        failed: 2,
        ...owner,
      });
    await unusual("2026-02-28T00:00:00Z", { userId: other }, 60);
    await unusual("2026-02-28T23:00:00Z", { userId: user_id }, 30);
    await unusual("2026-02-28T22:00:00Z", { userId: user_id }, 85);
    await unusual("2026-02-27T23:00:00Z", { userId: other }, 100);
    await unusual("2026-03-01T00:00:00Z", { network: "192.0.2.0/24" }, 100);
    for (let net = 1; net <= 7; net++)
      await unusual("2026-02-28T10:00:00Z", { network: `198.51.${net}.0/24` }, net * 10);
    await runSchedule(app, "daily-report");
    const [mail] = await queuedMails(app, "daily_report");
    const networks = await app.db.query(
      `SELECT network, max(score) AS score FROM sign_in_anomalies
       WHERE network IS NOT NULL AND hour::date = '2026-02-28' GROUP BY network ORDER BY 2 DESC LIMIT 5`,
    );
    expect(mail).toMatchObject({
      unusual_accounts: [
        { user_id, score: 85 },
        { user_id: other, score: 60 },
      ],
      unusual_networks: networks,
    });
    expect(networks[0]).toEqual({ network: "198.51.7.0/24", score: 70 });
    await eraseUser(app.deps, other, BY_OPERATOR);
    const prepared = await prepareMail(
      { ...app.deps, home: "/nonexistent" },
      {
        id: newId(),
        data: mail as never,
        createdAt: app.clock.now(),
      },
    );
    const { text } = prepared as { text: string };
    expect(text).toContain("grace (85)");
    expect(text).toContain("198.51.7.0/24 (70)");
    expect(text).not.toMatch(/ada|erased|192\.0\.2/);
  });

  test("counts the days of the time zone that is set", async () => {
    changeSettings(app, { PRIMER_WORKER__TIME_ZONE: "Pacific/Auckland" }); // 13 hours ahead: it is 2 March there
    await reader("grace");
    await logins("2026-02-28T10:59:59.999Z", "success", 100);
    await logins("2026-02-28T11:00:00.000Z", "success", 1);
    await logins("2026-03-01T10:59:59.999Z", "success", 1);
    await logins("2026-03-01T11:00:00.000Z", "success", 100);
    await runSchedule(app, "daily-report");
    changeSettings(app, {});
    expect(await queuedMails(app, "daily_report")).toMatchObject([{ day: "2026-03-01", figures: { sign_ins: 2 } }]);
  });

  // Who may not see what happens here is not mailed it either.
  test("goes to active users with the permission, whatever role gives it, and to nobody else", async () => {
    const wanted = [await reader("admin", ["admin"]), await reader("grace"), await reader("lin", ["lead"])];
    await reader("clark", ["clerk"]);
    await reader("una", ["user"]);
    const gone = await reader("dora");
    await changeUser(app.deps, gone.id, { status: "disabled" }, BY_OPERATOR);
    const result = await runSchedule(app, "daily-report");
    expect(result.details).toMatchObject({ mails: 3, sign_ins: 0 });
    const mails = await queuedMails(app, "daily_report");
    expect(mails.map(({ user_id }) => user_id).sort()).toEqual(wanted.map(({ id }) => id).sort() as unknown[]);
  });
});
