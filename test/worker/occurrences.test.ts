import { describe, expect, test } from "bun:test";
import { lastMidnights, lastOccurrence, nextOccurrence } from "../../worker/occurrences.ts";
import { SCHEDULES } from "../../worker/schedule.ts";
import { settingsOf } from "./support/mail.ts";

const report = SCHEDULES.find(({ name }) => name === "daily-report");
if (!report) throw new Error("There is no daily report");
const hourly = { cron: () => "20 * * * *" };

/** When the report is due, set for 02:30, around a moment. */
function around(zone: string, now: string) {
  const settings = settingsOf({ PRIMER_WORKER__TIME_ZONE: zone, PRIMER_REPORT__TIME: "02:30" });
  const at = new Date(now);
  return {
    last: lastOccurrence(report as never, settings, at)?.toISOString(),
    next: nextOccurrence(report as never, settings, at)?.toISOString(),
  };
}

describe("what is due at 02:30", () => {
  test.each([
    ["UTC", "2026-03-01T12:00:00Z", "2026-03-01T02:30:00.000Z", "2026-03-02T02:30:00.000Z"],
    ["UTC, at that very moment", "2026-03-01T02:30:00Z", "2026-03-01T02:30:00.000Z", "2026-03-02T02:30:00.000Z"],
    ["UTC, a moment before", "2026-03-01T02:29:59.999Z", "2026-02-28T02:30:00.000Z", "2026-03-01T02:30:00.000Z"],
    ["Asia/Kolkata", "2026-03-01T12:00:00Z", "2026-02-28T21:00:00.000Z", "2026-03-01T21:00:00.000Z"],
    // Clocks go from 02:00 to 03:00: it is due when they have.
    ["Europe/Vienna", "2026-03-28T12:00:00Z", "2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z"],
    ["Europe/Vienna", "2026-03-29T12:00:00Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"],
    // Clocks go from 03:00 to 02:00: it is due at the first of two times, and not at the second.
    ["Europe/Vienna", "2026-10-25T00:29:00Z", "2026-10-24T00:30:00.000Z", "2026-10-25T00:30:00.000Z"],
    ["Europe/Vienna", "2026-10-25T01:29:00Z", "2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"],
    ["Europe/Vienna", "2026-10-25T01:31:00Z", "2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"],
  ])("in %s at %s", (zone, now, last, next) => {
    expect(around(zone.split(",")[0] ?? "", now)).toEqual({ last, next });
  });

  test("in every hour of a day whose clocks change, what is due every hour is due once", () => {
    const settings = settingsOf({ PRIMER_WORKER__TIME_ZONE: "Europe/Vienna" });
    for (const day of ["2026-03-29", "2026-10-25"]) {
      const midnight = Date.parse(`${day}T00:00:00Z`);
      const hours = Array.from({ length: 24 }, (_, hour) => new Date(midnight + hour * 3_600_000 + 21 * 60_000));
      const due = hours.map((now) => lastOccurrence(hourly, settings, now)?.getTime());
      expect(due).toEqual(hours.map((now) => now.getTime() - 60_000));
    }
  });

  test("is due never while it is switched off", () => {
    const settings = settingsOf({ PRIMER_REPORT__ENABLED: "false" });
    const now = new Date("2026-03-01T12:00:00Z");
    expect([lastOccurrence(report, settings, now), nextOccurrence(report, settings, now)]).toEqual([
      undefined,
      undefined,
    ]);
  });
});

test.each([
  ["UTC", "2026-03-01T00:00:00Z", ["2026-03-01T00:00:00.000Z", "2026-02-28T00:00:00.000Z"]],
  // 23 hours, and 25.
  ["Europe/Vienna", "2026-03-30T10:00:00Z", ["2026-03-29T22:00:00.000Z", "2026-03-28T23:00:00.000Z"]],
  ["Europe/Vienna", "2026-10-26T10:00:00Z", ["2026-10-25T23:00:00.000Z", "2026-10-24T22:00:00.000Z"]],
  // A day that begins at one.
  ["Africa/Cairo", "2026-04-25T10:00:00Z", ["2026-04-24T21:00:00.000Z", "2026-04-23T22:00:00.000Z"]],
])("days in %s before %s", (zone, now, midnights) => {
  expect(lastMidnights(zone, new Date(now), 2).map((at) => at.toISOString())).toEqual(midnights);
});
