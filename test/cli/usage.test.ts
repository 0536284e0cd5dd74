import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { COMMANDS } from "../../cli/commands.ts";
import { parseCommandLine } from "../../cli/program.ts";
import { VERSION } from "../../config/version.ts";
import { PRIMER, plainEnvironment, runPrimer } from "../support/server.ts";
import { jsonOf, makeFolder, openScratch, when } from "./support/home.ts";

const scratch = openScratch();
afterAll(() => scratch.remove());

const cwd = makeFolder(scratch.path("cwd"));
const primer = (...args: readonly string[]) => runPrimer(args, { cwd });

describe("help", () => {
  // Every command tells how it is used, with an example that the command line itself understands.
  test.each(COMMANDS.map((spec) => [spec.name, spec] as const))("%s has an example that parses", async (name, spec) => {
    expect(spec.summary).not.toBe("");
    expect(spec.examples.length).toBeGreaterThan(0);
    for (const example of spec.examples) {
      const [program, ...words] = example.split(/ [<>] /)[0]?.split(" ") ?? [];
      expect(program).toBe("primer");
      const parsed = await parseCommandLine(COMMANDS, words);
      expect("spec" in parsed ? parsed.spec.name : parsed.exitCode).toBe(name);
    }
  });

  test("of every command shows its example and the options that all have", async () => {
    const asked = COMMANDS.map(async (spec) => {
      const written: string[] = [];
      const write = process.stdout.write;
      process.stdout.write = ((text: string) => written.push(text) > 0) as typeof write;
      try {
        expect(await parseCommandLine(COMMANDS, [...spec.name.split(" "), "--help"])).toEqual({ exitCode: 0 });
      } finally {
        process.stdout.write = write;
      }
      const help = written.join("");
      for (const part of [...spec.examples, "--dir <dir>", "--json", "--no-color"]) expect(help).toContain(part);
    });
    await Promise.all(asked);
  });

  test.each([[["--help"]], [["users", "--help"]], [["users", "create", "--help"]], [["config", "show", "--help"]]])(
    "%j is exit 0, on standard output",
    async (args) => {
      const ran = await primer(...args);
      expect(ran).toMatchObject({ exitCode: 0, stderr: "" });
      expect(ran.stdout).toContain("Example");
    },
  );
});

describe("wrong usage is exit 2, and nothing on standard output", () => {
  test.each([
    [["user", "list"], "users"],
    [["users", "lst"], "list"],
    [["init", "--yess"], "--yes"],
    [["users", "list", "--limt", "1"], "--limit"],
    [["config", "explain", "tokens.acess_ttl"], "tokens.access_ttl"],
    [["completions", "tcsh"], "bash"],
  ])("%j: suggests %s", async (args, suggested) => {
    const ran = await primer(...args);
    expect(ran).toMatchObject({ exitCode: 2, stdout: "" });
    expect(ran.stderr).toContain(suggested);
  });

  test.each([
    [[]],
    [["users"]],
    [["frobnicate"]],
    [["users", "show"]],
    [["users", "list", "extra"]],
    [["users", "create", "ada", "--email"]],
    [["users", "set-roles", "ada"]],
    [["serve", "--port"]],
    [["config", "explain"]],
  ])("%j", async (args) => {
    expect(await primer(...args)).toMatchObject({ exitCode: 2, stdout: "" });
  });

  // A script on a pipe is never asked; it is told which flag it lacks.
  test.each([
    [["init"], "--yes"],
    [["users", "create", "ada", "--email", "ada@example.org"], "--password-stdin"],
    [["users", "create", "ada", "--password-stdin"], "--email"],
    [["users", "set-password", "admin"], "--password-stdin"],
  ])("%j without a terminal names %s", async (args, flag) => {
    const home = args[0] === "init" ? scratch.path("none") : await scratch.home();
    const ran = await runPrimer([...args, "--dir", home], { cwd, input: "correct horse battery staple" });
    expect(ran).toMatchObject({ exitCode: 2, stdout: "" });
    expect(ran.stderr).toContain(flag);
  });
});

describe("--json", () => {
  // A program reads one document from standard output, however the command ends.
  test.each([
    [["completions", "tcsh"], 2],
    [["config", "explain", "nothing"], 2],
    [["config", "check", "--dir", "missing"], 2],
    [["init", "--dir", "missing"], 2],
    [["users", "list", "--limit", "0", "--dir", "missing"], 2],
    [["serve", "--port", "70000", "--dir", "missing"], 2],
  ])("%j: an error is one JSON document", async (args, exitCode) => {
    const ran = await primer(...args, "--json");
    expect(ran.exitCode).toBe(exitCode);
    expect(jsonOf(ran).error).toMatchObject({ exit_code: exitCode, message: expect.any(String) });
    expect(ran.stderr).not.toBe("");
  });

  // What is longer than a pipe holds reaches a reader that takes its time.
  test("a slow reader gets all of it", async () => {
    const child = Bun.spawn(["bash", "-c", `"$@" | (sleep 1; wc -c)`, "-", ...PRIMER, "openapi"], {
      env: plainEnvironment(),
      stdout: "pipe",
    });
    const length = Number(await new Response(child.stdout).text());
    expect(length).toBe(Buffer.byteLength((await primer("openapi")).stdout));
    expect(length).toBeGreaterThan(65_536);
  });

  test("openapi prints the document, and nothing else", async () => {
    const [asJson, asText] = await Promise.all([primer("openapi", "--json"), primer("openapi")]);
    expect(jsonOf(asJson).paths["/api/v1/auth/login"].post).toBeDefined();
    expect(jsonOf(asText)).toEqual(jsonOf(asJson));
  });
});

test("the version, by itself and with other options", async () => {
  for (const args of [["--version"], ["--version", "--no-color"]]) {
    expect(await primer(...args)).toEqual({ exitCode: 0, stdout: `${VERSION}\n`, stderr: "" });
  }
});

// Whoever only looks leaves no trace.
test("none of this wrote anything into the folder it ran in", () => {
  expect(readdirSync(cwd)).toEqual([]);
});

describe("completions", () => {
  const scriptOf = async (shell: string) => (await primer("completions", shell)).stdout;

  /** What bash would offer for a command line that is being typed. */
  async function offered(words: readonly string[]): Promise<string[]> {
    const quoted = words.map((word) => `'${word}'`).join(" ");
    const script = `${await scriptOf("bash")}\nCOMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _primer; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const shell = Bun.spawn(["bash", "--norc", "-u", "-c", script], { stdout: "pipe", stderr: "inherit" });
    const text = await new Response(shell.stdout).text();
    expect(await shell.exited).toBe(0);
    return text.split("\n").filter((line) => line !== "");
  }

  const BASH = when(Bun.which("bash"), "completions in bash: there is no bash");
  test.if(BASH).each([
    [["primer", "us"], ["users"]],
    [
      ["primer", "users", "s"],
      ["show", "set-password", "set-roles"],
    ],
    [["primer", "config", "e"], ["explain"]],
    [
      ["primer", "completions", ""],
      ["bash", "zsh", "fish"],
    ],
    [["primer", "users", "create", "ada", "--em"], ["--email"]],
    [["primer", "init", "--yes", "--key"], ["--key-bits"]],
    [["primer", "nothing", "x"], []],
  ] as const)("bash: %j", async (words, expected) => {
    const found = await offered(words);
    for (const word of expected) expect(found).toContain(word);
    if (!(words as readonly string[]).includes(""))
      expect(found.every((word) => word.startsWith(words.at(-1) ?? ""))).toBe(true);
    if (expected.length === 0) expect(found).toEqual([]);
  });

  test.each(["zsh", "fish"])("%s: the script is one the shell can read", async (shell) => {
    const script = await scriptOf(shell);
    for (const { name } of COMMANDS) expect(script).toContain(name.split(" ").at(-1) ?? name);
    if (!when(Bun.which(shell), `reading the completions with ${shell}: there is no ${shell}`)) return;
    const check = Bun.spawn([shell, "-n"], { stdin: new Blob([script]), stdout: "inherit", stderr: "inherit" });
    expect(await check.exited).toBe(0);
  });
});
