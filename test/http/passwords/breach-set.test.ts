import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { replaceFilter } from "../../../cli/breach-filter-file.ts";
import { readHashes } from "../../../cli/hibp-source.ts";
import {
  encodePart,
  falsePositiveRate,
  isInFilter,
  partHolds,
} from "../../../server/features/passwords/breach-filter.ts";
import { createBreachCheck } from "../../../server/features/passwords/service.ts";
import { PASSWORD } from "../../support/app.ts";
import { sha1Of } from "../../support/range-service.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { replaceDeps } from "../support/observe.ts";
import { seededRandom } from "../support/random.ts";

const LEAKED = "violet tractor nineteen";
const folder = mkdtempSync(join(tmpdir(), "primer-set-"));
const path = join(folder, "hibp.filter");
const random = seededRandom(16_384);

/** Makes the set of these passwords. */
async function makeSet(passwords: readonly string[]): Promise<void> {
  const source = join(folder, "hashes.txt");
  writeFileSync(
    source,
    passwords
      .map((password) => `${sha1Of(password)}:7\n`)
      .sort()
      .join(""),
  );
  await replaceFilter(path, 1, async (sink) => {
    await readHashes(source, { hash: (prefix, rest) => sink.add(prefix, rest), progress: () => {} });
    return sink.finish();
  });
}

let app: HttpApp;
let restore = () => {};
beforeAll(async () => {
  app = await openHttpApp({ PRIMER_PASSWORD__HIBP: "offline" });
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await app.close();
});
beforeEach(async () => {
  await makeSet([LEAKED, ...Array.from({ length: 500 }, (_, index) => `leaked ${index}`)]);
  const settings = () => app.deps.settings.password;
  restore = replaceDeps(app.deps, {
    breachCheck: createBreachCheck({ settings, filterPath: path, degraded: () => {} }),
  });
});
afterEach(() => restore());

let made = 0;
const create = (password: string) => app.createUser({ username: `user-${++made}`, password });
const reasonsFor = (password: string): Promise<unknown> =>
  create(password).then(
    () => [],
    ({ details }) => details.reasons.map(({ code }: { code: string }) => code),
  );
const degradations = async (userId: string) => {
  const rows = await app.db.query<{ details: { reason: string } }>(
    "SELECT details FROM audit_log WHERE action = 'breach_check_degraded' AND subject_id = $1",
    [userId],
  );
  return rows.map(({ details }) => details.reason);
};

// SECURITY 8: with no network at all, passwords that have leaked are refused.
describe("the set on the disk", () => {
  test("refuses what is in it and nothing else", async () => {
    expect(await reasonsFor(LEAKED)).toEqual(["password_breached"]);
    expect(await reasonsFor("passwordpassword")).toEqual(["password_breached"]);
    const { id } = await create(PASSWORD);
    expect(await degradations(id)).toEqual([]);
  });

  test("a new one counts at once, without a restart", async () => {
    await makeSet([PASSWORD]);
    expect(await reasonsFor(PASSWORD)).toEqual(["password_breached"]);
    expect(await reasonsFor(LEAKED)).toEqual([]);
  });

  test("every one that was put in is found, also while it is being replaced", async () => {
    const leaked = Array.from({ length: 500 }, (_, index) => `leaked ${index}`);
    const replacing = Promise.all([makeSet(leaked), makeSet([...leaked, LEAKED]).catch(() => {})]);
    const found = await Promise.all(leaked.map((password) => isInFilter(path, sha1Of(password))));
    await replacing;
    expect(found).toEqual(leaked.map(() => true));
  });

  test("a lookup takes less than a millisecond", async () => {
    const times: number[] = [];
    for (let index = 0; index < 300; index++) {
      const sha1 = sha1Of(`leaked ${index}`);
      const started = performance.now();
      await isInFilter(path, sha1);
      times.push(performance.now() - started);
    }
    times.sort((a, b) => a - b);
    expect(times[150]).toBeLessThan(1);
  });

  const DAMAGES: readonly (readonly [string, () => void, string])[] = [
    ["missing", () => rmSync(path), "set_missing"],
    ["empty", () => truncateSync(path, 0), "set_damaged"],
    ["cut off", () => truncateSync(path, 6_291_500), "set_damaged"],
    ["something else", () => writeFileSync(path, "no set at all".repeat(1000)), "set_damaged"],
    [
      "a set of zeros",
      () => writeFileSync(path, Buffer.concat([readFileSync(path).subarray(0, 40), Buffer.alloc(6_291_500)])),
      "set_damaged",
    ],
  ];
  // A damaged set lets nobody be locked out, and never goes unnoticed.
  for (const [name, damage, reason] of DAMAGES) {
    test(`${name}: the password is taken, and that is recorded`, async () => {
      damage();
      const { id } = await create(LEAKED);
      expect(await degradations(id)).toEqual([reason]);
      expect(await reasonsFor("passwordpassword")).toEqual(["password_breached"]);
    });
  }
});

describe("a part of the set", () => {
  const REST = 16 ** 9;
  const rests = (count: number) =>
    new Float64Array([...new Set(Array.from({ length: count }, () => random.below(REST)))].sort((a, b) => a - b));

  test.each([1, 2, 3, 4, 5, 100, 1024, 1025, 2000, 30_000])("of %d hashes holds each of them", (count) => {
    const all = rests(count);
    const part = encodePart(all);
    const asked = [...all].filter((_, index) => index % Math.ceil(count / 1000) === 0);
    expect(asked.filter((rest) => !partHolds(part, rest))).toEqual([]);
    expect(part.length).toBeLessThan(4 + 2.2 * count + 4);
  });

  test("holds the first and the last hash there can be", () => {
    const part = encodePart(new Float64Array([0, REST - 1]));
    expect([0, 1, REST / 2, REST - 1].map((rest) => partHolds(part, rest))).toEqual([true, true, false, true]);
  });

  // The stated rate of false alarms, at most one in 16,384, is what really happens.
  test.each([1024, 1500, 2000])("of %d hashes takes others for them as seldom as stated", (count) => {
    const all = rests(count);
    const part = encodePart(all);
    const known = new Set(all);
    const probes = 40_000;
    let mistaken = 0;
    for (let index = 0; index < probes; index++) {
      const rest = random.below(REST);
      if (!known.has(rest) && partHolds(part, rest)) mistaken++;
    }
    const stated = falsePositiveRate(all.length);
    expect(stated).toBeLessThanOrEqual(1 / 16_384);
    // Chance alone goes beyond four standard deviations once in thirty thousand times.
    expect(mistaken).toBeLessThan(probes * stated + 4 * Math.sqrt(probes * stated));
  });

  // Whatever stands in the file, looking into it ends, with an answer or an error.
  test("any bytes at all: an answer or an error, and soon", () => {
    for (let round = 0; round < 2000; round++) {
      const bytes = Uint8Array.from({ length: 4 + random.below(60) }, () => random.below(256));
      bytes[2] = 0;
      bytes[3] = 0;
      try {
        expect(partHolds(bytes, random.below(REST))).toBeBoolean();
      } catch (error) {
        expect(error).toMatchObject({ reason: "set_damaged" });
      }
    }
  });
});
