import { afterAll, describe, expect, test } from "bun:test";
import { openPglite } from "../../db/pglite.ts";
import { runPrimer } from "../support/server.ts";
import { jsonOf, openScratch } from "./support/home.ts";
import { serve } from "./support/serve.ts";

const scratch = openScratch();
afterAll(() => scratch.remove());

const worker = (home: string, ...args: string[]) => runPrimer(["worker", ...args, "--dir", home]);

/** Changes a database that nobody has open. */
async function change(home: string, statement: string): Promise<void> {
  const database = await openPglite(home);
  await database.query(statement);
  await database.close();
}

describe("worker --run-once", () => {
  test("runs a schedule to its end, says what it came to, and shows in the list", async () => {
    const home = await scratch.home();
    const before = jsonOf(await worker(home, "--list", "--json")).data;
    expect(before.find(({ name }: { name: string }) => name === "clean-up")).toMatchObject({ state: null });
    const ran = await worker(home, "--run-once", "clean-up", "--json");
    expect(ran.exitCode).toBe(0);
    expect(jsonOf(ran)).toMatchObject({ schedule: "clean-up", outcome: "done", details: { sessions: 0, audit: 0 } });
    const after = jsonOf(await worker(home, "--list", "--json")).data;
    expect(after.find(({ name }: { name: string }) => name === "clean-up")).toMatchObject({
      state: "done",
      error: null,
      details: { sessions: 0 },
      next_at: expect.stringContaining("T03:30:00.000Z"),
    });
  });

  test("exits with 1 where the schedule fails, says why, and doctor tells of it", async () => {
    const home = await scratch.home();
    await change(home, "ALTER TABLE mail_counters RENAME TO elsewhere");
    const ran = await worker(home, "--run-once", "clean-up");
    expect(ran).toMatchObject({ exitCode: 1, stdout: "" });
    expect(ran.stderr).toContain("mail_counters");
    const { findings } = jsonOf(await runPrimer(["doctor", "--json", "--dir", home]));
    expect(findings.find(({ check }: { check: string }) => check === "schedules")).toMatchObject({ state: "warning" });
  });

  test.each([
    ["an unknown name", ["--run-once", "no-such-thing"]],
    ["two things at once", ["--run-once", "clean-up", "--list"]],
    ["a concurrency besides", ["--run-once", "clean-up", "--concurrency", "2"]],
  ])("exits with 2 for %s", async (_name, args) => {
    const ran = await worker(await scratch.home(), ...args);
    expect(ran.exitCode).toBe(2);
  });

  test("names what there is where the name is unknown", async () => {
    const { stderr } = await worker(await scratch.home(), "--run-once", "no-such-thing");
    for (const name of ["clean-up", "daily-report", "unverified-accounts"]) expect(stderr).toContain(name);
  });
});

describe("while the embedded database is served", () => {
  test("run-once and the list go through the holder; a second worker does not", async () => {
    const home = await scratch.home();
    const serving = await serve(home);
    try {
      const ran = await worker(home, "--run-once", "rotate-keys", "--json");
      expect([ran.exitCode, jsonOf(ran).outcome]).toEqual([0, "done"]);
      const list = jsonOf(await worker(home, "--list", "--json")).data;
      expect(list.find(({ name }: { name: string }) => name === "rotate-keys")).toMatchObject({ state: "done" });
      const second = await worker(home);
      expect(second.exitCode).toBe(3);
      expect(second.stderr).toContain(String(serving.pid));
    } finally {
      expect(await serving.stop()).toBe(0);
    }
  });

  // What was due while nothing ran is made up for by whatever comes back.
  test("serve runs what is due", async () => {
    const home = await scratch.home();
    await change(
      home,
      "INSERT INTO schedule_runs (name, occurrence, state) VALUES ('rotate-keys', '2026-01-01T00:00:00Z', 'waiting')",
    );
    const serving = await serve(home);
    try {
      expect(await serving.untilLogged("schedule.done")).toMatchObject({ schedule: "rotate-keys", attempt: 1 });
    } finally {
      await serving.stop();
    }
  });
});
