import { expect, test } from "bun:test";
import { systemRandom } from "../../../server/ports/random.ts";
import { announcePresence } from "../../../server/presence.ts";
import { openTestApp } from "../../support/app.ts";

// Processes that share a limit must agree on how many they are, also after one of them was killed.
test("processes that are there are counted; one that ends or is killed is not", async () => {
  const app = await openTestApp();
  try {
    const { clock, db } = app;
    /** Nobody has looked for so long. */
    const silence = (seconds: number) =>
      db.query("UPDATE processes SET seen_at = seen_at - $1::int * interval '1 second'", [seconds]);
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
    await silence(10);
    await first.look();
    expect(first.count()).toBe(2);
    await silence(10); // the second has said nothing for 20 seconds
    await first.look();
    expect(first.count()).toBe(1);
    await first.close();
    await second.close();
  } finally {
    await app.close();
  }
});

// A process whose clock is wrong is there all the same, for the others and for itself.
test("clocks that differ by an hour change nothing", async () => {
  const app = await openTestApp();
  try {
    const { db, clock } = app;
    await db.query("DELETE FROM processes");
    const ahead = { ...clock, now: () => new Date(clock.now().getTime() + 3_600_000) };
    const deps = { kind: "serve" as const, db, random: systemRandom, log: app.deps.log };
    const [right, wrong] = [announcePresence({ ...deps, clock }), announcePresence({ ...deps, clock: ahead })];
    for (const one of [right, wrong, right]) await one.look();
    expect([right.count(), wrong.count()]).toEqual([2, 2]);
    await Promise.all([right.close(), wrong.close()]);
  } finally {
    await app.close();
  }
});

// A restore is not kept waiting by a process that has gone in order.
test("a look that is under way does not bring back a process that closes", async () => {
  const app = await openTestApp();
  try {
    const { clock, db } = app;
    await db.query("DELETE FROM processes");
    const presence = announcePresence({ kind: "serve", db, clock, random: systemRandom, log: app.deps.log });
    const looks = [presence.look(), presence.look()];
    await presence.close();
    await Promise.allSettled([...looks, presence.look()]);
    expect(await db.query("SELECT id FROM processes")).toEqual([]);
  } finally {
    await app.close();
  }
});
