import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { matchesNetwork } from "../../config/kinds.ts";
import { lookAtLists, refreshLists } from "../../server/features/threats/service.ts";
import { openTestApp, type TestApp } from "../support/app.ts";
import { type ListBehaviour, type ListService, startListService, sumOf } from "../support/list-service.ts";
import { changeSettings, queuedMails, runSchedule } from "./support/schedules.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const LIST = "; comment\n198.51.100.0/24 ; SBL1\n\n# another\n2001:db8:bad::/48\n203.0.113.9\n";
const [BAD, BAD6, SINGLE, GOOD] = ["198.51.100.77", "2001:db8:bad:1::5", "203.0.113.9", "203.0.113.10"];
/** From the documentation of minisign's libraries: a key, and its signature of the four bytes "test". */
const MINISIGN_KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
const SIGNATURE = `untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1633700835\tfile:test\tprehashed
wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==
`;

const home = mkdtempSync(join(tmpdir(), "primer-threats-"));
let app: TestApp;
let lists: ListService;
beforeAll(async () => {
  app = await openTestApp();
  await app.createUser({ username: "operator", roles: ["admin"] });
  lists = await startListService();
});
afterAll(async () => {
  await app.close();
  lists.stop();
  rmSync(home, { recursive: true, force: true });
});
beforeEach(async () => {
  await app.db.query(
    "DELETE FROM threat_lists; DELETE FROM jobs.job; DELETE FROM mail_counters; DELETE FROM schedule_runs",
  );
  changeSettings(app, {});
  await app.deps.threats.reread();
  Object.assign(lists, { behaviour: "good", files: { "/bad.txt": LIST } });
  lists.requests.length = 0;
});

const configure = (sources: string, more: Readonly<Record<string, string>> = {}) =>
  changeSettings(app, { PRIMER_THREATS__SOURCES: sources, ...more });
const refresh = (answerMs = 300, maxBytes = 1_000_000) =>
  refreshLists(app.deps, { home, signal: new AbortController().signal, answerMs, maxBytes });
const listed = (...ips: string[]) => ips.map((ip) => app.deps.threats.isListed(ip));
const conditions = () => lookAtLists(app.db.orm, app.deps.settings);

describe("a list", () => {
  test("is read from a URL, once in threats.refresh_every, and whenever somebody asks for the schedule", async () => {
    configure(`${lists.url}/bad.txt?key=secret`);
    expect(await refresh()).toEqual({ taken: 1 });
    expect(listed(BAD, BAD6, SINGLE, GOOD, `::ffff:${BAD}`)).toEqual([true, true, true, false, true]);
    expect(await refresh()).toEqual({ waiting: 1 });
    expect(lists.requests).toHaveLength(1);
    app.clock.advance(6 * HOUR);
    expect(await refresh()).toEqual({ unchanged: 1 });
    lists.files["/bad.txt"] = "203.0.113.10\n";
    expect((await runSchedule(app, "threat-lists", home)).details).toEqual({ taken: 1 });
    expect(listed(BAD, GOOD)).toEqual([false, true]);
    const shown = JSON.stringify([app.logLines, await app.db.query("SELECT * FROM threat_lists"), await conditions()]);
    expect(shown).not.toContain("secret");
  });

  test("is read from a file, as Spamhaus writes JSON", async () => {
    const lines = ['{"cidr":"198.51.100.0/24","sblid":"SBL1","rir":"ripencc"}', '{"type":"metadata","timestamp":1}'];
    writeFileSync(join(home, "drop.json"), lines.join("\n"));
    configure("drop.json");
    expect(await refresh()).toEqual({ taken: 1 });
    expect(listed(BAD, GOOD)).toEqual([true, false]);
  });

  // Every node knows the same, and one that starts without a network knows what was known before.
  test("is known to other processes, and after a restart while nothing can be had", async () => {
    configure(`${lists.url}/bad.txt`);
    await refresh();
    lists.behaviour = "dropped";
    const { deps: other } = await app.otherNode();
    other.settings = app.deps.settings;
    await other.threats.reread();
    expect(other.threats.isListed(BAD)).toBe(true);
    configure("");
    await app.deps.threats.reread();
    expect(listed(BAD)).toEqual([false]);
    await refresh();
    expect(await app.db.query("SELECT 1 FROM threat_lists")).toEqual([]);
  });
});

// A list that is damaged, cut off, empty, too large or late changes nothing: the one from before stays.
describe("what is of no use is refused", () => {
  const FAULTS: readonly (readonly [ListBehaviour, "refused" | "unreachable"])[] = [
    ["hung", "unreachable"],
    ["stalled", "unreachable"],
    ["dripping", "unreachable"],
    ["cutOff", "unreachable"],
    ["halfALine", "refused"],
    ["dropped", "unreachable"],
    ["status404", "unreachable"],
    ["status503", "unreachable"],
    ["redirect", "unreachable"],
    ["packed", "unreachable"],
    ["page", "refused"],
    ["nothing", "refused"],
    ["everything", "refused"],
    ["endless", "refused"],
  ];
  test.each(FAULTS)("%s", async (behaviour, outcome) => {
    configure(`${lists.url}/bad.txt?key=canary`);
    await refresh();
    app.clock.advance(6 * HOUR);
    lists.behaviour = behaviour;
    const began = performance.now();
    expect(await refresh()).toEqual({ [outcome]: 1 });
    expect(performance.now() - began).toBeLessThan(3000);
    expect(listed(BAD, GOOD)).toEqual([true, false]);
    const [condition] = await conditions();
    expect([condition?.count, typeof condition?.problem]).toEqual([3, "string"]);
    const line = app.logLines.map((text) => JSON.parse(text)).findLast(({ event }) => event === "threats.refreshed");
    expect([line.level, line.outcome]).toEqual(["warn", outcome]);
    expect(JSON.stringify([app.logLines, condition])).not.toContain("canary");
    lists.behaviour = "good";
    app.clock.advance(15 * MINUTE);
    expect(await refresh()).toEqual({ unchanged: 1 });
    expect((await conditions())[0]?.problem).toBeNull();
  });

  const CONTENTS: readonly (readonly [string, string])[] = [
    ["a line that is none", "198.51.100.0/24\nbad.example.org\n"],
    ["a network of IPv4 that is too large", "198.0.0.0/7\n"],
    ["a network of IPv6 that is too large", "2000::/3\n"],
    ["a prefix that is too long", "198.51.100.0/33\n"],
    ["only private networks", "10.0.0.0/8\n127.0.0.1\nfc00::/7\n::1\n"],
    ["JSON that is cut off", '{"cidr":"198.51.100.0/24"}\n{"cidr":"198.5\n'],
    ["more than half of all addresses", Array.from({ length: 150 }, (_, n) => `${n + 11}.0.0.0/8\n`).join("")],
  ];
  test.each(CONTENTS)("%s", async (_name, content) => {
    lists.files["/bad.txt"] = content;
    configure(`${lists.url}/bad.txt`);
    expect(await refresh()).toEqual({ refused: 1 });
    expect(await conditions()).toMatchObject([{ takenAt: null, count: 0 }]);
  });

  test("again and again: it is left alone for longer each time, and the others go on", async () => {
    lists.files["/other.txt"] = "203.0.113.10\n";
    configure(`${lists.url}/gone.txt,${lists.url}/other.txt`);
    expect(await refresh()).toEqual({ unreachable: 1, taken: 1 });
    for (const [minutes, outcome] of [
      [14, "waiting"],
      [1, "unreachable"],
      [29, "waiting"],
      [1, "unreachable"],
      [59, "waiting"],
      [1, "unreachable"],
    ] as const) {
      app.clock.advance(minutes * MINUTE);
      expect((await refresh())[outcome]).toBeGreaterThanOrEqual(1);
    }
    expect(lists.requests.filter((url) => url === "/gone.txt")).toHaveLength(4);
    expect(listed(GOOD)).toEqual([true]);
  });
});

// What somebody on the way or on the list's server changes is noticed.
describe("a list that has to be proven", () => {
  test.each<[string, string | undefined, object]>([
    ["a right checksum", sumOf(LIST), { taken: 1 }],
    ["the digest alone, in capitals", sumOf(LIST).slice(0, 64).toUpperCase(), { taken: 1 }],
    ["another file's checksum", sumOf("other"), { refused: 1 }],
    ["a checksum that is cut off", sumOf(LIST).slice(0, 63), { refused: 1 }],
    ["no checksum", undefined, { unreachable: 1 }],
  ])("%s", async (_name, sum, outcome) => {
    if (sum !== undefined) lists.files["/bad.txt.sha256"] = sum;
    configure(`sha256+${lists.url}/bad.txt`);
    expect(await refresh()).toEqual(outcome as never);
    expect(listed(BAD)).toEqual([sum !== undefined && "taken" in outcome]);
  });

  const signatureOf = (change: (lines: string[]) => void): string => {
    const lines = SIGNATURE.split("\n");
    change(lines);
    return lines.join("\n");
  };
  // "test" is no network: a signature that holds leads to the complaint about that.
  test.each<[string, string, string, RegExp]>([
    ["a right signature", SIGNATURE, "test", /no network/],
    ["a changed file", SIGNATURE, "tesT", /signature/],
    [
      "a changed comment",
      signatureOf((lines) => lines.splice(2, 1, "trusted comment: timestamp:1")),
      "test",
      /signature/,
    ],
    [
      "another key's id",
      signatureOf((lines) => lines.splice(1, 1, `RUQf6LRCGA9j${lines[1]?.slice(12)}`)),
      "test",
      /signature/,
    ],
    ["a signature that is cut off", SIGNATURE.slice(0, 120), "test", /signature/],
  ])("%s", async (_name, signature, content, problem) => {
    Object.assign(lists.files, { "/bad.txt": content, "/bad.txt.minisig": signature });
    configure(`minisign+${lists.url}/bad.txt`, { PRIMER_THREATS__PUBLIC_KEY: MINISIGN_KEY });
    expect(await refresh()).toEqual({ refused: 1 });
    expect((await conditions())[0]?.problem).toMatch(problem);
  });
});

// An address is listed exactly if a network of the list holds it, however they overlap (of IPv6 down to the /64).
test("a thousand networks: what is in them is as node:net says", async () => {
  const random = ((seed) => (below: number) => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * below);
  })(11);
  const four = () => `${20 + random(3)}.${random(4)}.${random(256)}.${random(256)}`;
  const six = () => `2001:db8:${random(4).toString(16)}:${random(65536).toString(16)}::${random(9)}`;
  const networks = Array.from({ length: 1000 }, (_, index) =>
    index % 2 ? `${four()}/${18 + random(15)}` : `${six()}/${52 + random(13)}`,
  );
  lists.files["/bad.txt"] = `${networks.join("\n")}\n`;
  configure(`${lists.url}/bad.txt`);
  expect(await refresh()).toEqual({ taken: 1 });
  const expected = matchesNetwork(networks);
  const edges = networks.map((network) => network.split("/")[0] as string);
  const ips = [...edges, ...Array.from({ length: 4000 }, (_, index) => (index % 2 ? four() : six()))];
  const found = ips.filter((ip) => app.deps.threats.isListed(ip));
  expect(found).toEqual(ips.filter(expected));
  expect(found.length).toBeLessThan(ips.length);
});

// No list can lock operators out of their own machines, nor everybody behind a proxy.
test("private networks, trusted proxies and threats.except are never listed", async () => {
  lists.files["/bad.txt"] = "172.0.0.0/8\n192.0.0.0/8\n203.0.113.0/24\n198.51.100.0/24\n100.0.0.0/8\n";
  configure(`${lists.url}/bad.txt`, {
    PRIMER_SERVER__TRUSTED_PROXIES: "203.0.113.9",
    PRIMER_THREATS__EXCEPT: "198.51.100.64/26",
  });
  await refresh();
  const spared = ["127.0.0.1", "::1", "172.16.9.9", "192.168.1.1", "10.1.2.3", "100.64.1.1", SINGLE, BAD, "fe80::1"];
  expect(listed(...spared)).toEqual(spared.map(() => false));
  expect(listed("172.32.0.1", "192.0.2.1", GOOD, "198.51.100.1", "100.1.1.1")).toEqual(Array(5).fill(true));
});

test("a list that was never read, and one that has become old, is told of", async () => {
  lists.behaviour = "dropped";
  configure(`${lists.url}/bad.txt`);
  const look = async () => {
    const { details } = await runSchedule(app, "freshness", home);
    return [details.threats, (await queuedMails(app, "operator_alert")).length];
  };
  expect(await look()).toEqual(["unusable", 1]);
  lists.behaviour = "good";
  await refresh();
  expect(await look()).toEqual(["good", 1]);
  app.clock.advance(7 * DAY + MINUTE);
  expect(await look()).toEqual(["old", 2]);
});
