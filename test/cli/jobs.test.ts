import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { COMMANDS } from "../../cli/commands.ts";
import { parseCommandLine } from "../../cli/program.ts";
import { runHeldCommand } from "../../cli/run.ts";
import { heldWorkspace } from "../../cli/workspace.ts";
import type { Database } from "../../db/database.ts";
import { openPglite } from "../../db/pglite.ts";
import { type Ran, runPrimer } from "../support/server.ts";
import { jsonOf, openScratch, type Scratch } from "./support/home.ts";
import { serve } from "./support/serve.ts";

const MISSING = "019b76da-a800-7000-8000-000000000000";
const JOBS = 4;

let scratch: Scratch;
let home: string;
let db: Database;
beforeAll(async () => {
  scratch = openScratch();
  home = await scratch.home();
  db = await openPglite(home);
  // Each leaves a mail to be sent, and nobody works here.
  for (let count = 0; count < JOBS; count++) {
    const args = ["users", "set-password", "admin", "--password-stdin"];
    expect((await runHere(args, `tangerine dream sequence ${count}`)).exitCode).toBe(0);
  }
}, 60_000);
afterAll(async () => {
  await db.close();
  scratch.remove();
});

/** Runs a command as the process does that owns the database, for whoever asks it to. */
async function runHere(args: readonly string[], input = ""): Promise<Ran> {
  const parsed = await parseCommandLine(COMMANDS, args);
  if ("exitCode" in parsed) throw new Error(`${args.join(" ")} is no command line`);
  let stdout = "";
  let stderr = "";
  const io = {
    out: (text: string) => {
      stdout += text;
    },
    note: (text: string) => {
      stderr += text;
    },
    input: async () => input,
    interactive: false,
    color: false,
    columns: 100,
  };
  const where = { home, environment: {}, commands: COMMANDS, io };
  const exitCode = await runHeldCommand(parsed.spec.name, parsed.invocation, where, heldWorkspace(db));
  return { exitCode, stdout, stderr };
}

const run = (...args: string[]) => runHere(["jobs", ...args]);
const list = async (...args: string[]) => jsonOf(await run("list", "--json", ...args));

describe("primer jobs", () => {
  test("lists, a page at a time, and by state and queue", async () => {
    const { data } = await list();
    expect(data.map(({ state, template }: Record<string, string>) => [state, template])).toEqual(
      Array(JOBS).fill(["waiting", "password_changed"]),
    );
    const page = await list("--limit", "3");
    expect([page.data.length, page.next_cursor]).toEqual([3, data[2].id]);
    expect((await list("--after", page.next_cursor)).data).toEqual([data[3]]);
    expect((await list("--state", "dead", "--queue", "send-mail")).data).toEqual([]);
    expect((await run("list")).stdout).toMatch(/^STATE +QUEUE +ABOUT +ATTEMPTS/);
  });

  test("declares one dead, shows it, and tries it again", async () => {
    const [{ id }] = (await list()).data;
    expect((await run("dead", id)).exitCode).toBe(0);
    expect(jsonOf(await run("dead", "--json")).data).toEqual([jsonOf(await run("show", id, "--json"))]);
    const shown = await run("show", id);
    expect(shown.stdout).toMatch(/state +dead/);
    expect(shown.stdout).toMatch(/error +GIVEN_UP/);
    expect(await run("dead", id)).toMatchObject({ exitCode: 1, stdout: "" });
    expect(jsonOf(await run("retry", id, "--json"))).toMatchObject({ id, state: "waiting", last_error: null });
    expect((await list("--state", "dead")).data).toEqual([]);
  });

  // What was erased does not come back: such a mail would have no link in it.
  test("tries every dead one again, but for those whose secrets are gone", async () => {
    await db.query("UPDATE jobs.job SET state = 'failed', completed_on = now()");
    const [{ id }] = (await list()).data;
    await db.query(`UPDATE jobs.job SET data = data || '{"sealed": null}' WHERE id = '${id}'`);
    expect(jsonOf(await run("retry", "--all", "--json", "--queue", "other"))).toEqual({ jobs_retried: 0 });
    expect(jsonOf(await run("retry", "--all", "--json"))).toEqual({ jobs_retried: JOBS - 1 });
    expect((await list("--state", "dead")).data).toMatchObject([{ id }]);
    expect((await run("retry", id)).exitCode).toBe(1);
  });

  test("deletes one, and all that have ended once that is confirmed", async () => {
    const [dead, waiting] = (await list()).data;
    expect((await run("purge")).exitCode).toBe(2);
    expect((await run("purge", "--state", "waiting", "--yes")).exitCode).toBe(2);
    expect(jsonOf(await run("purge", "--state", "done", "--yes", "--json"))).toEqual({ jobs_deleted: 0 });
    expect(jsonOf(await run("purge", "--yes", "--json"))).toEqual({ jobs_deleted: 1 });
    expect((await run("show", dead.id)).exitCode).toBe(1);
    expect((await run("purge", waiting.id)).exitCode).toBe(0);
    expect((await list()).data).toHaveLength(JOBS - 2);
    const audited = await db.query("SELECT action FROM audit_log WHERE action LIKE 'job.%' ORDER BY id");
    expect(audited.map(({ action }) => action)).toEqual([
      "job.given_up",
      "job.retried",
      "job.retried",
      "job.purged",
      "job.purged",
    ]);
  });

  test.each([
    [2, ["retry"]],
    [2, ["retry", MISSING, "--all"]],
    [2, ["list", "--state", "failed"]],
    [2, ["list", "--limit", "0"]],
    [2, ["list", "--after", "x"]],
    [1, ["retry", MISSING]],
    [1, ["dead", MISSING]],
    [1, ["purge", MISSING]],
    [1, ["show", "x"]],
  ])("exit %d for %j, with what to do", async (exitCode, args) => {
    const ran = await run(...args);
    expect(ran).toMatchObject({ exitCode, stdout: "" });
    expect(ran.stderr).not.toContain("There is no such user");
  });
});

test("they work beside the process that serves", async () => {
  await db.close();
  const serving = await serve(home);
  try {
    const ran = await runPrimer(["jobs", "list", "--json", "--dir", home]);
    expect(jsonOf(ran).data).toHaveLength(JOBS - 2);
  } finally {
    await serving.stop();
  }
});

// On the embedded database nobody else could do the jobs.
test("serve --no-worker needs a PostgreSQL, and goes with --with-worker nowhere", async () => {
  const ends = [["--no-worker"], ["--no-worker", "--with-worker"]].map((flags) =>
    runPrimer(["serve", ...flags, "--dir", home]),
  );
  for (const ran of await Promise.all(ends)) expect(ran).toMatchObject({ exitCode: 2, stdout: "" });
  expect(await runPrimer(["worker", "--concurrency", "0", "--dir", home])).toMatchObject({ exitCode: 2, stdout: "" });
});
