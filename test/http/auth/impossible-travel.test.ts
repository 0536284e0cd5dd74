import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { insertLoginRecord } from "../../../db/queries/logins.ts";
import { PASSWORD, type TestAnswer } from "../../support/app.ts";
import { city, geoFile } from "../../support/geo-file.ts";
import { type HttpApp, openListeningApp } from "../support/http-app.ts";
import { stepsOf } from "../support/observe.ts";

const LOGIN = "/api/v1/auth/login";
const MINUTE = 60_000;
const BERLIN_AT = [52.52, 13.405] as const;
const NEW_YORK_AT = [40.713, -74.006] as const;

/** Each place in a network of its own, and its distance from Berlin. */
const NETWORKS = {
  "198.18.1.0/24": city("Berlin", "Germany", BERLIN_AT, 20),
  "198.18.2.0/24": city("Berlin", "Germany", BERLIN_AT, 20),
  "198.18.3.0/24": city("Hamburg", "Germany", [53.551, 9.994], 20), // 255 km
  "198.18.4.0/24": city("Munich", "Germany", [48.137, 11.576], 20), // 504 km
  "198.18.5.0/24": city("Paris", "France", [48.857, 2.352], 20), // 878 km
  "198.18.6.0/24": city("New York", "United States", NEW_YORK_AT, 20), // 6,385 km
  "198.18.7.0/24": city("Paris", "France", [48.857, 2.352], 400),
  "198.18.8.0/24": { ...city("New York", "United States", NEW_YORK_AT, 20), traits: { is_anycast: true } },
  "198.18.9.0/24": { country: { names: { en: "United States" } } },
  "2001:db8:1::/48": city("Berlin", "Germany", BERLIN_AT, 20),
  "2001:db8:2::/48": city("New York", "United States", NEW_YORK_AT, 20),
};
const [BERLIN, BERLIN_TOO, HAMBURG, MUNICH, PARIS] = [1, 2, 3, 4, 5].map((net) => `198.18.${net}.7`) as [
  string,
  string,
  string,
  string,
  string,
];
const [NEW_YORK, PARIS_ROUGHLY, ANYWHERE, SOMEWHERE, UNKNOWN] = [6, 7, 8, 9, 200].map((net) => `198.18.${net}.7`) as [
  string,
  string,
  string,
  string,
  string,
];
const TRAVEL = "impossible_travel";

const folder = mkdtempSync(join(tmpdir(), "primer-travel-"));
const path = join(folder, "places.mmdb");
let app: HttpApp;
beforeAll(async () => {
  writeFileSync(path, geoFile(NETWORKS));
  app = await openListeningApp({
    PRIMER_SERVER__TRUSTED_PROXIES: "127.0.0.1",
    PRIMER_ACCOUNTS__GEOIP_FILE: path,
  });
  await app.deps.geo.reread();
});
afterAll(async () => {
  await app.close();
  rmSync(folder, { recursive: true, force: true });
});

let made = 0;
async function someone() {
  const { id, username } = await app.createUser({ username: `user${made++}` });
  const logIn = async (ip: string, body: object = {}): Promise<TestAnswer> =>
    app.request("POST", LOGIN, {
      body: { username, password: PASSWORD, ...body },
      headers: { "x-forwarded-for": ip, "user-agent": "Firefox" },
    });
  /** What the log says of this user's sign-ins: its event, then the signals. */
  const events = (): string[][] =>
    app.logLines
      .map((line) => JSON.parse(line))
      .filter(({ event, user_id }) => user_id === id && /^login\.(unusual|suspicious)$/.test(event))
      .map(({ event, signals }) => [event, ...signals]);
  return { id, logIn, events };
}

const NOTHING: readonly string[] = [];
const NEW_NETWORK = ["login.unusual", "new_network"];
const IMPOSSIBLE = ["login.suspicious", "new_network", TRAVEL];

// Two sign-ins that one person cannot have made are suspicious, and those that one can have made are not.
describe("a second sign-in", () => {
  const JOURNEYS: readonly (readonly [string, string, string, number, readonly string[]])[] = [
    ["the same network", BERLIN, BERLIN, 1, NOTHING],
    ["the same city", BERLIN, BERLIN_TOO, 0, NEW_NETWORK],
    ["255 km at the same moment", BERLIN, HAMBURG, 0, NEW_NETWORK],
    ["504 km at the same moment, give or take 20 at each end", BERLIN, MUNICH, 0, NEW_NETWORK],
    ["878 km at the same moment", BERLIN, PARIS, 0, IMPOSSIBLE],
    ["878 km, give or take 400", BERLIN, PARIS_ROUGHLY, 0, NEW_NETWORK],
    ["878 km, give or take 400 at its beginning", PARIS_ROUGHLY, BERLIN, 0, NEW_NETWORK],
    ["878 km in 55 minutes", BERLIN, PARIS, 55, IMPOSSIBLE],
    ["878 km in 57 minutes", BERLIN, PARIS, 57, NEW_NETWORK],
    ["6,385 km in 10 minutes", BERLIN, NEW_YORK, 10, IMPOSSIBLE],
    ["6,385 km in 7 hours", BERLIN, NEW_YORK, 7 * 60, IMPOSSIBLE],
    ["6,385 km in 7 hours and 4 minutes", BERLIN, NEW_YORK, 7 * 60 + 4, NEW_NETWORK],
    ["6,385 km in a month", BERLIN, NEW_YORK, 30 * 24 * 60, NEW_NETWORK],
    ["and back", NEW_YORK, BERLIN, 10, IMPOSSIBLE],
    ["IPv4 written as IPv6", BERLIN, `::ffff:${NEW_YORK}`, 10, IMPOSSIBLE],
    ["IPv4 written as IPv6 in hexadecimal", BERLIN, "::ffff:c612:607", 10, IMPOSSIBLE],
    ["from IPv4 to IPv6 at the same place", BERLIN, "2001:db8:1::7", 0, NEW_NETWORK],
    ["from IPv4 to IPv6 far away", BERLIN, "2001:db8:2::7", 10, IMPOSSIBLE],
    ["from IPv6 to IPv6 far away", "2001:db8:1::7", "2001:db8:2::7", 10, IMPOSSIBLE],
    ["an address that nothing is known of", BERLIN, UNKNOWN, 0, NEW_NETWORK],
    ["a country without a place", BERLIN, SOMEWHERE, 0, NEW_NETWORK],
    ["an address that is in many places", BERLIN, ANYWHERE, 0, NEW_NETWORK],
    ["a private address", BERLIN, "10.1.2.3", 0, NEW_NETWORK],
    ["this machine", BERLIN, "127.0.0.1", 0, NEW_NETWORK],
    ["a private address of IPv6", BERLIN, "fd00::7", 0, NEW_NETWORK],
    ["from a private address", "192.168.1.7", NEW_YORK, 0, NEW_NETWORK],
  ];
  test.each(JOURNEYS)("%s", async (_name, from, to, minutes, expected) => {
    const user = await someone();
    expect((await user.logIn(from)).status).toBe(200);
    app.clock.advance(minutes * MINUTE);
    expect((await user.logIn(to)).status).toBe(200);
    expect(user.events()).toEqual(expected.length === 0 ? [] : [[...expected]]);
  });

  test("that is too far away is told to its owner, once, with the reason", async () => {
    const user = await someone();
    await user.logIn(BERLIN);
    await user.logIn(NEW_YORK);
    const jobs = await app.db.query<{ data: object }>("SELECT data FROM jobs.job WHERE data->>'user_id' = $1", [
      user.id,
    ]);
    expect(jobs.map(({ data }) => data)).toMatchObject([
      { template: "suspicious_sign_in", signals: ["new_network", TRAVEL] },
    ]);
  });
});

describe("of several sign-ins", () => {
  test("the last one whose place is known counts", async () => {
    const user = await someone();
    await user.logIn(BERLIN);
    app.clock.advance(8 * 60 * MINUTE);
    await user.logIn(NEW_YORK);
    await user.logIn(UNKNOWN);
    await user.logIn("2001:db8:2::7");
    expect(user.events().filter((event) => event.includes(TRAVEL))).toEqual([]);
    await user.logIn(UNKNOWN);
    await user.logIn(PARIS);
    expect(user.events().at(-1)).toEqual(IMPOSSIBLE);
  });

  // Whoever goes back and forth between a VPN and their home is told once, and not every day.
  test("a network from which there was one before is no journey", async () => {
    const user = await someone();
    for (const ip of [BERLIN, NEW_YORK, BERLIN, NEW_YORK, BERLIN]) await user.logIn(ip);
    expect(user.events()).toEqual([IMPOSSIBLE]);
  });

  test("those that failed do not count", async () => {
    const user = await someone();
    await user.logIn(BERLIN);
    expect((await user.logIn(NEW_YORK, { password: "not the right horse battery" })).status).toBe(401);
    await user.logIn(BERLIN_TOO);
    expect(user.events()).toEqual([NEW_NETWORK]);
  });

  test("those of others do not count", async () => {
    const [one, other] = [await someone(), await someone()];
    await one.logIn(BERLIN);
    await other.logIn(NEW_YORK);
    expect([one.events(), other.events()]).toEqual([[], []]);
  });

  test("one that another node has dated later counts as of now", async () => {
    for (const [ip, expected] of [
      [HAMBURG, NEW_NETWORK],
      [NEW_YORK, IMPOSSIBLE],
    ] as const) {
      const user = await someone();
      const at = new Date(app.clock.now().getTime() + 10_000);
      await insertLoginRecord(app.db.orm, {
        id: app.deps.random.id(at),
        userId: user.id,
        outcome: "success",
        reason: "password",
        ip: BERLIN,
        userAgent: "Firefox",
        createdAt: at,
      });
      await user.logIn(ip);
      expect(user.events()).toEqual([expected as string[]]);
    }
  });
});

test("a known device may be anywhere", async () => {
  const user = await someone();
  const { device_token } = (await user.logIn(BERLIN, { remember_device: true })).body;
  await user.logIn(NEW_YORK, { device_token });
  expect(user.events()).toEqual([]);
  await user.logIn(PARIS);
  expect(user.events()).toEqual([IMPOSSIBLE]);
});

// The place of an address is looked up in memory: a login asks the database for nothing more.
test("a login takes the same steps with a GeoIP file as without", async () => {
  const user = await someone();
  await user.logIn(BERLIN);
  const stepsFrom = (ip: string) => stepsOf(app.deps, async () => expect((await user.logIn(ip)).status).toBe(200));
  const [known, unknown] = [await stepsFrom(HAMBURG), await stepsFrom(UNKNOWN)];
  expect(known.length).toBeGreaterThan(10);
  expect(known).toEqual(unknown);
});

// A file that is replaced, cut off or taken away costs nobody a login.
test("logins go on while the file is replaced, cut off and taken away", async () => {
  const user = await someone();
  await user.logIn(BERLIN);
  const moved = { ...NETWORKS, "198.18.6.0/24": city("Berlin", "Germany", BERLIN_AT, 20) };
  const whole = geoFile(NETWORKS);
  const changes = [() => writeFileSync(path, geoFile(moved)), () => writeFileSync(path, whole.subarray(0, 400))];
  for (const change of [...changes, () => rmSync(path), () => writeFileSync(path, whole)]) {
    change();
    const [, ...answers] = await Promise.all([
      app.deps.geo.reread(),
      ...Array.from({ length: 4 }, () => user.logIn(UNKNOWN)),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
  }
  const refused = app.logLines.map((line) => JSON.parse(line)).filter(({ event }) => event === "geoip.refused");
  expect(refused.map(({ level }) => level)).toEqual(["warn", "warn"]);
  await user.logIn(NEW_YORK);
  expect(user.events().at(-1)).toEqual(IMPOSSIBLE);
});

// Without a file there is no such signal, and everything else is as it was.
test.each([
  ["none is configured", ""],
  ["it is not there", join(folder, "nowhere.mmdb")],
])("without a file, because %s, only the new network is seen", async (_name, file) => {
  const { settings } = app.deps;
  app.deps.settings = { ...settings, accounts: { ...settings.accounts, geoip_file: "" } };
  await app.deps.geo.reread();
  app.deps.settings = { ...settings, accounts: { ...settings.accounts, geoip_file: file } };
  await app.deps.geo.reread();
  const user = await someone();
  await user.logIn(BERLIN);
  await user.logIn(NEW_YORK);
  expect(user.events()).toEqual([NEW_NETWORK]);
  app.deps.settings = settings;
  await app.deps.geo.reread();
});
