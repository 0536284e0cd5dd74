import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ADMIN, makeFolder, openScratch } from "./support/home.ts";
import { passwordFits } from "./support/installation.ts";
import { login, serve } from "./support/serve.ts";
import { KEYS, openTerminal, type Session } from "./support/terminal.ts";

const scratch = openScratch();
afterAll(() => scratch.remove());

let session: Session | undefined;
afterEach(() => session?.close());

/** `primer init` with a person in front of it; the quick kind of key, since its kind is not what is asked here. */
function wizard(home: string): Session {
  session = openTerminal(["init", "--algorithm", "ES256", "--dir", home], makeFolder(scratch.path("cwd")));
  return session;
}

/** Waits for each question, and answers it. */
async function answer(terminal: Session, answers: readonly (readonly [question: string, ...keys: string[]])[]) {
  for (const [question, ...keys] of answers) {
    await terminal.sees(question);
    terminal.press(...keys);
  }
}

const { enter, down, left, ctrlC } = KEYS;

describe("the wizard of init", () => {
  // Somebody who takes every default is logged in a minute later, with the password that was on the screen.
  test("by its defaults: an installation for this machine, and its password logs in", async () => {
    const home = scratch.path("home");
    const terminal = wizard(home);
    await answer(terminal, [
      ["What is it for?", enter],
      ["PostgreSQL URL", enter],
      ["Redis URL", enter],
      ["Mail server URL", enter],
      ["User name of the first administrator", enter],
      ["Their e-mail address", "ada", enter],
      ["An e-mail address, please", "@example.org", enter],
      ["Choose the password yourself?", enter],
      [`Set it up in ${home}?`, enter],
    ]);
    await terminal.sees("Next: primer serve");
    expect(await terminal.exited).toBe(0);
    const screen = terminal.screen();
    for (const text of ["development", "this machine only", "staging", "production"]) expect(screen).toContain(text);
    expect(screen).not.toContain("At what address do people reach it?");
    const password = /Password +(([0-9a-z]{5}-){4}[0-9a-z]{5})/.exec(screen)?.[1] ?? "";

    const serving = await serve(home);
    expect((await login(serving.url, "admin", password)).status).toBe(200);
    expect((await login(serving.url, "ada@example.org", password)).status).toBe(200);
    expect(await serving.stop()).toBe(0);
  });

  test("with answers of one's own: what is wrong is said at once, and a typed password is never on the screen", async () => {
    const home = scratch.path("home");
    const terminal = wizard(home);
    await answer(terminal, [
      ["What is it for?", down, down, enter],
      ["At what address do people reach it?", "http//login", enter],
      ["Expected an http or https origin", "\u0015", "https://login.example.org", enter],
      ["PostgreSQL URL", "mysql://db", enter],
      ["Expected a URL starting with postgres://", "\u0015", enter],
      ["Redis URL", enter],
      ["Mail server URL", "smtps://u:p@mail.example.org", enter],
      ["User name of the first administrator", "\u0015", "grace", enter],
      ["Their e-mail address", "grace@example.org", enter],
      ["Choose the password yourself?", left, enter],
      ["Password (at least 15 characters)", "short", enter],
      ["At least 15 characters", "\u0015", "grace.example.org", enter],
      ["Leave out your name", ADMIN.password, enter],
      [`Set it up in ${home}?`, enter],
    ]);
    expect(await terminal.exited).toBe(0);
    expect(terminal.screen()).not.toContain(ADMIN.password);
    expect(readFileSync(join(home, "primer.toml"), "utf8")).toMatch(
      /^environment = "production"$[\s\S]*^public_url = "https:\/\/login\.example\.org"$/m,
    );
    expect(readFileSync(join(home, "secrets.env"), "utf8")).toContain("SMTP_URL=smtps://u:p@mail.example.org");
    expect(await passwordFits(home, "grace", ADMIN.password)).toBe(true);
  });

  // Whoever stops half-way has changed nothing.
  test.each([
    ["at the first question", []],
    [
      "at a later one",
      [
        ["What is it for?", enter],
        ["PostgreSQL URL", enter],
      ],
    ],
  ] as const)("Ctrl-C %s leaves nothing behind, and the exit code says so", async (_name, before) => {
    const home = scratch.path("home");
    const terminal = wizard(home);
    await answer(terminal, before);
    await terminal.sees(before.length === 0 ? "What is it for?" : "Redis URL");
    terminal.press(ctrlC);
    expect(await terminal.exited).not.toBe(0);
    expect(existsSync(home)).toBe(false);
    expect(terminal.screen()).toContain("nothing was set up");
  });

  test("answering no at the end leaves nothing behind", async () => {
    const home = scratch.path("home");
    const terminal = wizard(home);
    await answer(terminal, [
      ["What is it for?", enter],
      ["PostgreSQL URL", enter],
      ["Redis URL", enter],
      ["Mail server URL", enter],
      ["User name of the first administrator", enter],
      ["Their e-mail address", "ada@example.org", enter],
      ["Choose the password yourself?", enter],
      [`Set it up in ${home}?`, "n"],
    ]);
    expect(await terminal.exited).not.toBe(0);
    expect(existsSync(home)).toBe(false);
  });

  test("in a home that is set up: asks nothing, and changes nothing", async () => {
    const home = await scratch.home();
    const before = readdirSync(home).sort();
    const terminal = wizard(home);
    expect(await terminal.exited).toBe(0);
    expect(terminal.screen()).not.toContain("What is it for?");
    expect(readdirSync(home).sort()).toEqual(before);
    expect(await passwordFits(home, ADMIN.username, ADMIN.password)).toBe(true);
  });
});

test("a password that is asked for at the terminal is not shown, and is the one that is set", async () => {
  const home = await scratch.home();
  session = openTerminal(["users", "set-password", "admin", "--dir", home], scratch.folder);
  await answer(session, [["Password", "another horse, another staple", enter]]);
  expect(await session.exited).toBe(0);
  expect(session.screen()).not.toContain("another horse");
  expect(await passwordFits(home, ADMIN.username, "another horse, another staple")).toBe(true);
});
