import { afterAll, beforeAll, expect, test } from "bun:test";
import { auditLog } from "../../db/schema/audit.ts";
import { chainReaderOn, createSealer, SEALING_LOCK, verifyChain } from "../../server/features/audit/service.ts";
import { keepAuditSealed } from "../../worker/seal-audit.ts";
import { newId } from "../db/rows.ts";
import { waitFor } from "../drills/processes.ts";
import { openTestApp, type TestApp } from "../support/app.ts";
import { TEST_DATABASE } from "../support/database.ts";
import { runSchedule } from "./support/schedules.ts";

const LOOK = { lookMs: 20, watchMs: 20 };
const SEALED_WITHIN_MS = 5000;

let app: TestApp;
beforeAll(async () => {
  app = await openTestApp({ PRIMER_RETENTION__AUDIT: "90d" });
});
afterAll(() => app.close());

const write = (time: string) =>
  app.db.orm
    .insert(auditLog)
    .values({ id: newId(), time: new Date(time), action: "login", outcome: "success", actorKind: "system" });
const verify = () => verifyChain(chainReaderOn(app.db), () => {});
const sealed = async () => (await verify()).unsealed.rows === 0;

// What was kept long enough goes by the month, and what is left can still be verified.
test("the clean-up drops the months of which every row was kept long enough", async () => {
  // It is the first of March: ninety days ago was the first of December.
  for (const time of ["2025-10-05", "2025-11-30T23:59:59Z", "2025-12-01", "2026-03-01"]) await write(time);
  expect((await runSchedule(app, "clean-up")).details).toMatchObject({ audit: 0 }); // nothing is sealed yet
  await createSealer(app.db, app.clock.elapsed).seal();
  expect((await runSchedule(app, "clean-up")).details).toMatchObject({ audit: 2 });
  const rows = await app.db.query("SELECT 1 FROM audit_log WHERE time < '2025-12-01'");
  expect(rows).toEqual([]);
  expect(await verify()).toMatchObject({ ok: true, dropped: { rows: 2, months: 2 }, unsealed: { rows: 2 } });
  expect(await app.db.query("SELECT 1 FROM audit_log WHERE action = 'audit.month_dropped'")).toHaveLength(2);
  expect((await runSchedule(app, "clean-up")).details).toMatchObject({ audit: 0 });
});

// A backup reads every month to its end: none goes under it, and the clean-up has not failed for that.
test.if(TEST_DATABASE === "postgres")("a month that is being read stays until the next clean-up", async () => {
  await write("2025-10-06");
  await createSealer(app.db, app.clock.elapsed).seal();
  await app.db.snapshot(async (reader) => {
    await reader.query("SELECT count(*) FROM audit_log");
    expect(await runSchedule(app, "clean-up")).toMatchObject({ outcome: "done", details: { audit: 0 } });
  });
  expect((await runSchedule(app, "clean-up")).details).toMatchObject({ audit: 1 });
  expect(await verify()).toMatchObject({ ok: true });
});

// One process seals, and where it ends another one goes on.
test("of several processes one seals, and the next when that one stops", async () => {
  const other = await app.otherNode();
  const [first, second] = [keepAuditSealed(app.deps, LOOK), keepAuditSealed(other.deps, LOOK)];
  await write("2026-03-01T12:00:00Z");
  await waitFor("the row is sealed", sealed, SEALED_WITHIN_MS);
  const told = () => app.logLines.find((line) => line.includes('"audit.head"'));
  await waitFor("the end of the chain is told", async () => told() !== undefined, SEALED_WITHIN_MS);
  const [seq, hash = ""] = JSON.parse(told() ?? "").head.split(":");
  const expected = { seq: Number(seq), hash };
  expect(await verifyChain(chainReaderOn(app.db), () => {}, { expected })).toMatchObject({ ok: true });
  await first.stop();
  await write("2026-03-01T12:00:01Z");
  await waitFor("the next row is sealed", sealed, SEALED_WITHIN_MS);
  await second.stop();
  await write("2026-03-01T12:00:02Z");
  expect(await verify()).toMatchObject({ ok: true, unsealed: { rows: 1 } });
});

// Whoever has the lock may hang with it: those who wait for it tell of that, and of its end.
test("a sealer that hangs is told of by another process", async () => {
  const { promise: goneOn, resolve: goOn } = Promise.withResolvers<void>();
  const { promise: held, resolve: isHeld } = Promise.withResolvers<void>();
  const hanging = app.db.exclusively(SEALING_LOCK, async () => {
    isHeld();
    await goneOn;
  });
  await held;
  const other = await app.otherNode();
  const linesBefore = app.logLines.length;
  const heard = (event: string) =>
    app.logLines.slice(linesBefore).filter((line) => line.includes(`"event":"${event}"`)).length;
  await write(app.clock.now().toISOString());
  const waiting = keepAuditSealed(other.deps, LOOK);
  app.clock.advance(70_000);
  await waitFor("it is told", async () => heard("audit.not_sealed") === 1, SEALED_WITHIN_MS);
  goOn();
  await hanging;
  await waitFor("its end is told", async () => heard("audit.sealed") === 1, SEALED_WITHIN_MS);
  expect(heard("audit.not_sealed")).toBe(1);
  await waiting.stop();
});
