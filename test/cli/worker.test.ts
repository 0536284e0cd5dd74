import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PRIMER, plainEnvironment, runPrimer } from "../support/server.ts";

const folder = mkdtempSync(join(tmpdir(), "primer-worker-"));
const home = join(folder, "home");

test("worker needs an installation, works in the background, and ends with 0 when it is told to", async () => {
  try {
    const before = await runPrimer(["worker", "--dir", home]);
    expect(before).toMatchObject({ exitCode: 2, stdout: "" });
    expect(before.stderr).toContain("primer init");

    const init = ["init", "--yes", "--algorithm", "ES256", "--dir", home];
    expect((await runPrimer(init)).exitCode).toBe(0);
    const worker = Bun.spawn([...PRIMER, "worker", "--dir", home], {
      env: plainEnvironment(),
      stdio: ["ignore", "pipe", "pipe"],
    });
    const decoder = new TextDecoder();
    let log = "";
    for await (const chunk of worker.stdout) {
      const told = log.includes('"worker.started"');
      log += decoder.decode(chunk, { stream: true });
      if (!told && log.includes('"worker.started"')) worker.kill("SIGTERM");
    }
    expect(await worker.exited).toBe(0);
    const events = log.trim().split("\n");
    expect(events.map((line) => JSON.parse(line).event)).toEqual([
      "worker.started",
      "process.stopping",
      "process.stopped",
    ]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
