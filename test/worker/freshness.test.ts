import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BREACH_FILTER_FILE } from "../../server/features/passwords/service.ts";
import { openTestApp, type TestApp } from "../support/app.ts";
import { geoFile } from "../support/geo-file.ts";
import { mailHome } from "./support/mail.ts";
import { changeSettings, queuedMails, runSchedule } from "./support/schedules.ts";

const DAY_MS = 86_400_000;
const files = mailHome();
const { home } = files;

let app: TestApp;
beforeAll(async () => {
  app = await openTestApp();
  await app.createUser({ username: "operator", roles: ["admin"] });
});
afterAll(async () => {
  await app.close();
  files.remove();
});
beforeEach(() => app.db.query("DELETE FROM jobs.job; DELETE FROM schedule_runs; DELETE FROM mail_counters"));

const days = (count: number) => new Date(app.clock.now().getTime() - count * DAY_MS);
const geoip = (age: number) => writeFileSync(join(home, "city.mmdb"), geoFile({}, { built: days(age) }));

async function look(): Promise<Record<string, unknown>> {
  const { outcome, details } = await runSchedule(app, "freshness", home);
  expect(outcome).toBe("done");
  return { ...details, alerts: (await queuedMails(app, "operator_alert")).length };
}

describe("the GeoIP file", () => {
  test("is told of once when it has become old, and again when that happens again on another day", async () => {
    changeSettings(app, { PRIMER_ACCOUNTS__GEOIP_FILE: "city.mmdb" });
    geoip(59);
    expect(await look()).toMatchObject({ geoip: "good", alerts: 0 });
    geoip(61);
    expect(await look()).toMatchObject({ geoip: "old", alerts: 1 });
    expect(await look()).toMatchObject({ geoip: "old", alerts: 1 });
    geoip(1);
    expect(await look()).toMatchObject({ geoip: "good", alerts: 1 });
    geoip(61);
    expect(await look()).toMatchObject({ geoip: "old", alerts: 1 }); // a second one on the same day
    geoip(1);
    await look();
    app.clock.advance(DAY_MS);
    rmSync(join(home, "city.mmdb"));
    expect(await look()).toMatchObject({ geoip: "unusable", alerts: 2 });
    const changes = app.logLines.map((line) => JSON.parse(line)).filter(({ event }) => event === "freshness.changed");
    expect(changes.map(({ condition }) => condition)).toEqual(["good", "old", "good", "old", "good", "unusable"]);
  });

  test("is not looked at where there is none", async () => {
    changeSettings(app, {});
    expect(await look()).toEqual({ geoip: "unused", breached_passwords: "unused", threats: "unused", alerts: 0 });
  });
});

test("the list of breached passwords is told of where it is missing or damaged", async () => {
  changeSettings(app, { PRIMER_PASSWORD__HIBP: "offline" });
  expect(await look()).toMatchObject({ breached_passwords: "unusable", alerts: 1 });
  const path = join(home, BREACH_FILTER_FILE);
  writeFileSync(path, "no such set");
  utimesSync(path, days(1), days(1));
  expect(await look()).toMatchObject({ breached_passwords: "unusable", alerts: 1 });
});
