import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { readingsOf } from "../../config/meter.ts";
import type { Database } from "../../db/database.ts";
import { insertUser } from "../../db/queries/users.ts";
import { loginRecords } from "../../db/schema/logins.ts";
import type { Place } from "../../server/ports/geo.ts";
import { learnSignIns } from "../../worker/schedules/learn-sign-ins.ts";
import { newId, userRow } from "../db/rows.ts";
import { replaceDeps } from "../http/support/observe.ts";
import { openTestApp, type TestApp } from "../support/app.ts";
import { runSchedule } from "./support/schedules.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** Where the clock of the tests stands. */
const NOON = Date.parse("2026-03-01T12:00:00.000Z");
const TODAY = Date.parse("2026-03-01T00:00:00.000Z");
const [OFFICE, ABROAD] = ["192.0.2.7", "198.51.100.7"];

const places = (ip: string): Place | undefined => {
  const country = ip.startsWith("192.0.2.") ? "Austria" : ip.startsWith("198.51.100.") ? "Peru" : undefined;
  return country === undefined ? undefined : { country, latitude: 0, longitude: 0, accuracyKm: 1 };
};

let app: TestApp;
beforeAll(async () => {
  app = await openTestApp();
  replaceDeps(app.deps, { geo: { placeOf: places, reread: async () => {}, close() {} } });
});
afterAll(() => app.close());
beforeEach(() =>
  app.db.query(
    "DELETE FROM baseline_cursor; DELETE FROM network_baselines; DELETE FROM sign_in_anomalies; DELETE FROM login_records; DELETE FROM users",
  ),
);

interface Records {
  readonly at: number;
  readonly good?: number;
  readonly failed?: number;
  readonly ip?: string;
  readonly reason?: string;
}

const someone = async (): Promise<string> => {
  const row = userRow({ createdAt: new Date(TODAY - 60 * DAY) });
  await insertUser(app.db.orm, row);
  return row.id;
};

/** Attempts within a minute. */
async function attempts(userId: string | null, given: readonly Records[], db: Database = app.db): Promise<void> {
  const rows = given.flatMap(({ at, good = 0, failed = 0, ip = OFFICE, reason = "wrong_password" }) =>
    Array.from({ length: good + failed }, (_, index) => ({
      id: newId(),
      userId,
      outcome: index < good ? ("success" as const) : ("failure" as const),
      reason: index < good ? "password" : reason,
      ip,
      createdAt: new Date(at + index),
    })),
  );
  for (let from = 0; from < rows.length; from += 1000)
    await db.orm.insert(loginRecords).values(rows.slice(from, from + 1000));
}

/** Two sign-ins at nine on each of the last 28 days. */
const USUAL = Array.from({ length: 28 }, (_, day) => ({ at: TODAY - (day + 1) * DAY + 9 * HOUR, good: 2 })).reverse();

const learn = async () => (await runSchedule(app, "baselines")).details;
const anomalies = (condition = "true") =>
  app.db.query<{ user_id: string; network: string; score: number; signals: string[]; good: number; failed: number }>(
    `SELECT * FROM sign_in_anomalies WHERE ${condition} ORDER BY hour, network, user_id`,
  );
const told = (subject: string) =>
  app.db.query<{ subject_id: string; details: object }>(
    "SELECT subject_id, details FROM audit_log WHERE action = 'sign_ins.anomalous' AND subject_id = $1 ORDER BY id",
    [subject],
  );

// What is unlike the history of an account is seen; what is like it, and what has no history, is not.
describe("an hour of an account", () => {
  const CASES: readonly (readonly [string, Records, readonly string[]])[] = [
    ["as usual", { at: TODAY + 9 * HOUR, good: 2 }, []],
    ["an hour beside the usual one", { at: TODAY + 10 * HOUR, good: 1 }, []],
    ["another hour", { at: TODAY + 3 * HOUR, good: 1 }, ["new_hour"]],
    ["failures at another hour", { at: TODAY + 3 * HOUR, failed: 3 }, []],
    ["another country", { at: TODAY + 9 * HOUR, good: 1, ip: ABROAD }, ["new_country"]],
    ["a failure from another country", { at: TODAY + 9 * HOUR, failed: 1, ip: ABROAD }, []],
    ["a country that is not known", { at: TODAY + 9 * HOUR, good: 1, ip: "203.0.113.7" }, []],
    ["nine sign-ins", { at: TODAY + 9 * HOUR, good: 9 }, []],
    ["ten sign-ins", { at: TODAY + 9 * HOUR, good: 10 }, ["burst"]],
    ["nine failures", { at: TODAY + 9 * HOUR, failed: 9 }, []],
    ["ten failures", { at: TODAY + 9 * HOUR, failed: 10 }, ["burst", "mostly_failures"]],
    ["ten failures and three that were good", { at: TODAY + 9 * HOUR, failed: 10, good: 3 }, ["burst"]],
    ["what was refused after the right password", { at: TODAY + 9 * HOUR, failed: 30, reason: "disabled" }, []],
  ];
  test.each(CASES)("%s", async (_name, records, signals) => {
    const [known, fresh] = [await someone(), await someone()];
    await attempts(known, USUAL);
    await learn();
    await attempts(known, [records]);
    await attempts(fresh, [records]);
    await learn();
    const found = await anomalies("user_id IS NOT NULL");
    const expected = { user_id: known, signals, good: records.good ?? 0, failed: records.failed ?? 0 };
    expect(found).toMatchObject(signals.length === 0 ? [] : [expected]);
    expect(found).toHaveLength(signals.length === 0 ? 0 : 1);
  });

  test("history of less than a week is none", async () => {
    const id = await someone();
    await attempts(
      id,
      Array.from({ length: 6 }, (_, day) => ({ at: TODAY - (6 - day) * DAY + 9 * HOUR, good: 10 })),
    );
    await attempts(id, [{ at: TODAY + 3 * HOUR, good: 1, ip: ABROAD }]);
    await learn();
    expect(await anomalies("user_id IS NOT NULL")).toEqual([]);
  });

  // Whoever has the password and comes at night for a week makes the night usual, but not in one night.
  test("one night teaches no more than twenty attempts", async () => {
    const id = await someone();
    await attempts(id, [...USUAL, { at: TODAY + 2 * HOUR, good: 400, ip: ABROAD }]);
    await attempts(id, [{ at: TODAY + 4 * HOUR, good: 1 }]);
    await learn();
    const [row] = await app.db.query<{ baseline: { usual: { hours: number[]; busiest: number } } }>(
      "SELECT baseline FROM account_baselines",
    );
    expect(row?.baseline.usual.hours[2]).toBe(20);
    expect(row?.baseline.usual.busiest).toBe(20);
  });
});

describe("an hour of a network", () => {
  const CASES: readonly (readonly [string, Omit<Records, "at">, readonly string[]])[] = [
    ["19 failures", { failed: 19 }, []],
    ["20 failures, of no account too", { failed: 20 }, ["mostly_failures"]],
    ["20 failures among 26", { failed: 20, good: 6 }, []],
    ["a hundred good sign-ins on its first day", { good: 100 }, []],
  ];
  test.each(CASES)("that was never seen before: %s", async (_name, records, signals) => {
    await attempts(null, [{ at: TODAY + 8 * HOUR, ip: "2001:db8:7:1::9", ...records }]);
    await learn();
    const found = await anomalies();
    expect(found.map(({ network }) => network)).toEqual(signals.length > 0 ? ["2001:db8:7::/48"] : []);
    expect(found.flatMap((row) => row.signals)).toEqual([...signals]);
  });

  test("that has a history: a burst, failures and another hour are all seen", async () => {
    await attempts(await someone(), USUAL);
    await attempts(null, [{ at: TODAY + 2 * HOUR, good: 1, failed: 40, reason: "unknown_account" }]);
    await learn();
    expect(await anomalies("network IS NOT NULL")).toMatchObject([
      { network: "192.0.2.0/24", signals: ["new_hour", "burst", "mostly_failures"], score: 90, good: 1, failed: 40 },
    ]);
  });
});

// An attack is told of once an hour, in the transaction that finds it; history is no news.
test("what has become suspicious is in the audit log once for each hour of the last day", async () => {
  const attack = (at: number, ip: string) => ({ at, ip, failed: 25, reason: "unknown_account" });
  await attempts(null, [attack(TODAY - 2 * DAY, "203.0.113.1"), attack(TODAY + 8 * HOUR, "203.0.113.2")]);
  await learn();
  await attempts(null, [
    attack(TODAY + 8 * HOUR + 30 * MINUTE, "203.0.113.3"),
    attack(TODAY + 9 * HOUR, "203.0.113.4"),
  ]);
  await learn();
  const network = "203.0.113.0/24";
  expect(await told(network)).toMatchObject([
    { subject_id: network, details: { hour: "2026-03-01T08:00:00.000Z", signals: ["mostly_failures"], failed: 25 } },
    { subject_id: network, details: { hour: "2026-03-01T09:00:00.000Z", score: 50 } },
  ]);
  expect(await anomalies()).toMatchObject([{ failed: 25 }, { failed: 50 }, { failed: 25 }]);
  const counted = readingsOf(await app.deps.metrics.collect()).find(
    ({ name }) => name === "primer_unusual_hours_total",
  );
  const labels = { of: "network", signal: "mostly_failures" };
  expect(counted?.points.find((point) => Bun.deepEquals(point.labels, labels))?.value).toBeGreaterThanOrEqual(3);
});

test("what a login found unusual is in the hour of its account, and is told by the login alone", async () => {
  const id = await someone();
  const row = { id: newId(), userId: id, outcome: "success" as const, reason: "password", createdAt: new Date(TODAY) };
  await app.db.orm.insert(loginRecords).values({ ...row, riskScore: 60, riskSignals: ["new_device", "new_network"] });
  await learn();
  expect(await anomalies()).toMatchObject([{ user_id: id, score: 60, signals: ["new_device", "new_network"] }]);
  expect(await told(id)).toEqual([]);
});

test("what happened within the last minute is learnt by the next run, and nothing twice", async () => {
  await attempts(null, [{ at: app.clock.now().getTime() - MINUTE + 10_000, good: 3 }]);
  expect(await learn()).toMatchObject({ learnt: 0 });
  app.clock.advance(MINUTE);
  expect(await learn()).toMatchObject({ learnt: 3 });
  expect(await learn()).toMatchObject({ learnt: 0 });
});

/** Everything that was learnt, of users by their names. */
const learnt = (db: Database) =>
  db.query(
    `SELECT network AS key, baseline FROM network_baselines
     UNION ALL SELECT user_id::text, baseline FROM account_baselines ORDER BY 1`,
  );

// Each login counts exactly once, however many workers run and wherever one dies.
test("several workers at once, some of which die, learn the same as one", async () => {
  const alone = await openTestApp();
  const users = Array.from({ length: 20 }, () => userRow({}));
  const random = ((seed) => () => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return seed / 2 ** 31;
  })(7);
  const rows = Array.from({ length: 3300 }, () => {
    const isGood = random() < 0.7;
    return {
      id: newId(),
      userId: random() < 0.9 ? (users[Math.floor(random() * 20)]?.id ?? null) : null,
      outcome: isGood ? ("success" as const) : ("failure" as const),
      reason: isGood ? "password" : "wrong_password",
      ip: `192.0.${Math.floor(random() * 10)}.7`,
      // Many of the same moment
      createdAt: new Date(TODAY - Math.floor(random() * 40) * 12 * HOUR),
    };
  });
  for (const one of [app, alone]) {
    for (const user of users) await insertUser(one.db.orm, user);
    for (let from = 0; from < rows.length; from += 1100)
      await one.db.orm.insert(loginRecords).values(rows.slice(from, from + 1100));
  }
  const run = {
    home: "",
    occurrence: new Date(NOON),
    last: null,
    isAsked: false,
    signal: new AbortController().signal,
  };
  const finish = async () => {};
  const { deps: other } = await app.otherNode({ geo: app.deps.geo });
  let transactions = 0;
  // Dies at the end of every third transaction, when all is written and nothing committed.
  const dying: Database = {
    ...other.db,
    transaction: (work) =>
      other.db.transaction(async (tx, withCommit) => {
        const done = await work(tx, withCommit);
        if (++transactions % 3 === 0) throw new Error("The process died");
        return done;
      }),
  };
  const mortal = async (): Promise<void> => {
    const ended = await learnSignIns({ ...other, db: dying }, { ...run, finish }).catch(() => undefined);
    if (!ended) await mortal();
  };
  await Promise.all([mortal(), learnSignIns(app.deps, { ...run, finish }), mortal()]);
  replaceDeps(alone.deps, { geo: app.deps.geo });
  expect(await learnSignIns(alone.deps, { ...run, finish })).toMatchObject({ learnt: 3300 });
  const [several, one] = [await learnt(app.db), await learnt(alone.db)];
  await alone.close();
  expect(several).toHaveLength(30);
  expect(several).toEqual(one);
  expect(transactions).toBeGreaterThan(3);
});

// Nothing that was learnt of somebody outlives their account.
test("what was learnt goes with the account, also where both happen at once", async () => {
  const kept = await app.createUser({ username: "kept" });
  const gone = await Promise.all(
    Array.from({ length: 8 }, (_, index) => app.createUser({ username: `gone${index}`, roles: ["user"] })),
  );
  await attempts(kept.id, USUAL);
  for (const { id } of gone) await attempts(id, [{ at: TODAY, good: 1 }]);
  const { eraseUser } = await import("../../server/features/users/service.ts");
  const by = { actor: { kind: "operator" } } as const;
  await Promise.all([learn(), ...gone.map(({ id }) => eraseUser(app.deps, id, by))]);
  const rows = await app.db.query("SELECT user_id FROM account_baselines");
  expect(rows).toEqual([{ user_id: kept.id }]);
  await attempts(kept.id, [{ at: TODAY + 3 * HOUR, good: 1 }]);
  await learn();
  expect(await anomalies(`user_id = '${kept.id}'`)).toHaveLength(1);
  await eraseUser(app.deps, kept.id, by);
  expect(
    await app.db.query(
      "SELECT 1 FROM account_baselines UNION ALL SELECT 1 FROM sign_in_anomalies WHERE user_id IS NOT NULL",
    ),
  ).toEqual([]);
});
