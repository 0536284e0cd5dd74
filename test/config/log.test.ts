import { describe, expect, test } from "bun:test";
import { createLog, type LogLevel, redactText } from "../../config/log.ts";

const NOW = new Date("2026-03-01T12:00:00.000Z");
const CANARY = "c4n4ry-9f8e7d6c";

function logInto(lines: string[], level: () => LogLevel = () => "debug") {
  return createLog(level, { write: (line) => lines.push(line) }, () => NOW);
}

/** The one line that `write` leaves in the log. */
function lineOf(write: (log: ReturnType<typeof createLog>) => void): string {
  const lines: string[] = [];
  write(logInto(lines));
  expect(lines).toHaveLength(1);
  return lines[0] ?? "";
}

const JWT = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJjNG40cnkifQ.c2lnbmF0dXJl";

// Nothing that lets somebody in, and nobody's whole address, ever stands in a log line.
describe("what never stands in the log", () => {
  const SECRET_FIELDS = [
    "password",
    "new_password",
    "current_password",
    "passwd",
    "secret",
    "client_secret",
    "token",
    "access_token",
    "refresh_token",
    "mfa_token",
    "authorization",
    "Authorization",
    "cookie",
    "set-cookie",
    "pepper",
    "master_key",
    "private_key",
    "hash",
    "secret_hash",
    "smtp_url",
    "body",
    "html",
    "text",
  ];

  test.each(SECRET_FIELDS)("the value of a field named %s", (name) => {
    for (const value of [CANARY, { inner: CANARY }, [CANARY]]) {
      const fields = { event: "test", [name]: value, nested: { deeper: [{ [name]: value }] } };
      expect(lineOf((log) => log.info("A line", fields))).not.toContain(CANARY);
    }
  });

  test.each([
    ["a JWT", `Bearer ${JWT}`, "eyJ"],
    ["a JWE", "eyJhbGciOiJkaXIifQ..aXYtaXY.Y2lwaGVy.dGFn", "Y2lwaGVy"],
    ["credentials in a URL", `postgres://primer:${CANARY}@db.example.org/primer`, CANARY],
    ["a password alone in a URL", `redis://:${CANARY}@cache:6379`, CANARY],
    ["a password with an @ in a URL", `postgres://primer:x@${CANARY}@db/primer`, CANARY],
    ["the values of a statement", `Failed query: insert into "users" values ($1)\nparams: ${CANARY},ada`, CANARY],
    ["a mail address", "ada.lovelace@example.org", "lovelace"],
    ["a mail address in a sentence", "Sent to <ada.lovelace@example.org>, once", "lovelace"],
    ["a mail address with a tag", "ada+lovelace@example.org", "lovelace"],
    ["a mail address in other letters", "åda.lövelåce@exämple.org", "lövelåce"],
    ["a mail address of this machine", "administrator@localhost", "administrator@"],
  ])("%s in free text, wherever it comes from", (_name, text, canary) => {
    expect(redactText(text)).not.toContain(canary);
    const error = new Error(text, { cause: new Error(text) });
    expect(lineOf((log) => log.info(text, { event: "test" }))).not.toContain(canary);
    expect(lineOf((log) => log.info("A line", { event: "test", url: text, list: [text] }))).not.toContain(canary);
    expect(lineOf((log) => log.error("It failed", { event: "test", error }))).not.toContain(canary);
  });

  test("the values of a statement in an error's stack; the stack itself stays", () => {
    const error = new Error(`Failed query: select $1\nparams: ${CANARY}\n${CANARY}`);
    const line = lineOf((log) => log.error("It failed", { event: "test", error }));
    expect(line).not.toContain(CANARY);
    expect(JSON.parse(line).error.stack).toContain("log.test.ts");
  });
});

describe("what stays readable", () => {
  test.each([
    ["the first letter of an address and its domain", "ada@example.org", "a***@example.org"],
    ["host and path of a URL", "postgres://u:p@db.example.org/primer", "postgres://[redacted]@db.example.org/primer"],
    ["a URL without credentials", "https://login.example.org/docs", "https://login.example.org/docs"],
    ["plain text", "The eyes of 3 keys", "The eyes of 3 keys"],
    ["a UUID", "019b76da-a800-7000-8000-000000000000", "019b76da-a800-7000-8000-000000000000"],
  ])("%s", (_name, text, expected) => {
    expect(redactText(text)).toBe(expected);
  });

  test("names that only resemble secret ones", () => {
    const fields = {
      event: "test",
      token_type: "bearer",
      key_id: "abc",
      path: "/api/v1/auth/login",
      reason: "wrong_password",
    };
    expect(JSON.parse(lineOf((log) => log.info("A line", fields)))).toMatchObject(fields);
  });
});

describe("a line", () => {
  test("is one JSON object with time in UTC, level, message and event", () => {
    const line = lineOf((log) => log.warn("Careful", { event: "test.careful", request_id: "r1", count: 10n }));
    expect(line).toEndWith("}\n");
    expect(JSON.parse(line)).toEqual({
      time: "2026-03-01T12:00:00.000Z",
      level: "warn",
      msg: "Careful",
      event: "test.careful",
      request_id: "r1",
      count: "10",
    });
  });

  // What a client sends cannot begin a line of its own, nor reach a terminal as a control sequence.
  test("stays one line, whatever is in it", () => {
    const agent = 'x\r\n{"level":"error","msg":"forged"}\u001b[31m\u2028y';
    const line = lineOf((log) => log.info("A request", { event: "test", user_agent: agent }));
    expect(line.trimEnd()).not.toContain("\n");
    expect(line).not.toContain("\u001b");
    expect(JSON.parse(line).user_agent).toBe(agent);
  });

  test("of an error tells its causes, to a depth, and survives a circle of them", () => {
    const root = new Error("root");
    const error = new Error("outer", { cause: root });
    root.cause = error;
    const { error: logged } = JSON.parse(lineOf((log) => log.error("It failed", { event: "test", error })));
    expect(logged).toMatchObject({ message: "outer", cause: { message: "root" } });
  });

  test.each([
    ["debug", ["debug", "info", "warn", "error"]],
    ["info", ["info", "warn", "error"]],
    ["warn", ["warn", "error"]],
    ["error", ["error"]],
  ] as const)("below the level %s is not written", (level, expected) => {
    const lines: string[] = [];
    const log = logInto(lines, () => level);
    for (const each of ["debug", "info", "warn", "error"] as const) log[each]("A line", { event: "test" });
    expect(lines.map((line) => JSON.parse(line).level)).toEqual([...expected]);
  });

  test("is asked for its level each time, so that a changed setting counts at once", () => {
    let level: LogLevel = "error";
    const lines: string[] = [];
    const log = logInto(lines, () => level);
    log.info("one", { event: "test" });
    level = "info";
    log.info("two", { event: "test" });
    expect(lines.map((line) => JSON.parse(line).msg)).toEqual(["two"]);
  });

  // A reader that has stopped reading never fills the memory; that lines were dropped is said.
  test("is dropped while too much is unread, and the number of dropped ones is told after", () => {
    const lines: string[] = [];
    const sink = { write: (line: string) => lines.push(line), writableLength: 64 * 1024 * 1024 };
    const log = createLog(
      () => "info",
      sink,
      () => NOW,
    );
    log.info("one", { event: "test" });
    log.info("two", { event: "test" });
    expect(lines).toHaveLength(0);
    sink.writableLength = 0;
    log.info("three", { event: "test" });
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({ msg: "three", lines_dropped: 2 });
  });
});
