import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { city, geoFile } from "../support/geo-file.ts";
import { runPrimer } from "../support/server.ts";
import { ADMIN, jsonOf, openScratch } from "./support/home.ts";
import { login, serve } from "./support/serve.ts";

const SETTING = { PRIMER_ACCOUNTS__GEOIP_FILE: "places.mmdb" };
const DAY_MS = 86_400_000;
const daysAgo = (days: number) => new Date(Date.now() - days * DAY_MS);
const CITIES = { "198.18.1.0/24": city("Berlin", "Germany", [52.52, 13.41], 20) };
const FRESH = geoFile(CITIES, { built: daysAgo(3) });

const scratch = openScratch();
let home: string;
beforeAll(async () => {
  home = await scratch.home();
});
afterAll(() => scratch.remove());

interface Case {
  readonly name: string;
  readonly file: Uint8Array | string | undefined;
  readonly check: number;
  readonly doctor: { readonly state: string; readonly exitCode: number };
}

const CASES: readonly Case[] = [
  { name: "a file of three days ago", file: FRESH, check: 0, doctor: { state: "ok", exitCode: 0 } },
  {
    name: "one of two months ago",
    file: geoFile(CITIES, { built: daysAgo(62) }),
    check: 0,
    doctor: { state: "warning", exitCode: 0 },
  },
  { name: "one that is not there", file: undefined, check: 2, doctor: { state: "failed", exitCode: 4 } },
  { name: "one that is cut off", file: FRESH.subarray(0, 200), check: 2, doctor: { state: "failed", exitCode: 4 } },
  { name: "a page of text", file: "<html></html>", check: 2, doctor: { state: "failed", exitCode: 4 } },
];

function put(file: Case["file"]): void {
  if (file === undefined) rmSync(join(home, "places.mmdb"), { force: true });
  else writeFileSync(join(home, "places.mmdb"), file);
}

// Whoever configures a file learns before it matters whether it does its work.
describe("with accounts.geoip_file, `config check` and `doctor` judge", () => {
  test.each(CASES)("$name", async ({ file, check, doctor }) => {
    put(file);
    const ask = (...args: string[]) => runPrimer([...args, "--json", "--dir", home], { environment: SETTING });
    const [checked, examined] = await Promise.all([ask("config", "check"), ask("doctor")]);
    expect(checked.exitCode).toBe(check);
    if (check !== 0) expect(jsonOf(checked).error.message).toContain(join(home, "places.mmdb"));
    const findings: { check: string; state: string; mend?: string }[] = jsonOf(examined).findings;
    const finding = findings.find((one) => one.check === "GeoIP");
    expect({ state: finding?.state, exitCode: examined.exitCode }).toEqual(doctor);
    expect(finding?.mend === undefined).toBe(doctor.state === "ok");
  });

  test("nothing where none is configured", async () => {
    const findings: { check: string }[] = jsonOf(await runPrimer(["doctor", "--json", "--dir", home])).findings;
    expect(findings.map((one) => one.check)).not.toContain("GeoIP");
  });
});

// What is wrong with the file is no reason not to serve, and it is mended without a restart.
test("serve warns of a file that is not there, takes it when it comes, and again at SIGHUP", async () => {
  put(undefined);
  const serving = await serve(home, { environment: SETTING });
  try {
    expect((await serving.untilLogged("geoip.refused")).level).toBe("warn");
    expect((await login(serving.url, ADMIN.username, ADMIN.password)).status).toBe(200);
    put(FRESH);
    expect(await serving.untilLogged("geoip.read")).toMatchObject({ type: "GeoLite2-City", path: expect.any(String) });
    serving.signal("SIGHUP");
    await serving.untilLogged("geoip.read", 1);
    expect((await login(serving.url, ADMIN.username, ADMIN.password)).status).toBe(200);
  } finally {
    expect(await serving.stop()).toBe(0);
  }
});
