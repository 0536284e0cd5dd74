import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { COMMANDS } from "../../cli/commands.ts";
import { terminalIo } from "../../cli/io.ts";
import { runCommand } from "../../cli/run.ts";
import { openPglite } from "../../db/pglite.ts";
import { createSealer } from "../../server/features/audit/service.ts";
import { runPrimer } from "../support/server.ts";
import { jsonOf, openScratch } from "./support/home.ts";

const scratch = openScratch();
afterAll(() => scratch.remove());

const audit = (home: string, ...args: string[]) => runPrimer(["audit", ...args, "--dir", home]);

async function change(home: string, statement: string): Promise<void> {
  const database = await openPglite(home);
  await createSealer(database, () => 0).seal();
  await database.query(statement);
  await database.close();
}

const AGENT = `=HYPERLINK("https://evil.test";"x")`;

let home: string;
beforeAll(async () => {
  home = await scratch.home();
  await change(
    home,
    `INSERT INTO audit_log (id, time, action, outcome, actor_kind, user_agent) VALUES
      (gen_random_uuid(), '2026-01-01', 'login', 'failure', 'anonymous', '${AGENT.replaceAll("'", "''")}'),
      (gen_random_uuid(), '2026-01-02', 'login', 'failure', 'anonymous', E'@a\\n"b",\\tc')`,
  );
});

describe("primer audit verify", () => {
  test("says how much holds, and what waits to be sealed", async () => {
    const ran = await audit(home, "verify", "--json");
    expect(ran.exitCode).toBe(0);
    const report = jsonOf(ran);
    expect(report).toMatchObject({ ok: true, months: 1, unsealed: { rows: 2, oldest: "2026-01-01T00:00:00.000Z" } });
    expect(report.rows).toBeGreaterThan(0);
    const { stdout } = await audit(home, "verify");
    expect(stdout).toContain(`${report.rows} rows of 1 month`);
    expect(stdout).toContain(`${report.head.seq}:${report.head.hash}`);
    expect(stdout).toContain("primer worker"); // they wait since January
  });

  // A line that was kept elsewhere tells a chain that was made anew.
  test("--expect", async () => {
    const { head } = jsonOf(await audit(home, "verify", "--json"));
    const codes = [];
    for (const line of [`${head.seq}:${head.hash}`, `${head.seq}:${"0".repeat(64)}`, `${head.seq}`]) {
      codes.push((await audit(home, "verify", "--expect", line)).exitCode);
    }
    expect(codes).toEqual([0, 1, 2]);
  });

  // Who ends it has not found that the log was changed.
  test.each(["SIGINT", "SIGTERM"] as const)("interrupted by %s it exits with 130", async (signal) => {
    const interrupt = (event: string | symbol) => {
      if (event === signal) queueMicrotask(() => process.emit(signal));
    };
    const spec = COMMANDS.find(({ name }) => name === "audit verify");
    if (!spec) throw new Error("No such command");
    let out = "";
    const io = {
      ...terminalIo({ color: false }),
      interactive: false,
      note: () => {},
      out(text: string) {
        out += text;
      },
    };
    process.on("newListener", interrupt);
    try {
      const invocation = { arguments: [], options: { json: true } };
      const code = await runCommand(spec, invocation, { home, environment: {}, commands: COMMANDS, io });
      expect([code, JSON.parse(out).error.exit_code]).toEqual([130, 130]);
    } finally {
      process.off("newListener", interrupt);
    }
  });

  // A single byte that was changed is seen, and the row is named.
  test("exits with 1 naming the row of which a byte was changed", async () => {
    const other = await scratch.home();
    await change(
      other,
      `BEGIN; SET LOCAL session_replication_role = replica;
       UPDATE audit_log SET action = 'Key.created' WHERE id = (SELECT event_id FROM audit_seals WHERE seq = 2); COMMIT`,
    );
    const ran = await audit(other, "verify", "--json");
    expect(ran.exitCode).toBe(1);
    const { ok, rows, fault } = jsonOf(ran);
    expect({ ok, rows, fault }).toMatchObject({ ok: false, rows: 1, fault: { kind: "changed", seq: 2 } });
    const told = await audit(other, "verify");
    expect([told.exitCode, told.stdout.includes(fault.event_id)]).toEqual([1, true]);
  });
});

describe("primer audit export", () => {
  test("writes a line of JSON for each event, the newest first, to a file for its owner alone", async () => {
    const file = join(scratch.folder, "events.ndjson");
    writeFileSync(file, "what was there before", { mode: 0o644 });
    const ran = await audit(home, "export", file, "--json");
    expect(ran.exitCode).toBe(0);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const lines = readFileSync(file, "utf8").trimEnd().split("\n");
    expect(jsonOf(ran)).toEqual({ path: file, events: lines.length });
    const times = lines.map((line) => JSON.parse(line).time);
    expect(times).toEqual([...times].sort().reverse());
  });

  // What a stranger wrote is text in a spreadsheet, never a formula.
  test("quotes in CSV what a spreadsheet would run", async () => {
    const { exitCode, stdout } = await audit(home, "export", "--format", "csv", "--to", "2026-02-01");
    expect(exitCode).toBe(0);
    expect(stdout).toStartWith("id,time,action,outcome,actor_kind,actor_id,subject_kind,subject_id,ip,user_agent,");
    expect(stdout).toContain(`,"'=HYPERLINK(""https://evil.test"";""x"")",`);
    expect(stdout).toContain(`,"'@a\n""b"",\tc",`);
  });

  test.each([
    [["--action", "login", "--outcome", "failure"], 2],
    [["--actor", "anonymous"], 2],
    [["--from", "2026-01-02", "--to", "2026-02-01"], 1],
    [["--subject", "nobody"], 0],
  ])("%p leaves those that are meant", async (options, count) => {
    const { exitCode, stdout } = await audit(home, "export", ...options);
    expect(exitCode).toBe(0);
    expect(stdout.split("\n").slice(0, -1)).toHaveLength(count);
  });

  test.each([[["--from", "yesterday"]], [["--outcome", "perhaps"]], [["--format", "xml"]], [["--json"]]])(
    "%p is refused with 2, and nothing is written",
    async (options) => {
      const ran = await audit(home, "export", ...options);
      expect(ran.exitCode).toBe(2);
      if (!options.includes("--json")) expect(ran.stdout).toBe("");
    },
  );

  test("is an event itself", async () => {
    const { stdout } = await audit(home, "export", "--action", "audit.exported");
    expect(JSON.parse(stdout.split("\n")[0] ?? "")).toMatchObject({
      actor: { kind: "operator" },
      details: { action: "audit.exported", format: "ndjson" },
    });
  });
});
