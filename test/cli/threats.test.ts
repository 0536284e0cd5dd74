import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { runPrimer } from "../support/server.ts";
import { jsonOf, openScratch } from "./support/home.ts";

const scratch = openScratch();
let home: string;
beforeAll(async () => {
  home = await scratch.home();
});
afterAll(() => scratch.remove());

const SOURCE = { PRIMER_THREATS__SOURCES: "bad.txt" };
const run = (args: readonly string[], environment: Record<string, string> = SOURCE) =>
  runPrimer([...args, "--json", "--dir", home], { environment });

async function doctor() {
  const ran = await run(["doctor"]);
  const found: { check: string; state: string; message: string }[] = jsonOf(ran).findings;
  return { exitCode: ran.exitCode, ...found.find(({ check }) => check === "threats") };
}

// An operator sees what is known of bad networks, and why it is not newer.
test("`worker --run-once threat-lists` reads a list, and `doctor` tells how it stands", async () => {
  expect(await doctor()).toMatchObject({ exitCode: 0, state: "warning" });
  writeFileSync(join(home, "bad.txt"), "198.51.100.0/24\n");
  const read = await run(["worker", "--run-once", "threat-lists"]);
  expect(jsonOf(read)).toMatchObject({ schedule: "threat-lists", outcome: "done", details: { taken: 1 } });
  expect(await doctor()).toMatchObject({ exitCode: 0, state: "ok" });
  const learnt = await run(["worker", "--run-once", "baselines"]);
  expect(jsonOf(learnt)).toMatchObject({ outcome: "done", details: { learnt: 0, anomalies: 0 } });
});

describe("`config check`: a source that is to be signed", () => {
  test.each([
    ["with a key", "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3", 0],
    ["without one", "", 2],
    ["with something else", "c29tZXRoaW5nIGVsc2U=", 2],
  ])("%s", async (_name, key, exitCode) => {
    const checked = await run(["config", "check"], {
      PRIMER_THREATS__SOURCES: "minisign+bad.txt",
      PRIMER_THREATS__PUBLIC_KEY: key,
    });
    expect(checked.exitCode).toBe(exitCode);
  });
});
