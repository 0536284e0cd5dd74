import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { readingsOf } from "../../config/meter.ts";
import { claimSchedule, insertSchedule, listScheduleRuns } from "../../db/queries/schedules.ts";
import type { Deps } from "../../server/deps.ts";
import { MISSED_WITHIN_MS, PAUSES_MS, runOnce, startSchedules } from "../../worker/run-schedules.ts";
import type { Schedule, ScheduledRun } from "../../worker/schedule.ts";
import { openTestApp, type TestApp, type TestNode } from "../support/app.ts";
import { until } from "./support/jobs.ts";

const HOME = "/nonexistent";
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const QUICK = { look: 10, beat: 20 };

let app: TestApp;
let other: TestNode;
beforeAll(async () => {
  app = await openTestApp();
  other = await app.otherNode();
});
afterAll(() => app.close());
beforeEach(() => app.db.query("DELETE FROM schedule_runs; DELETE FROM jobs.job; DELETE FROM mail_counters"));

type Work = (deps: unknown, run: ScheduledRun) => Promise<Record<string, unknown> | undefined>;

/** Due every hour, on the hour. */
const hourly = (run: Work, deadlineMs = 60_000): Schedule => ({
  name: "freshness",
  sentence: "Is tested.",
  cron: () => "0 * * * *",
  deadlineMs,
  run,
});

const row = async () => (await listScheduleRuns(app.db.orm))[0];
const state = async () => (await row())?.state;

/** Lets schedules run on some nodes while `during` does; each has been seen by then. */
async function withSchedules(
  schedule: Schedule,
  during: () => Promise<void>,
  nodes: readonly Deps[] = [app.deps],
  pace = {},
): Promise<void> {
  const started = nodes.map((deps) =>
    startSchedules(deps, HOME, { schedules: [schedule], pace: { ...QUICK, ...pace } }),
  );
  try {
    await until("it is seen", async () => (await row()) !== undefined);
    await during();
  } finally {
    await Promise.all(started.map((one) => one.stop()));
  }
}

describe("an occurrence", () => {
  // Whatever the number of workers: a report is mailed once.
  test("is run once by several workers, each time that it is due", async () => {
    const runs: string[] = [];
    const schedule = hourly(async (_deps, { occurrence }) => void runs.push(occurrence.toISOString()) as undefined);
    await withSchedules(schedule, async () => {
      expect(runs).toEqual([]);
      for (let hour = 1; hour <= 5; hour++) {
        app.clock.advance(HOUR_MS);
        await until("it is run", () => runs.length >= hour);
        await until("its end", async () => (await state()) === "done");
      }
    }, [app.deps, other.deps, app.deps, other.deps]);
    expect(new Set(runs).size).toBe(5);
    expect(runs).toHaveLength(5);
  });

  test("that many claim at the same moment is given to one", async () => {
    const now = app.clock.now();
    await insertSchedule(app.db.orm, "freshness", new Date(0));
    const claims = await Promise.all(
      Array.from({ length: 40 }, (_, index) => {
        const { orm } = index % 2 ? app.db : other.deps.db;
        return claimSchedule(orm, { name: "freshness", occurrence: now }, now, new Date(now.getTime() + 1000));
      }),
    );
    expect(claims.filter((claim) => claim !== undefined)).toHaveLength(1);
  });

  test.each([
    ["is made up for within the bound", MISSED_WITHIN_MS, 1],
    ["is left out past it", MISSED_WITHIN_MS + 1, 0],
  ])("that nobody ran %s", async (_name, late, expected) => {
    let runs = 0;
    const now = app.clock.now().getTime();
    const nextSix = Math.ceil(now / DAY_MS) * DAY_MS + 6 * HOUR_MS;
    app.clock.advance(nextSix + late - now);
    const work: Work = async () => {
      runs++;
      return {};
    };
    const schedule = { ...hourly(work), cron: () => "0 6 * * *" };
    await insertSchedule(app.db.orm, "freshness", new Date(0));
    await withSchedules(schedule, async () => {
      if (expected > 0) await until("it is run", () => runs > 0);
      else await Bun.sleep(100);
    });
    expect(runs).toBe(expected);
  });

  test("is not made up for where the schedule was never seen before", async () => {
    let runs = 0;
    await withSchedules(
      hourly(async () => {
        runs++;
        return {};
      }),
      async () => {
        expect(await state()).toBe("waiting");
        app.clock.advance(HOUR_MS);
        await until("the next one", () => runs === 1);
      },
    );
  });
});

describe("a run", () => {
  async function due(schedule: Schedule, during: () => Promise<void>, pace = {}): Promise<void> {
    await insertSchedule(app.db.orm, schedule.name, new Date(0));
    await withSchedules(schedule, during, [app.deps], pace);
  }

  test("that fails is tried again after longer and longer pauses, then it has failed and operators are told once", async () => {
    const { id } = await app.createUser({ username: "operator", roles: ["admin"] });
    let runs = 0;
    const schedule = hourly(async () => {
      runs++;
      throw Object.assign(new Error("secret words"), { code: "EIO" });
    });
    await due(schedule, async () => {
      for (const [nth, pause] of PAUSES_MS.entries()) {
        const again = app.clock.now().getTime() + pause;
        await until(`the pause until ${again}`, async () => {
          const waiting = await row();
          return waiting?.state === "retry" && waiting.claimableAt?.getTime() === again;
        });
        expect(runs).toBe(nth + 1);
        app.clock.advance(pause - 1);
        await Bun.sleep(50);
        expect(runs).toBe(nth + 1);
        app.clock.advance(1);
      }
      await until("its end", async () => (await state()) === "failed");
      expect(await row()).toMatchObject({ attempt: PAUSES_MS.length + 1, error: "EIO", claimableAt: null });
      const alerts = () =>
        app.db.query<{ data: Record<string, unknown> }>("SELECT data FROM jobs.job WHERE name = 'send-mail'");
      await until("the alert", async () => (await alerts()).length > 0);
      expect((await alerts()).map(({ data }) => data)).toEqual([
        expect.objectContaining({ template: "operator_alert", user_id: id }),
      ]);
      expect(JSON.stringify(await alerts())).not.toContain("secret words");
    });
    expect(runs).toBe(PAUSES_MS.length + 1);
  });

  test("that never ends is over at its deadline", async () => {
    let aborted = false;
    const schedule = hourly((_deps, { signal }) => {
      signal.addEventListener("abort", () => {
        aborted = true;
      });
      return new Promise(() => {});
    }, 50);
    await due(schedule, async () => {
      await until("its end", async () => (await state()) === "retry");
      expect([aborted, (await row())?.error]).toEqual([true, "DEADLINE"]);
    });
  });

  test("of a process that died is taken over once nothing was heard for a while, and not before", async () => {
    const now = app.clock.now();
    const occurrence = new Date(Math.floor(now.getTime() / HOUR_MS) * HOUR_MS);
    await insertSchedule(app.db.orm, "freshness", new Date(0));
    await claimSchedule(app.db.orm, { name: "freshness", occurrence }, now, new Date(now.getTime() + 60_000));
    const attempts: unknown[] = [];
    const schedule = hourly(async () => void attempts.push((await row())?.attempt) as undefined);
    await withSchedules(schedule, async () => {
      app.clock.advance(59_999);
      await Bun.sleep(50);
      expect(attempts).toEqual([]);
      app.clock.advance(1);
      await until("the other one takes over", () => attempts.length > 0);
    });
    expect(attempts).toEqual([2]);
  });

  test("goes on for longer than the silence while its process says so", async () => {
    let end = () => {};
    let runs = 0;
    const schedule = hourly(() => {
      runs++;
      return new Promise((resolve) => {
        end = () => resolve({ good: true });
      });
    });
    await due(schedule, async () => {
      await until("it runs", () => runs === 1);
      for (let step = 0; step < 5; step++) {
        const before = (await row())?.claimableAt;
        app.clock.advance(40_000);
        await until("the next word", async () => (await row())?.claimableAt?.getTime() !== before?.getTime());
      }
      end();
      await until("its end", async () => (await state()) === "done");
      expect(await row()).toMatchObject({ attempt: 1, details: { good: true } });
    });
    expect(runs).toBe(1);
  });

  // What is mailed in the transaction of the end is mailed by the run that counts, and by no other.
  test("that was taken away cannot finish: its transaction is undone", async () => {
    const errors: unknown[] = [];
    const schedule = hourly(async (_deps, run) => {
      await app.db.query("UPDATE schedule_runs SET attempt = attempt + 1");
      await app.db
        .transaction(async (tx) => {
          await insertSchedule(tx, "written by it", new Date(0));
          await run.finish(tx, {});
        })
        .catch((error) => errors.push((error as Error).name));
      throw errors[0];
    });
    await due(schedule, () => until("its end", () => errors.length > 0));
    expect(errors).toEqual(["Interrupted"]);
    expect((await listScheduleRuns(app.db.orm)).map(({ name }) => name)).toEqual(["freshness"]);
  });

  test("that is cut short as its process stops is no failure, and begins again at once elsewhere", async () => {
    let runs = 0;
    const stuck = hourly(() => {
      runs++;
      return new Promise(() => {});
    });
    await due(stuck, () => until("it runs", () => runs === 1));
    expect(await row()).toMatchObject({ state: "retry", attempt: 0, error: null });
    const good = hourly(async (_deps, { last }) => ({ last }));
    await withSchedules(good, () => until("its end", async () => (await state()) === "done"), [other.deps]);
    expect(await row()).toMatchObject({ attempt: 1, details: { last: null } });
  });

  test("is counted by how it ended", async () => {
    const read = async () =>
      readingsOf(await app.deps.metrics.collect()).find(({ name }) => name === "primer_schedule_runs_total")?.points ??
      [];
    const done = async () => (await read()).find(({ labels }) => labels.outcome === "done")?.value ?? 0;
    const before = await done();
    await due(
      hourly(async () => ({})),
      () => until("it is counted", async () => (await done()) > before),
    );
    expect(await done()).toBe(before + 1);
  });
});

describe("once, when it is asked for", () => {
  test("runs now, knows what came before, and is not tried again", async () => {
    const good = hourly(async (_deps, { last }) => ({ before: last, seen: true }));
    expect(await runOnce(app.deps, HOME, good)).toMatchObject({ outcome: "done", details: { before: null } });
    app.clock.advance(1);
    const again = await runOnce(app.deps, HOME, good);
    expect(again?.details).toMatchObject({ before: { seen: true } });
    app.clock.advance(1);
    const bad = hourly(() => Promise.reject(new Error("no")));
    expect(await runOnce(app.deps, HOME, bad)).toMatchObject({ outcome: "failed" });
    expect(await row()).toMatchObject({ state: "failed", error: "FAILED", claimableAt: null });
  });

  test("not beside itself", async () => {
    let end = () => {};
    const slow = hourly(() => new Promise((resolve) => (end = () => resolve({}))));
    const first = runOnce(app.deps, HOME, slow);
    await until("it runs", async () => (await state()) === "running");
    app.clock.advance(1);
    expect(await runOnce(other.deps, HOME, slow)).toBeUndefined();
    end();
    expect(await first).toMatchObject({ outcome: "done" });
  });
});
