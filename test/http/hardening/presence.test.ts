import { expect, test } from "bun:test";
import { systemRandom } from "../../../server/ports/random.ts";
import { announcePresence } from "../../../server/presence.ts";
import { openTestApp } from "../../support/app.ts";

// Processes that share a limit must agree on how many they are, also after one of them was killed.
test("processes that are there are counted; one that ends or is killed is not", async () => {
  const app = await openTestApp();
  try {
    const { clock, db } = app;
    await db.query("DELETE FROM processes"); // the app's own one, where it announces itself
    const deps = { kind: "serve" as const, db, clock, random: systemRandom, log: app.deps.log };
    const [first, second, third] = [announcePresence(deps), announcePresence(deps), announcePresence(deps)];
    const all = [first, second, third];
    const worker = announcePresence({ ...deps, kind: "worker" }); // shares no limit with those that serve
    await worker.look();
    for (const one of all) await one.look();
    for (const one of all) await one.look();
    expect(all.map((one) => one.count())).toEqual([3, 3, 3]);
    expect(worker.count()).toBe(1);
    await worker.close();
    await third.close();
    await first.look();
    expect(first.count()).toBe(2);
    clock.advance(10_000);
    await first.look();
    expect(first.count()).toBe(2);
    clock.advance(10_000); // the second has said nothing for 20 seconds
    await first.look();
    expect(first.count()).toBe(1);
    await first.close();
    await second.close();
  } finally {
    await app.close();
  }
});
