import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Collected, createMetrics, resourceOf } from "../../../config/meter.ts";
import { type NodeMetrics, shareMetrics } from "../../../server/features/monitoring/service.ts";
import { systemClock } from "../../../server/ports/clock.ts";
import { systemRandom } from "../../../server/ports/random.ts";

let home: string;
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "primer-node-"));
});
afterAll(() => rmSync(home, { recursive: true, force: true }));

/** One that works in the home and has counted so many. */
async function working(count: number): Promise<NodeMetrics> {
  const metrics = createMetrics({ resource: resourceOf("test") });
  for (let made = 0; made < count; made++) metrics.count("primer_tokens_issued_total", { grant: "login" });
  return shareMetrics(home, metrics, { clock: systemClock, random: systemRandom });
}

function issuedIn(collected: Collected): number {
  const metric = collected.find(({ descriptor }) => descriptor.name === "primer_tokens_issued_total");
  return Number(metric?.dataPoints[0]?.value ?? 0);
}

// A sum that falls looks as if all had begun anew, and sets off every alert that counts.
test("what was counted stays, however many come and go, whoever is asked, and is never counted twice", async () => {
  const [one, other] = [await working(100), await working(10)];
  let expected = 110;
  for (let gone = 0; gone < 40; gone++) {
    const third = await working(gone + 1);
    expected += gone + 1;
    expect(issuedIn(await one.collect())).toBe(expected);
    await third.close();
    if (gone % 3 === 0) expect(issuedIn(await other.collect())).toBe(expected);
    expect(issuedIn(await one.collect())).toBe(expected);
  }
  const late = await working(5);
  expected += 5;
  for (const node of [late, other, one]) expect(issuedIn(await node.collect())).toBe(expected);
  for (const node of [late, other]) await node.close();
  expect(issuedIn(await one.collect())).toBe(expected);
  await one.close();
}, 30_000);
