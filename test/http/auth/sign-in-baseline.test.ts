import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readingsOf } from "../../../config/meter.ts";
import { loginRecords } from "../../../db/schema/logins.ts";
import type { Place } from "../../../server/ports/geo.ts";
import { newId } from "../../db/rows.ts";
import { PASSWORD } from "../../support/app.ts";
import { runSchedule } from "../../worker/support/schedules.ts";
import { type HttpApp, openListeningApp } from "../support/http-app.ts";
import { replaceDeps, stepsOf } from "../support/observe.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** Where the clock of the tests stands. */
const NOON = Date.parse("2026-03-01T12:00:00.000Z");
const [HOME, ELSEWHERE, ABROAD] = ["192.0.2.7", "198.18.0.7", "198.51.100.7"];
const WEIGHTS = { new_network: 30, new_hour: 10, new_country: 25, burst: 20, mostly_failures: 20, bad_network: 40 };

const places = (ip: string): Place | undefined => {
  const country = ip.startsWith("198.51.100.") ? "Peru" : ip.startsWith("192.0.2.") ? "Austria" : undefined;
  return country === undefined ? undefined : { country, latitude: 0, longitude: 0, accuracyKm: 1 };
};

let app: HttpApp;
beforeAll(async () => {
  app = await openListeningApp({ PRIMER_SERVER__TRUSTED_PROXIES: "127.0.0.1" });
  replaceDeps(app.deps, { geo: { placeOf: places, reread: async () => {}, close() {} } });
});
afterAll(() => app.close());

let made = 0;
/** A user who has signed in twice a day for four weeks, always at the same hour, from home. */
async function someone(hour: number, records: readonly object[] = []) {
  const { id, username } = await app.createUser({ username: `user${made++}` });
  const sign = (createdAt: number, more: object = {}) => ({
    id: newId(),
    userId: id,
    outcome: "success" as const,
    reason: "password",
    ip: HOME,
    userAgent: "Firefox",
    createdAt: new Date(createdAt),
    ...more,
  });
  const usual = Array.from({ length: 28 }, (_, day) => NOON - 12 * HOUR - (day + 1) * DAY + hour * HOUR);
  const rows = [...usual, ...usual.map((at) => at + 1)].map((at) => sign(at));
  await app.db.query("DELETE FROM baseline_cursor; DELETE FROM login_records");
  await app.db.orm.insert(loginRecords).values([...rows, ...records.map((more) => sign(NOON - 30 * 60_000, more))]);
  await runSchedule(app, "baselines");
  const logIn = (ip: string, body: object = {}) =>
    app.request("POST", "/api/v1/auth/login", {
      body: { username, password: PASSWORD, ...body },
      headers: { "x-forwarded-for": ip, "user-agent": "Firefox" },
    });
  return { id, logIn };
}

const riskOf = async (userId: string) => {
  const [row] = await app.db.query<{ risk_score: number | null; risk_signals: string[] | null }>(
    "SELECT risk_score, risk_signals FROM login_records WHERE user_id = $1 AND session_id IS NOT NULL ORDER BY id DESC",
    [userId],
  );
  return row;
};
const failed = { outcome: "failure", reason: "wrong_password" };

// A sign-in unlike those before is scored higher; the log, the record, the audit log and its owner hear of it.
describe("a sign-in at noon", () => {
  const CASES: readonly (readonly [string, number, string, readonly object[], readonly (keyof typeof WEIGHTS)[]])[] = [
    ["like every day", 12, HOME, [], []],
    ["of whoever comes at eleven", 11, HOME, [], []],
    ["of whoever comes at nine", 9, HOME, [], ["new_hour"]],
    ["from another network", 12, ELSEWHERE, [], ["new_network"]],
    ["from another country", 12, ABROAD, [], ["new_network", "new_country"]],
    ["from another country, at another hour", 3, ABROAD, [], ["new_network", "new_hour", "new_country"]],
    ["after nine others within the hour", 12, HOME, Array(9).fill({}), ["burst"]],
    ["after eight others within the hour", 12, HOME, Array(8).fill({}), []],
    [
      "from where nearly all sign-ins fail",
      12,
      ELSEWHERE,
      Array(20).fill({ ...failed, userId: null, ip: "198.18.0.99" }),
      ["new_network", "mostly_failures"],
    ],
  ];
  test.each(CASES)("%s", async (_name, hour, ip, records, signals) => {
    const { id, logIn } = await someone(hour, records);
    expect((await logIn(ip)).status).toBe(200);
    const score = signals.reduce((sum, signal) => sum + WEIGHTS[signal], 0);
    const expected =
      score === 0 ? { risk_score: null, risk_signals: null } : { risk_score: score, risk_signals: signals };
    expect(await riskOf(id)).toEqual(expected as never);
    const log = app.logLines.map((line) => JSON.parse(line)).filter((line) => line.user_id === id && line.signals);
    expect(log.map((line) => [line.score, line.signals])).toEqual(score === 0 ? [] : [[score, [...signals]]]);
    const audited = await app.db.query(
      "SELECT details FROM audit_log WHERE action = 'login.suspicious' AND actor_id = $1",
      [id],
    );
    expect(audited).toEqual(score < 50 ? [] : [{ details: { score, signals } }]);
    const mails = await app.db.query("SELECT 1 FROM jobs.job WHERE data->>'user_id' = $1", [id]);
    expect(mails).toHaveLength(score < 50 ? 0 : 1);
  });

  test("is counted by what is unusual of it", async () => {
    const read = async () => {
      const metric = readingsOf(await app.deps.metrics.collect()).find(
        ({ name }) => name === "primer_unusual_sign_ins_total",
      );
      return Object.fromEntries((metric?.points ?? []).map(({ labels, value }) => [labels.signal, value]));
    };
    const before = await read();
    await (await someone(3)).logIn(ABROAD);
    const after = await read();
    for (const signal of ["new_hour", "new_country", "new_network"])
      expect([signal, (after[signal] ?? 0) - (before[signal] ?? 0)]).toEqual([signal, 1]);
  });

  // What was learnt costs a login nothing more: it comes with what it asks for anyway.
  test("takes the same steps with a history as without", async () => {
    const known = await someone(3);
    const { username } = await app.createUser({ username: "fresh" });
    await app.login(username);
    const fresh = () =>
      app.request("POST", "/api/v1/auth/login", {
        body: { username, password: PASSWORD },
        headers: { "x-forwarded-for": HOME, "user-agent": "Firefox" },
      });
    await fresh();
    const [one, other] = [await stepsOf(app.deps, () => known.logIn(HOME)), await stepsOf(app.deps, fresh)];
    expect(one.length).toBeGreaterThan(10);
    expect(one).toEqual(other);
  });

  test("on a known device is as usual wherever it is", async () => {
    const { id, logIn } = await someone(3);
    const { device_token } = (await logIn(HOME, { remember_device: true })).body;
    await logIn(ABROAD, { device_token });
    expect(await riskOf(id)).toEqual({ risk_score: null, risk_signals: null });
  });
});
