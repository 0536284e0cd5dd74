import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { changeUser, deactivateUser, requirePasswordChange } from "../../../server/features/users/service.ts";
import { PASSWORD, type TestAnswer } from "../../support/app.ts";
import { runSchedule } from "../../worker/support/schedules.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { afterNextHash } from "../support/observe.ts";
import { takeMails, tokenIn } from "./support.ts";

const ME = "/api/v1/users/me";
const AUTH = "/api/v1/auth";
const OPERATOR = { actor: { kind: "operator" } } as const;
const DAY = 24 * 3_600_000;
const QUICK = { PRIMER_PASSWORD__FAILURE_FLOOR: "0ms", PRIMER_RATE_LIMITS__MAIL_ADDRESS: "off" };

let app: HttpApp;
let token: string;
let id: string;
beforeEach(async () => {
  app = await openHttpApp(QUICK);
  ({ id } = await app.createUser({ username: "ada" }));
  token = (await app.login("ada")).access_token;
  await takeMails(app);
});
afterEach(() => app.close());

const ask = (method: string, path: string, body?: unknown, as = token) =>
  app.request(method, path, { token: as, ...(body === undefined ? {} : { body }) });
const post = (path: string, body: unknown) => app.request("POST", `${AUTH}/${path}`, { body });
const codeOf = ({ status, body }: TestAnswer) => (status < 300 ? String(status) : `${status} ${body.error.code}`);
const logIn = (username: string) => post("login", { username, password: PASSWORD });

describe("PUT /users/me", () => {
  test("a new user name counts at once; a taken one is told", async () => {
    await app.createUser({ username: "bob" });
    expect((await ask("PUT", ME, { username: "Ada2" })).body.username).toBe("ada2");
    expect(codeOf(await logIn("ada2"))).toBe("200");
    const taken = await ask("PUT", ME, { username: "bob" });
    expect([codeOf(taken), taken.body.error.details]).toEqual(["409 CONFLICT", { field: "username" }]);
  });

  // Whoever holds a stolen session cannot take the account over by its address; until the new one is proven the old counts.
  test("a new address: proven by its link, told to the old one, and not before", async () => {
    const { body } = await ask("PUT", ME, { email: "new@example.org", current_password: PASSWORD });
    expect(body.email).toBe("ada@example.test");
    const [mail] = await takeMails(app);
    expect(mail).toMatchObject({ template: "verify_email", sealed: { to: "new@example.org" } });
    expect(codeOf(await logIn("new@example.org"))).toBe("401 AUTH_INVALID_CREDENTIALS");
    await post("forgot-password", { email: "new@example.org" });
    expect(await takeMails(app)).toEqual([]);
    await post("forgot-password", { email: "ada@example.test" });
    const reset = await tokenIn(app, "password_reset");
    expect(codeOf(await post("verify-email", { token: mail?.sealed?.token }))).toBe("204");
    expect((await ask("GET", ME)).body).toMatchObject({ email: "new@example.org", email_verified: true });
    expect(await takeMails(app)).toMatchObject([{ template: "email_changed", sealed: { to: "ada@example.test" } }]);
    expect(codeOf(await post("reset-password", { token: reset, new_password: PASSWORD }))).toBe("400 LINK_INVALID");
  });

  test("an address that somebody else has: the same answer, and its owner is told", async () => {
    await app.createUser({ username: "bob" });
    const taken = await ask("PUT", ME, { email: "BOB@example.test", current_password: PASSWORD });
    const free = await ask("PUT", ME, { email: "free@example.test", current_password: PASSWORD });
    expect([taken.status, taken.text]).toEqual([free.status, free.text]);
    expect((await takeMails(app)).map(({ template }) => template)).toEqual(["already_registered", "verify_email"]);
  });

  // Nor does what is kept on whoever asks tell whether somebody has the address.
  test("an address that somebody else has waits in the export like any other", async () => {
    await app.createUser({ username: "bob" });
    for (const email of ["bob@example.test", "free@example.test"]) {
      await ask("PUT", ME, { email, current_password: PASSWORD });
      expect((await ask("GET", `${ME}/export`)).body.pending_email).toBe(email);
    }
  });

  // Whoever had the account for a moment does not keep it by a link that waits in their mailbox.
  test.each([
    [
      "a reset of the password",
      async () => {
        await post("forgot-password", { email: "ada@example.test" });
        const mails = await takeMails(app);
        const reset = mails.find(({ template }) => template === "password_reset")?.sealed?.token;
        await post("reset-password", { token: reset, new_password: `${PASSWORD} 2` });
      },
    ],
    [
      "a change of the password",
      async () => {
        await ask("PATCH", `${ME}/password`, { current_password: PASSWORD, new_password: `${PASSWORD} 2` });
      },
    ],
    ["an administrator who asks for a new password", () => requirePasswordChange(app.deps, id, OPERATOR)],
    ["an administrator who changes the address", () => changeUser(app.deps, id, { email: "by@admin.test" }, OPERATOR)],
    ["an administrator who disables the account", () => changeUser(app.deps, id, { status: "disabled" }, OPERATOR)],
  ] as const)("a link to another address is dead after %s", async (_name, happens) => {
    await ask("PUT", ME, { email: "evil@example.org", current_password: PASSWORD });
    const link = await tokenIn(app, "verify_email");
    await happens();
    expect(codeOf(await post("verify-email", { token: link }))).toBe("400 LINK_INVALID");
  });

  test("an administrator's change of the address is told to the old one, whose links are dead", async () => {
    await post("forgot-password", { email: "ada@example.test" });
    const reset = await tokenIn(app, "password_reset");
    await changeUser(app.deps, id, { email: "new@example.org" }, OPERATOR);
    expect(await takeMails(app)).toMatchObject([{ template: "email_changed", sealed: { to: "ada@example.test" } }]);
    expect(codeOf(await post("reset-password", { token: reset, new_password: PASSWORD }))).toBe("400 LINK_INVALID");
  });

  // Nobody has primer write to strangers at will.
  test("one account has only so many mails sent to addresses of its choice", async () => {
    for (let count = 0; count < 20; count++) {
      const body = { email: `stranger${count}@example.org`, current_password: PASSWORD };
      expect((await ask("PUT", ME, body)).status).toBe(200);
    }
    expect((await takeMails(app)).length).toBeLessThanOrEqual(3);
  });

  test("somebody else's unconfirmed registration with the new address stands in nobody's way", async () => {
    await ask("PUT", ME, { email: "new@example.org", current_password: PASSWORD });
    const link = await tokenIn(app, "verify_email");
    await post("register", { username: "mallory", email: "new@example.org", password: PASSWORD });
    expect(codeOf(await post("verify-email", { token: link }))).toBe("204");
    expect((await ask("GET", ME)).body.email).toBe("new@example.org");
  });

  test("an address that somebody has taken meanwhile", async () => {
    await ask("PUT", ME, { email: "late@example.org", current_password: PASSWORD });
    const link = await tokenIn(app, "verify_email");
    await app.createUser({ username: "late", email: "late@example.org" });
    expect(codeOf(await post("verify-email", { token: link }))).toBe("400 LINK_INVALID");
    expect((await ask("GET", ME)).body.email).toBe("ada@example.test");
  });

  test("a fresh login will do instead of the password; an old one will not, nor a wrong password", async () => {
    expect(codeOf(await ask("PUT", ME, { email: "a1@example.org" }))).toBe("200");
    app.clock.advance(6 * 60_000);
    expect(codeOf(await ask("PUT", ME, { email: "a2@example.org" }))).toBe("403 AUTH_STEP_UP_REQUIRED");
    expect(codeOf(await ask("PUT", ME, { email: "a2@example.org", current_password: "wrong wrong wrong" }))).toBe(
      "401 AUTH_INVALID_CREDENTIALS",
    );
    expect(codeOf(await ask("PUT", ME, { email: "a2@example.org", current_password: PASSWORD }))).toBe("200");
  });

  // What is not offered cannot be set.
  test.each([
    { email_verified: true },
    { roles: ["admin"] },
    { status: "active" },
    { id: "019b76da-a800-7000-8000-000000000000" },
    { created_at: "2026-01-01T00:00:00.000Z" },
    {},
  ])("422 %j", async (body) => {
    const before = (await ask("GET", ME)).body;
    expect(codeOf(await ask("PUT", ME, body))).toBe("422 VALIDATION_FAILED");
    expect((await ask("GET", ME)).body).toEqual(before);
  });
});

describe("DELETE /users/me", () => {
  test("every session ends; a login within the time takes the account back, and not after", async () => {
    const before = await app.login("ada");
    expect(codeOf(await ask("DELETE", ME))).toBe("204");
    expect(codeOf(await post("refresh", { refresh_token: before.refresh_token }))).toBe("401 AUTH_TOKEN_REVOKED");
    app.clock.advance(30 * DAY - 1);
    const back = await logIn("ada");
    expect(codeOf(back)).toBe("200");
    expect((await ask("GET", ME, undefined, back.body.access_token)).body.status).toBe("active");
    expect(await app.db.query("SELECT 1 FROM audit_log WHERE action = 'user.reactivated'")).toHaveLength(1);

    expect(codeOf(await ask("DELETE", ME, undefined, back.body.access_token))).toBe("204");
    app.clock.advance(30 * DAY);
    expect(codeOf(await logIn("ada"))).toBe("403 AUTH_ACCOUNT_DISABLED");
  });

  // Whoever takes an account out of use has the last word, also over a login that was being looked at.
  test("a login under way does not take back what an administrator has taken out of use", async () => {
    expect(codeOf(await ask("DELETE", ME))).toBe("204");
    afterNextHash(app.deps, () => deactivateUser(app.deps, id, OPERATOR));
    expect(codeOf(await logIn("ada"))).toBe("401 AUTH_INVALID_CREDENTIALS");
    expect(await app.db.query("SELECT status FROM users WHERE id = $1", [id])).toEqual([{ status: "deactivated" }]);
  });

  test("it asks for a fresh proof, and the last administrator stays", async () => {
    app.clock.advance(6 * 60_000);
    expect(codeOf(await ask("DELETE", ME))).toBe("403 AUTH_STEP_UP_REQUIRED");
    await app.createUser({ username: "root", roles: ["admin"] });
    const { access_token } = await app.login("root");
    expect(codeOf(await ask("DELETE", ME, undefined, access_token))).toBe("409 CONFLICT");
  });
});

// All that is kept on a person is theirs to see; no hash, no secret, and nothing of others.
test("GET /users/me/export", async () => {
  app.clock.advance(61_000);
  await runSchedule(app, "baselines");
  await app.db.query(
    "INSERT INTO sign_in_anomalies (id, user_id, hour, score, signals, good, failed) VALUES (gen_random_uuid(), $1, now(), 10, '{new_hour}', 1, 0)",
    [id],
  );
  await app.createUser({ username: "root", roles: ["admin"] });
  const { access_token: admin } = await app.login("root");
  await ask("POST", `/api/v1/users/${id}/unlock`, undefined, admin);
  const { body, text } = await ask("GET", `${ME}/export`);
  expect(body.user).toMatchObject({ id, username: "ada", email: "ada@example.test" });
  expect(body.sessions).toHaveLength(1);
  expect(body.logins).toMatchObject([{ outcome: "success", risk_score: null, risk_signals: null }]);
  expect(body.usual_sign_ins.hour).toMatchObject({ good: 1, failed: 0 });
  expect(body.unusual_hours).toMatchObject([{ score: 10, signals: ["new_hour"] }]);
  expect(body.events.map(({ action }: { action: string }) => action)).toContain("user.unlocked");
  expect(text).not.toMatch(/argon2|token_hash|secret|root/);
  app.clock.advance(6 * 60_000);
  expect(codeOf(await ask("GET", `${ME}/export`))).toBe("403 AUTH_STEP_UP_REQUIRED");
});

// What is kept on somebody is shown to them, also where the log knows them as neither actor nor subject.
test("GET /users/me/export has the use of a stolen token", async () => {
  const first = await app.login("ada");
  await post("refresh", { refresh_token: first.refresh_token });
  app.clock.advance(11_000);
  expect(codeOf(await post("refresh", { refresh_token: first.refresh_token }))).toBe("401 AUTH_REFRESH_REUSED");
  const { access_token: token } = await app.login("ada");
  const { body } = await ask("GET", `${ME}/export`, undefined, token);
  expect(body.events.filter(({ action }: { action: string }) => action === "refresh.reused")).toHaveLength(1);
});

// The mail of a sign-in ends that session and no other, once.
test("POST /auth/end-session", async () => {
  const headers = { "user-agent": "Another Browser/1.0" };
  const other = await app.request("POST", `${AUTH}/login`, { body: { username: "ada", password: PASSWORD }, headers });
  expect(other.status).toBe(200);
  const mails = await takeMails(app);
  const link = mails.find(({ sealed }) => sealed?.token)?.sealed?.token ?? "";
  expect(codeOf(await post("end-session", { token: link }))).toBe("204");
  expect(codeOf(await post("refresh", { refresh_token: other.body.refresh_token }))).toBe("401 AUTH_TOKEN_REVOKED");
  expect(codeOf(await ask("GET", ME))).toBe("200");
  expect(codeOf(await post("end-session", { token: link }))).toBe("400 LINK_INVALID");
});
