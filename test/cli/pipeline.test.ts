/** The examples for pipelines do what they say. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { COMMANDS } from "../../cli/commands.ts";
import { PRIMER, plainEnvironment } from "../support/server.ts";
import { freePort } from "../support/services.ts";
import { openScratch, type Scratch, temporaryFilesIn } from "./support/home.ts";

const folder = join(import.meta.dir, "../../compose/ci");

let scratch: Scratch;
beforeAll(() => {
  scratch = openScratch();
});
afterAll(() => scratch.remove());

async function runPipeline(name: string, limits: Record<string, string>) {
  const temporary = scratch.path(name);
  mkdirSync(temporary);
  const child = Bun.spawn(["sh", join(folder, "check-primer.sh")], {
    cwd: scratch.folder,
    env: plainEnvironment({
      PRIMER: PRIMER.join(" "),
      PORT: String(await freePort()),
      REPORTS: join(scratch.folder, `${name}-reports`),
      DURATION: "1s",
      TMPDIR: temporary,
      PRIMER_TOKENS__ALGORITHM: "ES256",
      ...limits,
    }),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, notes] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { exitCode: await child.exited, out, notes, temporary, reports: join(scratch.folder, `${name}-reports`) };
}

test("the shell one sets up, serves, measures and has the doctor look, and leaves only its reports", async () => {
  const ran = await runPipeline("holds", { LOGIN_P99: "60s", VERIFY_P99: "60s" });
  expect({ exitCode: ran.exitCode, notes: ran.exitCode === 0 ? "" : ran.notes + ran.out }).toEqual({
    exitCode: 0,
    notes: "",
  });
  const { scenarios, assertions } = JSON.parse(readFileSync(join(ran.reports, "bench.json"), "utf8"));
  expect(scenarios.map(({ scenario }: { scenario: string }) => scenario)).toEqual(["login", "refresh", "verify"]);
  expect(assertions).toHaveLength(5);
  expect(readdirSync(ran.reports).sort()).toEqual(["bench.html", "bench.json"]);
  expect(ran.out).toContain("audit log");
  expect(temporaryFilesIn(ran.temporary)).toEqual([]);
});

// A pipeline fails where an assertion does not hold, and puts everything away all the same.
test("it ends with 4 where an assertion does not hold", async () => {
  const ran = await runPipeline("fails", { LOGIN_P99: "1us", VERIFY_P99: "60s" });
  expect(ran.exitCode).toBe(4);
  expect(temporaryFilesIn(ran.temporary)).toEqual([]);
});

test("what they write on the command line of bench is there", () => {
  const flags = COMMANDS.find(({ name }) => name === "bench")?.options?.map(({ flags }) => flags.split(" ")[0]);
  const text = ["check-primer.sh", "github-actions.yaml"]
    .map((name) => readFileSync(join(folder, name), "utf8"))
    .join("\n");
  const commands = text.replace(/\\\n/g, " ").match(/primer bench .*|\$PRIMER bench .*/gi) ?? [];
  expect(commands.length).toBeGreaterThanOrEqual(3);
  const used = new Set(commands.flatMap((command) => command.match(/--[a-z-]+/g) ?? []));
  expect([...used].filter((flag) => !flags?.includes(flag))).toEqual([]);
  expect(Bun.YAML.parse(readFileSync(join(folder, "github-actions.yaml"), "utf8"))).toMatchObject({
    jobs: { check: { steps: expect.any(Array) }, speed: { steps: expect.any(Array) } },
  });
});
