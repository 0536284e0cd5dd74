import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { changeUser, requirePasswordChange, setPassword } from "../../../server/features/users/service.ts";
import { PASSWORD, type TestAnswer } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { afterNextHash } from "../support/observe.ts";
import { takeMails, tokenIn } from "./support.ts";

const AUTH = "/api/v1/auth";
const FRESH = "another horse battery staple";
const HOUR = 3_600_000;
const OPERATOR = { actor: { kind: "operator" } } as const;
const QUICK = { PRIMER_PASSWORD__FAILURE_FLOOR: "0ms", PRIMER_RATE_LIMITS__MAIL_ADDRESS: "off" };

let app: HttpApp;
let id: string;
beforeEach(async () => {
  app = await openHttpApp(QUICK);
  ({ id } = await app.createUser({ username: "ada" }));
});
afterEach(() => app.close());

const post = (path: string, body: unknown) => app.request("POST", `${AUTH}/${path}`, { body });
const forgot = (email = "ada@example.test") => post("forgot-password", { email });
const reset = (token: string, new_password = FRESH) => post("reset-password", { token, new_password });
const logIn = (password: string, username = "ada") => post("login", { username, password });
const codeOf = ({ status, body }: TestAnswer) => (status < 300 ? String(status) : `${status} ${body.error.code}`);
const refresh = async (refresh_token: string) => codeOf(await post("refresh", { refresh_token }));
const INVALID = "400 LINK_INVALID";

describe("a forgotten password", () => {
  test("the link sets a new one: every session ends, the owner is told, and nobody is logged in", async () => {
    const { refresh_token } = await app.login("ada");
    await takeMails(app);
    expect((await forgot()).body).toEqual({ status: "accepted" });
    const token = await tokenIn(app, "password_reset");
    const answer = await reset(token);
    expect([answer.status, answer.text, answer.headers.get("set-cookie")]).toEqual([204, "", null]);
    expect(await refresh(refresh_token)).toBe("401 AUTH_TOKEN_REVOKED");
    expect([codeOf(await logIn(PASSWORD)), codeOf(await logIn(FRESH))]).toEqual([
      "401 AUTH_INVALID_CREDENTIALS",
      "200",
    ]);
    expect((await takeMails(app)).map(({ template }) => template)).toContain("password_changed");
  });

  // Neither the answer nor what is done for it tells whether an address has an account.
  test("known, unknown and disabled addresses get the same answer, and only the first a mail", async () => {
    const { id: gone } = await app.createUser({ username: "dora" });
    await changeUser(app.deps, gone, { status: "disabled" }, OPERATOR);
    const answers = [await forgot(), await forgot("nobody@example.test"), await forgot("dora@example.test")];
    expect(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size).toBe(1);
    expect((await takeMails(app)).map(({ user_id }) => user_id)).toEqual([id]);
  });

  // A link works once, for its own purpose, for an hour, and only the newest one does.
  test("used, old, replaced, made up, and of another kind: one answer", async () => {
    await forgot();
    const old = await tokenIn(app, "password_reset");
    await forgot();
    const token = await tokenIn(app, "password_reset");
    expect(codeOf(await reset(old))).toBe(INVALID);
    expect(codeOf(await post("verify-email", { token }))).toBe(INVALID);
    expect(codeOf(await post("end-session", { token }))).toBe(INVALID);
    expect(codeOf(await reset(token))).toBe("204");
    expect(codeOf(await reset(token))).toBe(INVALID);
    expect(codeOf(await reset("made up"))).toBe(INVALID);
    await forgot();
    const late = (await takeMails(app)).at(-1)?.sealed?.token ?? "";
    app.clock.advance(HOUR);
    expect(codeOf(await reset(late))).toBe(INVALID);
  });

  test("20 at the same moment: one", async () => {
    await forgot();
    const token = await tokenIn(app, "password_reset");
    const answers = await Promise.all(Array.from({ length: 20 }, () => reset(token)));
    expect(answers.map(({ status }) => status).sort()).toEqual([204, ...Array(19).fill(400)]);
  });

  test("a weak password does not use it up, nor does a change of the password leave it alive", async () => {
    await forgot();
    const token = await tokenIn(app, "password_reset");
    expect(codeOf(await reset(token, "short"))).toBe("422 PASSWORD_TOO_WEAK");
    const { access_token } = await app.login("ada");
    const body = { current_password: PASSWORD, new_password: FRESH };
    await app.request("PATCH", "/api/v1/users/me/password", { token: access_token, body });
    expect(codeOf(await reset(token))).toBe(INVALID);
  });

  // The way back in for whoever was locked out by strangers.
  test("it lets in again whose password was switched off", async () => {
    await app.db.query(
      "INSERT INTO failure_counters (subject, failures, first_failure_at, last_failure_at) VALUES ($1, 100, now(), now())",
      [`user:${id}`],
    );
    await forgot();
    expect(codeOf(await reset(await tokenIn(app, "password_reset")))).toBe("204");
    expect(codeOf(await logIn(FRESH))).toBe("200");
  });

  // Links are made of the settings: what a request says of its host changes nothing.
  test("a poisoned Host header", async () => {
    await app.request("POST", `${AUTH}/forgot-password`, {
      body: { email: "ada@example.test" },
      headers: { "x-forwarded-host": "evil.test", forwarded: "host=evil.test" },
    });
    const [mail] = await takeMails(app);
    expect(JSON.stringify(mail)).not.toContain("evil");
  });
});

describe("a password that has to be changed", () => {
  test("the right one gets a token for a new one and no session", async () => {
    await requirePasswordChange(app.deps, id, OPERATOR);
    expect(codeOf(await logIn("wrong wrong wrong wrong"))).toBe("401 AUTH_INVALID_CREDENTIALS");
    const refused = await logIn(PASSWORD);
    expect(codeOf(refused)).toBe("403 AUTH_PASSWORD_CHANGE_REQUIRED");
    const { change_token } = refused.body.error.details;
    expect(codeOf(await reset(change_token))).toBe("204");
    expect(codeOf(await reset(change_token))).toBe(INVALID);
    expect(codeOf(await logIn(FRESH))).toBe("200");
    expect(await app.db.query("SELECT id FROM sessions WHERE user_id = $1", [id])).toHaveLength(1);
  });

  // Others know the password that has to be changed, so it cannot be kept, in whatever way it is set.
  test("the same one again is refused with the reason, and uses nothing up", async () => {
    await requirePasswordChange(app.deps, id, OPERATOR);
    const { change_token } = (await logIn(PASSWORD)).body.error.details;
    await forgot();
    const link = await tokenIn(app, "password_reset");
    for (const token of [change_token, link]) {
      const { status, body } = await reset(token, PASSWORD);
      expect([status, body.error.code]).toEqual([422, "PASSWORD_TOO_WEAK"]);
      expect(body.error.details.reasons.map(({ code }: { code: string }) => code)).toEqual(["password_unchanged"]);
    }
    await expect(setPassword(app.deps, id, PASSWORD, OPERATOR)).rejects.toMatchObject({
      errorCode: "PASSWORD_TOO_WEAK",
    });
    expect(codeOf(await logIn(PASSWORD))).toBe("403 AUTH_PASSWORD_CHANGE_REQUIRED");
    expect(codeOf(await reset(link))).toBe("204");
    expect(codeOf(await logIn(FRESH))).toBe("200");
  });

  // Whoever has to change it may take as many tries as they like to understand that it cannot be the same.
  test("to try the same one again and again is no guess", async () => {
    await requirePasswordChange(app.deps, id, OPERATOR);
    await forgot();
    const link = await tokenIn(app, "password_reset");
    for (let count = 0; count < 10; count++) expect(codeOf(await reset(link, PASSWORD))).toBe("422 PASSWORD_TOO_WEAK");
    expect(codeOf(await reset(link))).toBe("204");
  });

  // Whoever reads the mails of somebody who has to change it does not find it out by many tries at once: as at a login, so
  // few are looked at. The owner waits no longer than there, and with a new password it is over.
  test("one more try by a link waits as at a login", async () => {
    await requirePasswordChange(app.deps, id, OPERATOR);
    await forgot();
    const link = await tokenIn(app, "password_reset");
    await app.db.query(
      `INSERT INTO failure_counters (subject, failures, first_failure_at, last_failure_at, blocked_until)
       VALUES ($1, 5, $2, $2, $2::timestamptz + interval '1 second')`,
      [`user:${id}:new_password`, app.clock.now().toISOString()],
    );
    for (const password of [FRESH, PASSWORD])
      expect(codeOf(await reset(link, password))).toBe("429 RATE_LIMIT_EXCEEDED");
    app.clock.advance(1000);
    expect(codeOf(await reset(link))).toBe("204");
    expect(codeOf(await logIn(FRESH))).toBe("200");
    expect(await app.db.query("SELECT 1 FROM failure_counters")).toEqual([]);
  });

  // Whoever has only forgotten it may set what turns out to be the one they had.
  test("nobody else is kept from setting the one they have", async () => {
    await forgot();
    expect(codeOf(await reset(await tokenIn(app, "password_reset"), PASSWORD))).toBe("204");
  });

  // Somebody with the old password, who came a moment before the owner's reset, gets no way to replace the new one.
  test("none for whoever was being looked at while the password was replaced", async () => {
    await requirePasswordChange(app.deps, id, OPERATOR);
    afterNextHash(app.deps, () => setPassword(app.deps, id, FRESH, OPERATOR));
    const answer = await logIn(PASSWORD);
    expect([codeOf(answer), answer.body.error.details]).toEqual(["401 AUTH_INVALID_CREDENTIALS", undefined]);
  });

  test("no session for a login that was under way when it was asked for", async () => {
    afterNextHash(app.deps, () => requirePasswordChange(app.deps, id, OPERATOR));
    expect(codeOf(await logIn(PASSWORD))).toBe("401 AUTH_INVALID_CREDENTIALS");
    expect(await app.db.query("SELECT id FROM sessions WHERE user_id = $1", [id])).toEqual([]);
  });

  test("for ten minutes", async () => {
    await requirePasswordChange(app.deps, id, OPERATOR);
    const { change_token } = (await logIn(PASSWORD)).body.error.details;
    app.clock.advance(10 * 60_000);
    expect(codeOf(await reset(change_token))).toBe(INVALID);
  });
});

describe("PATCH /users/me/password", () => {
  const change = (token: string, current_password: string, new_password = FRESH) =>
    app.request("PATCH", "/api/v1/users/me/password", { token, body: { current_password, new_password } });

  test("every other session ends, and one's own goes on", async () => {
    const [mine, other] = [await app.login("ada"), await app.login("ada")];
    expect(codeOf(await change(mine.access_token, PASSWORD))).toBe("204");
    expect(await refresh(mine.refresh_token)).toBe("200");
    expect(await refresh(other.refresh_token)).toBe("401 AUTH_TOKEN_REVOKED");
    expect(codeOf(await logIn(FRESH))).toBe("200");
  });

  // Whoever has got at a session cannot guess the password through it.
  test("a wrong current one is refused and counted", async () => {
    const { access_token } = await app.login("ada");
    expect(codeOf(await change(access_token, FRESH))).toBe("401 AUTH_INVALID_CREDENTIALS");
    const rows = await app.db.query<{ failures: number }>("SELECT failures FROM failure_counters");
    expect(rows.map(({ failures }) => failures)).toContain(1);
    expect(codeOf(await change(access_token, PASSWORD, "short"))).toBe("422 PASSWORD_TOO_WEAK");
    expect(codeOf(await logIn(PASSWORD))).toBe("200");
  });

  test("ten at the same moment: one new password, and one session", async () => {
    const { access_token } = await app.login("ada");
    const passwords = Array.from({ length: 10 }, (_, index) => `${FRESH} ${index}`);
    const codes = (await Promise.all(passwords.map((password) => change(access_token, PASSWORD, password)))).map(
      codeOf,
    );
    expect(codes.filter((code) => code === "204")).toHaveLength(1);
    const works = await Promise.all(passwords.map((password) => logIn(password)));
    expect(works.filter(({ status }) => status === 200)).toHaveLength(1);
  });
});
