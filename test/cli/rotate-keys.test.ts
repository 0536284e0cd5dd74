import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { generateSecret } from "../../config/secrets.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { runPrimer } from "../support/server.ts";
import { hashesOf, jsonOf, openScratch } from "./support/home.ts";
import { type Serving, serve } from "./support/serve.ts";

const scratch = openScratch();

/** Served: each command is run by the process that has the database, and its keys are the ones that change. */
let home: string;
let serving: Serving;
beforeAll(async () => {
  home = await scratch.home();
  serving = await serve(home, { environment: { PRIMER_TOKENS__ALGORITHM: "ES256" } });
});
afterAll(async () => {
  await serving.stop();
  scratch.remove();
});

const rotate = (...args: string[]) => runPrimer(["rotate-keys", "--dir", home, ...args]);

interface Key {
  readonly kind: string;
  readonly state: string;
  readonly id: string;
}

const keysOf = async (kind = "signing") =>
  (jsonOf(await rotate("--status", "--json")).keys as Key[]).filter((key) => key.kind === kind);
const statesOf = async (kind?: string) => (await keysOf(kind)).map(({ state }) => state);

// What cannot be undone, or means nothing, is asked for twice or refused, and nothing is changed.
describe("is refused with exit 2 and changes nothing", () => {
  test.each([
    [["--now"], "--yes"],
    [["--emergency"], "--yes"],
    [["--now", "--emergency", "--yes"], "--emergency"],
    [["--status", "--undo"], "--undo"],
    [["--what", "signing,passwords"], "--what"],
    [["--what", ""], "--what"],
    [["--what", "master", "--undo"], "master"],
    [["--what", "master", "--emergency", "--yes"], "master"],
    [["--what", "pepper", "--emergency", "--yes"], "pepper"],
  ])("%j", async (args, named) => {
    const before = await keysOf();
    const files = hashesOf(home, ["secrets.env", "primer.toml"]);
    const ran = await rotate(...args, "--json");
    expect(ran.exitCode).toBe(2);
    expect(jsonOf(ran).error.exit_code).toBe(2);
    expect(ran.stderr).toContain(named);
    expect(await keysOf()).toEqual(before);
    expect(hashesOf(home, ["secrets.env", "primer.toml"])).toEqual(files);
  });
});

describe("rotate-keys", () => {
  test("--dry-run tells and changes nothing", async () => {
    const before = await keysOf();
    const ran = await rotate("--dry-run", "--what", "signing,refresh,pepper,master", "--json");
    expect(ran.exitCode).toBe(0);
    const { dry_run, rotated } = jsonOf(ran);
    expect(dry_run).toBe(true);
    expect(rotated.map(({ what, done }: { what: string; done: boolean }) => [what, done])).toEqual([
      ["signing", false],
      ["refresh", false],
      ["pepper", false],
      ["master", false],
    ]);
    expect(await keysOf()).toEqual(before);
  });

  test("stages the next key for a day ahead; a second run goes on with it; --undo withdraws it", async () => {
    const began = Date.parse(new Date().toISOString());
    const [rotated] = jsonOf(await rotate("--json")).rotated;
    expect(rotated).toMatchObject({ what: "signing", done: false });
    const ahead = Date.parse(rotated.activates_at) - began;
    expect(ahead).toBeGreaterThan(86_400_000 - 1000);
    expect(ahead).toBeLessThan(86_400_000 + 60_000);
    expect(await statesOf()).toEqual(["active", "next"]);
    expect(jsonOf(await rotate("--json")).rotated[0].activates_at).toBe(rotated.activates_at);
    expect((await rotate("--undo")).exitCode).toBe(0);
    expect(await statesOf()).toEqual(["active", "retired"]);
    const nothing = await rotate("--undo");
    expect(nothing.exitCode).toBe(1);
  });

  test("--now signs at once, --undo goes back", async () => {
    const [first] = await keysOf();
    expect(jsonOf(await rotate("--now", "--yes", "--json")).rotated).toMatchObject([{ done: true }]);
    expect((await keysOf()).find(({ state }) => state === "active")?.id).not.toBe(first?.id);
    expect((await rotate("--undo")).exitCode).toBe(0);
    expect((await keysOf()).find(({ state }) => state === "active")?.id).toBe(first?.id);
  });

  test("--emergency leaves one key", async () => {
    const ran = await rotate("--emergency", "--yes");
    expect(ran.exitCode).toBe(0);
    expect((await statesOf()).filter((state) => state !== "retired")).toEqual(["active"]);
  });

  // The new key is in the file before anything is sealed under it, and the old one stays there for old backups.
  test("--what master puts the new key before the old one in secrets.env, for its owner alone", async () => {
    const path = join(home, "secrets.env");
    const ringOf = () => /^PRIMER_MASTER_KEY=(.*)$/m.exec(readFileSync(path, "utf8"))?.[1]?.split(",") ?? [];
    const before = ringOf();
    const ran = await rotate("--what", "master", "--json");
    expect(ran.exitCode).toBe(0);
    expect(ringOf().slice(1)).toEqual(before);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    for (const key of ringOf()) expect(ran.stdout + ran.stderr).not.toContain(key);
    expect((await runPrimer(["users", "list", "--dir", home])).exitCode).toBe(0);
  });

  // Only the file can be written for its owner; what comes from outside is changed where it comes from.
  test("--what master with the key in the environment: exit 2; with a new one before the old one there: done", async () => {
    const other = await scratch.home();
    const key = /^PRIMER_MASTER_KEY=(.*)$/m.exec(readFileSync(join(other, "secrets.env"), "utf8"))?.[1] ?? "";
    const files = hashesOf(other, ["secrets.env"]);
    const run = (ring: string) =>
      runPrimer(["rotate-keys", "--what", "master", "--dir", other], { environment: { PRIMER_MASTER_KEY: ring } });
    expect((await run(key)).exitCode).toBe(2);
    const added = generateSecret(systemRandom.bytes);
    expect((await run(`${added},${key}`)).exitCode).toBe(0);
    expect(hashesOf(other, ["secrets.env"])).toEqual(files);
    const users = ["users", "list", "--dir", other];
    expect((await runPrimer(users, { environment: { PRIMER_MASTER_KEY: added } })).exitCode).toBe(0);
  });

  test("each kind by itself, and all four at once", async () => {
    expect((await rotate("--what", "refresh")).exitCode).toBe(0);
    expect(await statesOf("refresh")).toEqual(["retiring", "active"]);
    expect((await rotate("--what", "refresh,pepper")).exitCode).toBe(0);
    expect(await statesOf("pepper")).toEqual(["active"]);
    expect((await runPrimer(["doctor", "--dir", home])).exitCode).toBe(0);
  });
});
