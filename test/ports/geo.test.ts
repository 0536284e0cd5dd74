import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { OperatorError } from "../../config/errors.ts";
import { createLog } from "../../config/log.ts";
import { type Geo, openGeo } from "../../server/ports/geo.ts";
import { readGeoFile } from "../../server/ports/geo-file.ts";
import { until } from "../cli/support/serve.ts";
import { seededRandom } from "../http/support/random.ts";
import { city, type GeoValue, geoFile } from "../support/geo-file.ts";

const folder = mkdtempSync(join(tmpdir(), "primer-geo-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const BERLIN = city("Berlin", "Germany", [52.52, 13.41], 20);
const SYDNEY = city("Sydney", "Australia", [-33.87, 151.21], 50);
const WHOLE = geoFile({ "198.18.1.0/24": BERLIN, "2001:db8:1::/48": SYDNEY });

const write = (name: string, bytes: Uint8Array | string) => writeFileSync(join(folder, name), bytes);

describe("a place", () => {
  const location = { latitude: 1.5, longitude: -2.5 };
  const spot = { latitude: 1.5, longitude: -2.5 };
  const RECORDS: readonly (readonly [string, GeoValue, object | undefined])[] = [
    [
      "a city with its accuracy",
      BERLIN,
      { city: "Berlin", country: "Germany", latitude: 52.52, longitude: 13.41, accuracyKm: 20 },
    ],
    ["a city without: 100 km", { city: { names: { en: "X" } }, location }, { city: "X", ...spot, accuracyKm: 100 }],
    [
      "a country, its name in no English: 1000 km",
      { country: { iso_code: "FR", names: { de: "Frankreich" } }, location },
      { country: "FR", ...spot, accuracyKm: 1000 },
    ],
    ["a point and nothing else: 1000 km", { location }, { ...spot, accuracyKm: 1000 }],
    ["a country without a point", { country: { iso_code: "FR" } }, undefined],
    ["half a point", { location: { latitude: 1.5 } }, undefined],
    ["nothing at all", {}, undefined],
    ["many places at once", { location, traits: { is_anycast: true } }, undefined],
    ["a satellite", { location, traits: { is_satellite_provider: true } }, undefined],
  ];
  test.each(RECORDS)("%s", async (_name, record, place) => {
    write("record.mmdb", geoFile({ "198.18.1.0/24": record }));
    expect((await readGeoFile("record.mmdb", folder)).placeOf("198.18.1.77")).toEqual(place as never);
  });

  test.each([
    ["198.18.1.0", "Berlin"],
    ["198.18.1.255", "Berlin"],
    ["198.18.0.255", undefined],
    ["198.18.2.0", undefined],
    ["2001:db8:1::", "Sydney"],
    ["2001:DB8:1:ffff:ffff:ffff:ffff:ffff", "Sydney"],
    ["2001:db8:2::", undefined],
    ["127.0.0.1", undefined],
    ["10.1.2.3", undefined],
    ["192.168.1.1", undefined],
    ["fd00::1", undefined],
    ["fe80::1%eth0", undefined],
    ["::1", undefined],
    ["", undefined],
    ["198.18.1", undefined],
    ["berlin", undefined],
  ])("of %s: %s", async (ip, name) => {
    write("whole.mmdb", WHOLE);
    expect((await readGeoFile("whole.mmdb", folder)).placeOf(ip)?.city).toBe(name as string);
  });

  test("of IPv6 in a file that has IPv4 alone: none", async () => {
    // 2001:: begins with the bits of 32.1.0.0
    write("four.mmdb", geoFile({ "32.1.0.0/16": BERLIN }, { ipVersion: 4 }));
    const file = await readGeoFile("four.mmdb", folder);
    expect(file.placeOf("32.1.2.3")?.city).toBe("Berlin");
    expect(file.placeOf("2001::5")).toBeUndefined();
  });
});

/** Zeros where the records are. */
const withoutData = () => {
  const bytes = Buffer.from(geoFile({ "1.0.0.0/8": BERLIN }));
  const begin = bytes.indexOf(Buffer.alloc(16)) + 16;
  return bytes.fill(0, begin, bytes.indexOf("MaxMind.com") - 3);
};

// A file that is of no use is said to be, with what to do, and is never half used.
describe("a file of no use", () => {
  const FILES: readonly (readonly [string, () => void])[] = [
    ["is not there", () => {}],
    ["is a folder", () => mkdirSync(join(folder, "bad.mmdb"))],
    ["is empty", () => write("bad.mmdb", "")],
    ["is something else", () => write("bad.mmdb", "network,latitude,longitude\n".repeat(100))],
    ["is still packed", () => write("bad.mmdb", gzipSync(WHOLE))],
    ["has lost its beginning", () => write("bad.mmdb", WHOLE.subarray(12))],
    ["has lost its records", () => write("bad.mmdb", withoutData())],
    ["has countries alone", () => write("bad.mmdb", geoFile({ "1.0.0.0/8": { country: { iso_code: "AU" } } }))],
    ["is laid out otherwise", () => write("bad.mmdb", geoFile({ "1.0.0.0/8": { latitude: 1.5, longitude: 2.5 } }))],
    ["has a place beyond the pole", () => write("bad.mmdb", geoFile({ "1.0.0.0/8": city("X", "X", [91, 0]) }))],
  ];
  test.each(FILES)("%s", async (_name, make) => {
    rmSync(join(folder, "bad.mmdb"), { recursive: true, force: true });
    make();
    const error = await readGeoFile("bad.mmdb", folder).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(OperatorError);
    expect(error).toMatchObject({ exitCode: 2, hint: expect.any(String) });
    expect(error.message).toContain(`accounts.geoip_file: ${join(folder, "bad.mmdb")}`);
  });

  test("is cut off anywhere", async () => {
    for (let bytes = 0; bytes < WHOLE.length; bytes++) {
      write("cut.mmdb", WHOLE.subarray(0, bytes));
      const refused = await readGeoFile("cut.mmdb", folder).catch(() => "refused");
      expect({ bytes, refused }).toEqual({ bytes, refused: "refused" });
    }
  });
});

describe("places while a process runs", () => {
  let geo: Geo;
  let file: string;
  let lines: string[];
  beforeEach(() => {
    file = "live.mmdb";
    lines = [];
    write(file, WHOLE);
    const log = createLog(
      () => "info",
      { write: (line) => lines.push(line) },
      () => new Date(0),
    );
    geo = openGeo({ home: folder, file: () => file, log });
  });
  afterEach(() => geo.close());
  const events = () => lines.map((line) => JSON.parse(line).event);
  const here = () => geo.placeOf("198.18.1.1")?.city;
  const swap = (bytes: Uint8Array) => {
    write("next.mmdb", bytes);
    renameSync(join(folder, "next.mmdb"), join(folder, file));
  };

  test("nothing is configured any more: nothing is known", async () => {
    await geo.reread();
    expect(here()).toBe("Berlin");
    file = "";
    await geo.reread();
    expect([here(), events().includes("geoip.refused")]).toEqual([undefined, false]);
  });

  // A file that is of no use is said to be, and a better one is found by itself.
  test("the file is cut off, then replaced, and nobody says so", async () => {
    await until("the file as it begins", () => here() === "Berlin");
    write(file, WHOLE.subarray(0, 300));
    await until("the refusal", () => events().at(-1) === "geoip.refused");
    expect(here()).toBe("Berlin");
    swap(geoFile({ "198.18.1.0/24": SYDNEY }));
    await until("the next file", () => here() === "Sydney");
    expect(events()).toEqual(["geoip.read", "geoip.refused", "geoip.read"]);
  });

  test("a file that goes away is used until there is another one", async () => {
    await geo.reread();
    rmSync(join(folder, file));
    await geo.reread();
    expect([here(), events().at(-1)]).toEqual(["Berlin", "geoip.refused"]);
  });

  // No lookup meets a file that is half read.
  test("each lookup sees one file or the other while they are swapped", async () => {
    await geo.reread();
    const seen = new Set<string | undefined>();
    for (let round = 0; round < 20; round++) {
      swap(round % 2 ? WHOLE : geoFile({ "198.18.1.0/24": SYDNEY }));
      let done = false;
      const swapped = geo.reread().then(() => {
        done = true;
      });
      while (!done) {
        seen.add(here());
        await new Promise((resolve) => setImmediate(resolve));
      }
      await swapped;
    }
    expect([...seen].sort()).toEqual(["Berlin", "Sydney"]);
  });

  // Whatever is in the file, a sign-in goes on: a damaged file is left alone.
  test("a lookup in a damaged file never throws", async () => {
    const random = seededRandom(7);
    const met = { refused: 0, damaged: 0 };
    for (let round = 0; round < 300; round++) {
      const bytes = Buffer.from(WHOLE);
      for (let flips = 0; flips < 8; flips++) bytes[random.below(bytes.length)] = random.below(256);
      swap(bytes);
      lines.length = 0;
      await geo.reread();
      for (const ip of ["198.18.1.1", "2001:db8:1::1", "8.8.8.8"]) geo.placeOf(ip);
      if (events().includes("geoip.refused")) met.refused++;
      if (events().includes("geoip.damaged")) met.damaged++;
    }
    expect(met.refused).toBeGreaterThan(0);
    expect(met.damaged).toBeGreaterThan(0);
  });
});
