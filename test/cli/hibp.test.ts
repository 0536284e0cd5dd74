import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { $ } from "bun";
import { BREACH_FILTER_FILE, isInFilter } from "../../server/features/passwords/breach-filter.ts";
import { sha1Of } from "../support/range-service.ts";
import { PRIMER, plainEnvironment, runPrimer } from "../support/server.ts";
import { hashesOf, jsonOf, makeFolder, openScratch } from "./support/home.ts";
import { type Serving, serve, until } from "./support/serve.ts";

const LEAKED = "violet tractor nineteen";
const RARE = "amber tractor seventeen";
const PASSWORD = "tangerine dream sequence";

const scratch = openScratch();
afterAll(() => scratch.remove());

const hashes = (count: number) => Array.from({ length: count }, (_, index) => sha1Of(`password ${index}`));
/** A list as the downloader writes it. */
const listOf = (all: readonly string[], end = "\n") =>
  all
    .map((hash) => `${hash}:${hash === sha1Of(RARE) ? 1 : 20}${end}`)
    .sort()
    .join("");
const GOOD = listOf([...hashes(2000), sha1Of(LEAKED), sha1Of(RARE)]);

function fileOf(content: string | Uint8Array): string {
  const path = scratch.path("list");
  writeFileSync(path, content);
  return path;
}

/** A folder with a file for each prefix, as the downloader writes it: no line end after the last line. */
function folderOf(all: readonly string[], name: (prefix: string) => string): string {
  const path = makeFolder(scratch.path("ranges"));
  const ranges = Map.groupBy(all, (hash) => hash.slice(0, 5));
  for (const [prefix, members] of ranges) {
    writeFileSync(
      join(path, name(prefix)),
      members
        .map((hash) => `${hash.slice(5)}:20`)
        .sort()
        .join("\r\n"),
    );
  }
  return path;
}

const home = () => makeFolder(scratch.path("home"));
const setOf = (where: string) => join(where, BREACH_FILTER_FILE);
const importing = (where: string, ...args: string[]) =>
  runPrimer(["hibp", "import", ...args, "--dir", where, "--json"]);
const holds = (where: string, password: string) => isInFilter(setOf(where), sha1Of(password));

describe("hibp import", () => {
  const SOURCES: readonly (readonly [string, () => string])[] = [
    ["a sorted file", () => fileOf(GOOD)],
    ["a file with the line ends of Windows", () => fileOf(GOOD.replaceAll("\n", "\r\n"))],
    ["a file in small letters", () => fileOf(GOOD.toLowerCase())],
    ["a file without a last line end", () => fileOf(GOOD.trimEnd())],
    [
      "a folder of files such as 0A1B2.txt",
      () => folderOf([...hashes(300), sha1Of(LEAKED)], (prefix) => `${prefix}.txt`),
    ],
    ["a folder of files such as 0A1B2", () => folderOf([...hashes(300), sha1Of(LEAKED)], (prefix) => prefix)],
    ["a folder of files such as 0a1b2", () => folderOf([sha1Of(LEAKED)], (prefix) => prefix.toLowerCase())],
  ];
  test.concurrent.each(SOURCES)("reads %s", async (_name, source) => {
    const where = home();
    const path = source();
    const ran = await importing(where, path);
    // A folder without all of its files may be half a download: that is said.
    const isFolder = statSync(path).isDirectory();
    expect({ exitCode: ran.exitCode, warned: ran.stderr !== "" }).toEqual({ exitCode: 0, warned: isFolder });
    const { passwords, false_positive_rate } = jsonOf(ran);
    expect(passwords).toBeGreaterThan(0);
    expect(false_positive_rate).toBeLessThanOrEqual(1 / 10_000);
    expect(await Promise.all([LEAKED, PASSWORD].map((password) => holds(where, password)))).toEqual([true, false]);
    expect(statSync(setOf(where)).mode & 0o777).toBe(0o600);
    expect(readdirSync(join(where, "hibp-import"))).not.toContain("unfinished");
  });

  test("a folder may hold files that are none of its own", async () => {
    const path = folderOf([sha1Of(LEAKED)], (prefix) => prefix);
    writeFileSync(join(path, "README.txt"), "hello");
    mkdirSync(join(path, "lost+found"));
    expect(jsonOf(await importing(home(), path))).toMatchObject({ passwords: 1, prefixes: 1 });
  });

  test("--min-count leaves out what was seen less often", async () => {
    const where = home();
    expect(jsonOf(await importing(where, fileOf(GOOD), "--min-count", "2"))).toMatchObject({
      passwords: 2001,
      skipped: 1,
    });
    expect(await Promise.all([LEAKED, RARE].map((password) => holds(where, password)))).toEqual([true, false]);
  });

  test("a count of 0 is padding, and the same hash twice is one", async () => {
    const list = `${sha1Of(RARE)}:0\n${sha1Of(LEAKED)}:1\n${sha1Of(LEAKED)}:1\n`
      .split("\n")
      .sort()
      .join("\n")
      .trimStart();
    expect(jsonOf(await importing(home(), fileOf(`${list}\n`)))).toMatchObject({ passwords: 1, skipped: 1 });
  });

  test("--dry-run reads everything and writes nothing", async () => {
    const where = scratch.path("nowhere");
    const ran = await importing(where, fileOf(GOOD), "--dry-run");
    expect(jsonOf(ran)).toMatchObject({ dry_run: true, passwords: 2002, path: setOf(where) });
    expect(existsSync(where)).toBe(false);
    expect((await importing(where, fileOf(`${GOOD}x`), "--dry-run")).exitCode).toBe(1);
  });

  test("what it says to people names the rate of false alarms", async () => {
    const { stdout } = await runPrimer(["hibp", "import", fileOf(GOOD), "--dir", home()]);
    const [, oneIn] = /once in (\d+) times/.exec(stdout) ?? [];
    expect(Number(oneIn)).toBeGreaterThanOrEqual(10_000);
  });
});

// A list that is not whole never takes the place of one that is.
describe("a list that cannot be used is exit 1, and the set that is there stays", () => {
  let where: string;
  let before: Record<string, string>;
  beforeAll(async () => {
    where = home();
    expect((await importing(where, fileOf(GOOD))).exitCode).toBe(0);
    before = hashesOf(where, [BREACH_FILTER_FILE]);
  });

  const lines = GOOD.split("\n");
  const swapped = [...lines];
  [swapped[700], swapped[701]] = [swapped[701] ?? "", swapped[700] ?? ""];
  const withLine = (line: string) => lines.with(1000, line).join("\n");
  const BAD: readonly (readonly [string, () => string])[] = [
    ["cut off in a hash", () => fileOf(GOOD.slice(0, 45_020))],
    ["cut off before the count", () => fileOf(`${lines.slice(0, -2).join("\n")}\n${lines.at(-2)?.slice(0, 41)}`)],
    ["cut off between two lines", () => fileOf(`${lines.slice(0, 1500).join("\n")}\n`)],
    ["not sorted", () => fileOf(swapped.join("\n"))],
    ["sorted backwards", () => fileOf(lines.toReversed().join("\n").trimStart())],
    ["a digit that is none", () => fileOf(withLine(`${"G".repeat(40)}:1`))],
    ["a digit that is none, far behind", () => fileOf(withLine(lines[1000]?.replace(/.:/, "g:") ?? ""))],
    ["a hash that is too short (NTLM)", () => fileOf(`${createHash("md5").update("x").digest("hex")}:1\n`)],
    ["a hash that is too long", () => fileOf(withLine(`${"A".repeat(41)}:1`))],
    ["a count that is none", () => fileOf(withLine(lines[1000]?.replace(/:.*/, ":many") ?? ""))],
    ["a count below zero", () => fileOf(withLine(lines[1000]?.replace(/:.*/, ":-1") ?? ""))],
    ["a huge line", () => fileOf("A".repeat(5_000_000))],
    ["an empty line", () => fileOf(withLine(""))],
    ["other bytes", () => fileOf(Buffer.alloc(100_000, 0xff))],
    ["a packed file", () => fileOf(Bun.gzipSync(GOOD))],
    ["an empty file", () => fileOf("")],
    ["an empty folder", () => makeFolder(scratch.path("empty"))],
    [
      "a folder with an empty file",
      () => {
        const path = folderOf(hashes(10), (prefix) => prefix);
        writeFileSync(join(path, "FFFFF"), "");
        return path;
      },
    ],
    [
      "a folder with a file that is cut off",
      () => {
        const path = folderOf(hashes(10), (prefix) => prefix);
        writeFileSync(join(path, "FFFFF.txt"), `${"A".repeat(35)}:3\r\n${"B".repeat(20)}`);
        return path;
      },
    ],
    [
      "a folder with two files for a prefix",
      () => {
        const path = folderOf(hashes(10), (prefix) => prefix);
        for (const name of ["FFFFF.txt", "FFFFF"]) writeFileSync(join(path, name), `${"A".repeat(35)}:3`);
        return path;
      },
    ],
  ];
  test.concurrent.each(BAD)("%s", async (_name, source) => {
    const own = home();
    copyFileSync(setOf(where), setOf(own));
    const { exitCode, stdout } = await importing(own, source());
    expect({ exitCode, json: JSON.parse(stdout) }).toMatchObject({ exitCode: 1, json: { error: { exit_code: 1 } } });
    expect(hashesOf(own, [BREACH_FILTER_FILE])).toEqual(before);
    expect(existsSync(join(own, "hibp-import/unfinished"))).toBe(false);
  });

  test("nothing that --min-count leaves over", async () => {
    expect((await importing(where, fileOf(GOOD), "--min-count", "1000")).exitCode).toBe(1);
    expect(hashesOf(where, [BREACH_FILTER_FILE])).toEqual(before);
  });

  test.each([[["/nonexistent/list"]], [["--min-count", "0", "list"]], [["--min-count", "many", "list"]], [[]]])(
    "%j is wrong usage: exit 2",
    async (args) => {
      expect((await importing(where, ...args)).exitCode).toBe(2);
    },
  );

  /** An import that reads from a pipe, so that it goes on for as long as we like. */
  async function slowImport(): Promise<{ child: Bun.Subprocess; pipe: FileHandle }> {
    const path = scratch.path("pipe");
    await $`mkfifo ${path}`;
    const child = Bun.spawn([...PRIMER, "hibp", "import", path, "--dir", where], {
      env: plainEnvironment(),
      stdio: ["ignore", "ignore", "pipe"],
    });
    const pipe = await open(path, "w");
    await pipe.write(GOOD.slice(0, 41 * 500));
    await until("the import to begin", () => existsSync(join(where, "hibp-import/unfinished")));
    return { child, pipe };
  }

  // Killed at any moment, an import has changed nothing, and the next one is not in its way.
  test("killed half-way: the old set stays, and the next import works", async () => {
    const { child, pipe } = await slowImport();
    child.kill("SIGKILL");
    await child.exited;
    await pipe.close();
    expect(hashesOf(where, [BREACH_FILTER_FILE])).toEqual(before);
    expect((await importing(where, fileOf(GOOD))).exitCode).toBe(0);
    expect(hashesOf(where, [BREACH_FILTER_FILE])).toEqual(before);
    expect(existsSync(join(where, "hibp-import/unfinished"))).toBe(false);
  });

  test("Ctrl-C half-way: exit 1, and nothing half-written is left", async () => {
    const { child, pipe } = await slowImport();
    child.kill("SIGINT");
    const writing = until("the import to end", async () => {
      await pipe.write("").catch(() => {});
      await pipe.write(GOOD.slice(0, 41)).catch(() => {});
      return child.exitCode !== null;
    });
    expect(await child.exited).toBe(1);
    await writing;
    await pipe.close();
    expect(hashesOf(where, [BREACH_FILTER_FILE])).toEqual(before);
    expect(existsSync(join(where, "hibp-import/unfinished"))).toBe(false);
  });

  test("one at a time: a second one is exit 1 and harms nothing", async () => {
    const { child, pipe } = await slowImport();
    expect((await importing(where, fileOf(GOOD))).exitCode).toBe(1);
    expect(existsSync(join(where, "hibp-import/unfinished"))).toBe(true);
    await pipe.write(GOOD.slice(41 * 500));
    await pipe.close();
    expect(await child.exited).toBe(0);
  });
});

// The set counts for everybody who sets a password, and a server that runs takes a new one without a restart.
describe("with password.hibp = offline", () => {
  const OFFLINE = { PRIMER_PASSWORD__HIBP: "offline" };
  let serving: Serving;
  beforeAll(async () => {
    serving = await serve(await scratch.home(), { environment: OFFLINE });
  });
  afterAll(() => serving.stop());

  let made = 0;
  const create = (input: string) => {
    const name = `user-${++made}`;
    const args = ["users", "create", name, "--email", `${name}@example.org`, "--password-stdin", "--dir", serving.home];
    return runPrimer(args, { input, environment: OFFLINE });
  };
  const doctor = async () => {
    const { stdout, exitCode } = await runPrimer(["doctor", "--json", "--dir", serving.home], { environment: OFFLINE });
    const findings = JSON.parse(stdout).findings as { check: string; state: string }[];
    return { exitCode, state: findings.find(({ check }) => check === "breached")?.state };
  };

  test("before there is a set: passwords are taken with a warning, and doctor finds it", async () => {
    const { exitCode, stderr } = await create(LEAKED);
    expect({ exitCode, warned: stderr.includes("set_missing") }).toEqual({ exitCode: 0, warned: true });
    expect(await doctor()).toEqual({ exitCode: 4, state: "failed" });
  });

  test("an import counts at once, for the one that serves too", async () => {
    expect((await importing(serving.home, fileOf(GOOD))).exitCode).toBe(0);
    expect(await create(LEAKED)).toMatchObject({ exitCode: 2, stdout: "" });
    expect(await create(PASSWORD)).toMatchObject({ exitCode: 0, stderr: "" });
    expect(await doctor()).toEqual({ exitCode: 0, state: "ok" });
    expect((await importing(serving.home, fileOf(listOf([sha1Of(PASSWORD)])))).exitCode).toBe(0);
    expect(await create(LEAKED)).toMatchObject({ exitCode: 0, stderr: "" });
    expect(await create(PASSWORD)).toMatchObject({ exitCode: 2, stdout: "" });
  });
});
