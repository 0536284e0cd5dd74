import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { findUser, insertUser } from "../../db/queries/users.ts";
import { createUser, eraseUser, type NewUser } from "../../server/features/users/service.ts";
import { userRow } from "../db/rows.ts";
import { openTestApp, PASSWORD, type TestApp } from "../support/app.ts";
import { until } from "./support/jobs.ts";
import { runSchedule } from "./support/schedules.ts";

const DAY_MS = 86_400_000;
const BY_OPERATOR = { actor: { kind: "operator" } } as const;

let app: TestApp;
beforeAll(async () => {
  app = await openTestApp({ PRIMER_ACCOUNTS__ERASE_AFTER: "30d" });
});
afterAll(() => app.close());
beforeEach(() => app.db.query("DELETE FROM users"));

const ago = (ms: number) => new Date(app.clock.now().getTime() - ms);

async function made(row: Parameters<typeof userRow>[0]): Promise<string> {
  const whole = userRow(row);
  await insertUser(app.db.orm, whole);
  return whole.id;
}

const isThere = async (id: string) => (await findUser(app.db.orm, { id })) !== undefined;

describe("accounts that were not verified", () => {
  // A name is held by a registration for a day, and by nobody after that.
  test("are erased after a day and not before, and others never", async () => {
    const [past, at, before] = [DAY_MS + 1, DAY_MS, DAY_MS - 1000].map(ago);
    const ids = [
      await made({ status: "pending", createdAt: past as Date, username: "held" }),
      await made({ status: "pending", createdAt: at as Date }),
      await made({ status: "pending", createdAt: before as Date }),
      await made({ status: "active", createdAt: past as Date }),
      await made({ status: "disabled", createdAt: past as Date }),
    ];
    expect(await runSchedule(app, "unverified-accounts")).toMatchObject({ outcome: "done", details: { erased: 2 } });
    expect(await Promise.all(ids.map(isThere))).toEqual([false, false, true, true, true]);
    const again: NewUser = { username: "held", email: "held@example.test", password: PASSWORD, roles: [] };
    expect(await createUser(app.deps, again, BY_OPERATOR)).toMatchObject({ username: "held" });
    const audited = await app.db.query("SELECT actor_kind, outcome FROM audit_log WHERE action = 'user.erased'");
    expect(audited).toEqual(Array(2).fill({ actor_kind: "system", outcome: "success" }));
  });

  test("are erased however many there are", async () => {
    for (let count = 0; count < 102; count++) await made({ status: "pending", createdAt: ago(2 * DAY_MS) });
    expect(await runSchedule(app, "unverified-accounts")).toMatchObject({ details: { erased: 102 } });
  });
});

describe("accounts that were deactivated", () => {
  test("are erased when accounts.erase_after is over and not before", async () => {
    const gone = (ms: number) => ({ status: "deactivated" as const, deactivatedAt: ago(ms) });
    const ids = [
      await made(gone(30 * DAY_MS + 1)),
      await made(gone(30 * DAY_MS)),
      await made(gone(30 * DAY_MS - 1000)),
      await made({ status: "active", createdAt: ago(90 * DAY_MS) }),
    ];
    expect(await runSchedule(app, "deactivated-accounts")).toMatchObject({ details: { erased: 2 } });
    expect(await Promise.all(ids.map(isThere))).toEqual([false, false, true, true]);
    expect(await runSchedule(app, "deactivated-accounts")).toMatchObject({ details: { erased: 0 } });
  });

  // What waits to be used once is as personal as the rest.
  test("leave no link behind that names them", async () => {
    const id = await made({ status: "deactivated", deactivatedAt: ago(40 * DAY_MS) });
    await app.db.query(
      "INSERT INTO single_use_tokens (id, purpose, token_hash, user_id, created_at, expires_at) VALUES ($1, 'x', 'x', $1, now(), now())",
      [id],
    );
    await runSchedule(app, "deactivated-accounts");
    expect(await app.db.query("SELECT 1 FROM single_use_tokens")).toEqual([]);
  });

  // Of an erased user the log has no address and no agent, however much they did and whatever came late.
  test("leave no address behind", async () => {
    const id = await made({ status: "deactivated", deactivatedAt: ago(40 * DAY_MS) });
    const write = (count: number) =>
      app.db.query(
        `INSERT INTO audit_log (id, time, action, outcome, actor_kind, actor_id, caller_of, ip)
         SELECT gen_random_uuid(), '2026-03-01', 'login', 'success', 'user', $1, $1, '192.0.2.1' FROM generate_series(1, $2::int)`,
        [id, count],
      );
    const left = () => app.db.query("SELECT 1 FROM audit_log WHERE ip IS NOT NULL AND caller_of = $1", [id]);
    await write(1200);
    await runSchedule(app, "deactivated-accounts");
    expect(await left()).toEqual([]);
    await write(1200);
    expect((await runSchedule(app, "clean-up")).details).toMatchObject({ audit_callers: 1200 });
    expect(await left()).toEqual([]);
  });

  test("leave no address behind where an operator erases them", async () => {
    const id = await made({ status: "active" });
    const caller = { requestId: null, ip: "192.0.2.1", userAgent: "test" };
    await eraseUser(app.deps, id, { ...BY_OPERATOR, caller });
    const events = await app.db.query("SELECT action, ip, user_agent FROM audit_log WHERE subject_id = $1", [id]);
    expect(events).toEqual([{ action: "user.erased", ip: null, user_agent: null }]);
  });

  // Whoever comes back at the last moment is not erased for what they were a moment ago.
  test("that change while they are erased stay", async () => {
    const ids: string[] = [];
    for (let count = 0; count < 20; count++)
      ids.push(await made({ status: "deactivated", deactivatedAt: ago(40 * DAY_MS) }));
    const back = async (id: string) =>
      app.db.query<{ id: string }>(
        "UPDATE users SET status = 'active', updated_at = $2::timestamptz WHERE id = $1 AND erased_at IS NULL RETURNING id",
        [id, app.clock.now().toISOString()],
      );
    const erasing = runSchedule(app, "deactivated-accounts");
    await until("the first one", async () => !(await isThere(ids[0] ?? "")));
    const returned = (await Promise.all(ids.map(back))).flat().map(({ id }) => id);
    const { details } = await erasing;
    expect(returned.length).toBeGreaterThan(0);
    expect(details).toEqual({ erased: ids.length - returned.length });
    expect(await Promise.all(returned.map(isThere))).toEqual(returned.map(() => true));
  });
});
