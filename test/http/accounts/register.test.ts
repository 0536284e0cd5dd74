import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { changeUser } from "../../../server/features/users/service.ts";
import { PASSWORD, type TestAnswer } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { takeMails, tokenIn } from "./support.ts";

const AUTH = "/api/v1/auth";
const OTHER = "another horse battery staple";
const DAY = 24 * 3_600_000;
const OPERATOR = { actor: { kind: "operator" } } as const;
const QUICK = {
  PRIMER_PASSWORD__FAILURE_FLOOR: "0ms",
  PRIMER_RATE_LIMITS__REGISTER_IP: "off",
  PRIMER_RATE_LIMITS__MAIL_ADDRESS: "off",
};

let app: HttpApp;
const open = async (variables: Record<string, string> = {}) => {
  await app?.close();
  app = await openHttpApp({ ...QUICK, ...variables });
};
beforeEach(() => open());
afterEach(async () => {
  await app.close();
  app = undefined as unknown as HttpApp;
});

const post = (path: string, body: unknown, token?: string) =>
  app.request("POST", `${AUTH}/${path}`, { body, ...(token === undefined ? {} : { token }) });
const register = (username: string, password = PASSWORD, more: object = {}) =>
  post("register", { username, email: `${username}@example.org`, password, ...more });
const registerFrom = (agent: string, username: string, email: string) =>
  app.request("POST", `${AUTH}/register`, {
    body: { username, email, password: PASSWORD },
    headers: { "user-agent": agent },
  });
const logIn = (username: string, password = PASSWORD) => post("login", { username, password });
const codeOf = ({ status, body }: TestAnswer) => (status < 300 ? String(status) : `${status} ${body.error.code}`);
const countUsers = async () => (await app.db.query("SELECT id FROM users")).length;

describe("open registration with verified addresses", () => {
  test("202, no login before the link was used, and one after", async () => {
    expect((await register("ada")).body).toEqual({ status: "verification_sent" });
    expect(codeOf(await logIn("ada"))).toBe("403 AUTH_EMAIL_NOT_VERIFIED");
    expect(codeOf(await logIn("ada", OTHER))).toBe("401 AUTH_INVALID_CREDENTIALS");
    const token = await tokenIn(app, "verify_email");
    const answer = await post("verify-email", { token });
    expect([answer.status, answer.headers.get("set-cookie")]).toEqual([204, null]);
    expect(codeOf(await logIn("ada"))).toBe("200");
    expect(codeOf(await post("verify-email", { token }))).toBe("400 LINK_INVALID");
  });

  // By whatever an administrator does: who has not confirmed is not let in.
  test("an account that waits is neither disabled nor enabled, and a new address takes a new link", async () => {
    await register("ada");
    const token = await tokenIn(app, "verify_email");
    const [{ id = "" } = {}] = await app.db.query<{ id: string }>("SELECT id FROM users");
    for (const status of ["disabled", "active"] as const) {
      const refused = await changeUser(app.deps, id, { status }, OPERATOR).catch((error) => error);
      expect([refused.errorCode, refused.details]).toEqual(["CONFLICT", { reason: "email_not_verified" }]);
    }
    await changeUser(app.deps, id, { email: "right@example.org" }, OPERATOR);
    expect(codeOf(await post("verify-email", { token }))).toBe("400 LINK_INVALID");
    expect(codeOf(await logIn("ada"))).toBe("403 AUTH_EMAIL_NOT_VERIFIED");
  });

  // Nobody learns here whether an address has an account; its owner does, by mail.
  test("an address that has an account: the same answer to the byte, and another mail", async () => {
    const fresh = await register("ada");
    await post("verify-email", { token: await tokenIn(app, "verify_email") });
    const before = await countUsers();
    const again = await post("register", { username: "eve", email: "ADA@example.org", password: OTHER });
    expect([again.status, again.text]).toEqual([fresh.status, fresh.text]);
    expect((await takeMails(app)).map(({ template }) => template)).toEqual(["already_registered"]);
    expect(await countUsers()).toBe(before);
    expect(codeOf(await logIn("ada", OTHER))).toBe("401 AUTH_INVALID_CREDENTIALS");
    // Where nothing was registered: that this differs is accepted, see the decisions in README.
    expect(codeOf(await logIn("eve", OTHER))).toBe("401 AUTH_INVALID_CREDENTIALS");
  });

  // Whoever registers somebody else's address first gains nothing once its owner registers.
  test("a registration that nobody confirmed is replaced whole by the next with its address", async () => {
    const email = "victim@example.org";
    await post("register", { username: "attacker", email, password: OTHER });
    const old = await tokenIn(app, "verify_email");
    await post("register", { username: "victim", email, password: PASSWORD });
    const token = await tokenIn(app, "verify_email");
    expect(codeOf(await post("verify-email", { token: old }))).toBe("400 LINK_INVALID");
    expect(codeOf(await post("verify-email", { token }))).toBe("204");
    expect(codeOf(await logIn("victim"))).toBe("200");
    for (const name of ["victim", "attacker", email]) {
      expect(codeOf(await logIn(name, OTHER))).toBe("401 AUTH_INVALID_CREDENTIALS");
    }
  });

  test("a user name is told as taken; one that nobody confirmed for a day is free again", async () => {
    await register("ada");
    await takeMails(app);
    const other = () => post("register", { username: "Ada", email: "other@example.org", password: PASSWORD });
    const taken = await other();
    expect([codeOf(taken), taken.body.error.details]).toEqual(["409 CONFLICT", { field: "username" }]);
    app.clock.advance(DAY - 1);
    expect(codeOf(await other())).toBe("409 CONFLICT");
    app.clock.advance(1);
    expect(codeOf(await other())).toBe("202");
  });

  // Who is gone leaves no agent and no address in the audit log.
  test.each([
    ["a name", async () => expect(codeOf(await registerFrom("other", "ada", "eve@example.org"))).toBe("202")],
    [
      "an address",
      async () => {
        const eve = await app.createUser({ username: "eve" });
        const { access_token: token } = await app.login("eve");
        const change = { email: "ada@example.org", current_password: PASSWORD };
        await app.request("PUT", "/api/v1/users/me", { token, body: change });
        const mail = (await takeMails(app)).find(
          ({ template, user_id }) => template === "verify_email" && user_id === eve.id,
        );
        expect(codeOf(await post("verify-email", { token: mail?.sealed?.token }))).toBe("204");
      },
    ],
  ])("what is known of whoever registered is gone once somebody else has %s", async (_what, take) => {
    await registerFrom("of ada", "ada", "ada@example.org");
    app.clock.advance(DAY);
    const agents = () => app.db.query("SELECT 1 FROM audit_log WHERE user_agent = 'of ada'");
    expect(await agents()).toHaveLength(1);
    await take();
    expect(await agents()).toEqual([]);
    expect(await app.db.query("SELECT 1 FROM audit_log WHERE action = 'user.erased'")).toHaveLength(1);
  });

  // Expiry is checked when the link is used, and not by whoever tidies up. One that is sent again promises no more than the
  // account has left: nobody keeps a name, or an account without an owner, by asking again and again.
  test("the link works for a day after the registration, however often it was sent", async () => {
    const email = "ada@example.org";
    await register("ada");
    await takeMails(app);
    const links: string[] = [];
    for (const hours of [1, 11, 11]) {
      app.clock.advance(hours * 3_600_000);
      await post("resend-verification", { email });
      links.push(await tokenIn(app, "verify_email"));
    }
    app.clock.advance(3_600_000 - 1);
    const expiries = () =>
      app.db.query<{ at: string }>("SELECT extract(epoch FROM expires_at)::text AS at FROM single_use_tokens");
    expect((await expiries()).map(({ at }) => Number(at) * 1000)).toEqual([app.clock.now().getTime() + 1]);
    expect(codeOf(await post("verify-email", { token: links[0] }))).toBe("400 LINK_INVALID");
    app.clock.advance(1);
    expect(codeOf(await post("verify-email", { token: links.at(-1) }))).toBe("400 LINK_INVALID");
    expect(codeOf(await post("resend-verification", { email }))).toBe("202");
    expect(await takeMails(app)).toEqual([]);
    // Whoever is late registers again.
    expect(codeOf(await register("ada"))).toBe("202");
    expect(codeOf(await post("verify-email", { token: await tokenIn(app, "verify_email") }))).toBe("204");
  });

  test("20 at the same moment with one link: one", async () => {
    await register("ada");
    const token = await tokenIn(app, "verify_email");
    const answers = await Promise.all(Array.from({ length: 20 }, () => post("verify-email", { token })));
    expect(answers.map(({ status }) => status).sort()).toEqual([204, ...Array(19).fill(400)]);
  });

  test("ten at the same moment with one address, and with one name: one account", async () => {
    const body = (index: number) => ({ username: `u${index}`, email: "same@example.org", password: PASSWORD });
    const codes = (await Promise.all(Array.from({ length: 10 }, (_, index) => post("register", body(index))))).map(
      codeOf,
    );
    expect(codes.every((code) => code === "202" || code === "409 CONFLICT")).toBe(true);
    expect(await countUsers()).toBe(1);
    const named = (index: number) => ({ username: "same", email: `s${index}@example.org`, password: PASSWORD });
    const others = await Promise.all(Array.from({ length: 10 }, (_, index) => post("register", named(index))));
    expect(others.filter(({ status }) => status === 202)).toHaveLength(1);
    expect(await countUsers()).toBe(2);
  });

  test.each([
    [{}, "422 VALIDATION_FAILED"],
    [{ username: "a@b" }, "422 VALIDATION_FAILED"],
    [{ email: "none" }, "422 VALIDATION_FAILED"],
    [{ password: "short" }, "422 PASSWORD_TOO_WEAK"],
    [{ password: "qwertyuiopasdfgh" }, "422 PASSWORD_TOO_WEAK"],
    [{ roles: ["admin"] }, "422 VALIDATION_FAILED"],
    [{ email_verified: true }, "422 VALIDATION_FAILED"],
    [{ id: "019b76da-a800-7000-8000-000000000000" }, "422 VALIDATION_FAILED"],
  ])("%j: %s, and nobody is made", async (change, code) => {
    const body =
      Object.keys(change).length === 0
        ? {}
        : { username: "ada", email: "a@example.org", password: PASSWORD, ...change };
    expect(codeOf(await post("register", body))).toBe(code);
    expect([await countUsers(), await takeMails(app)]).toEqual([0, []]);
  });
});

// A mailbox is not flooded by whoever types its address.
test("mails to one address are bounded, and the answer stays the same", async () => {
  await open({ PRIMER_RATE_LIMITS__MAIL_ADDRESS: "3/1h" });
  await register("ada");
  await takeMails(app);
  for (let count = 0; count < 20; count++) {
    expect(codeOf(await post("resend-verification", { email: "ada@example.org" }))).toBe("202");
    app.clock.advance(10_000);
  }
  expect((await takeMails(app)).length).toBeLessThanOrEqual(3);
});

test("without verification: 201 with the user, who can log in; a taken address is told", async () => {
  await open({ PRIMER_REGISTRATION__VERIFY_EMAIL: "false" });
  const answer = await register("ada");
  expect(answer.status).toBe(201);
  expect(answer.body).toMatchObject({ username: "ada", email_verified: false, status: "active", roles: ["user"] });
  expect(codeOf(await logIn("ada"))).toBe("200");
  const taken = await post("register", { username: "eve", email: "ada@example.org", password: PASSWORD });
  expect([codeOf(taken), taken.body.error.details]).toEqual(["409 CONFLICT", { field: "email" }]);
});

test("closed: nobody registers", async () => {
  await open({ PRIMER_REGISTRATION__MODE: "closed" });
  const answer = await register("ada");
  expect([codeOf(answer), answer.body.error.details.reason]).toEqual(["403 FORBIDDEN", "registration_closed"]);
});

describe("by invitation", () => {
  const INVITATIONS = "/api/v1/invitations";
  let admin: string;
  beforeEach(async () => {
    await open({ PRIMER_REGISTRATION__MODE: "invite" });
    await app.createUser({ username: "root", roles: ["admin"] });
    admin = (await app.login("root")).access_token;
  });
  const invite = async (email: string, roles?: string[]) =>
    app.request("POST", INVITATIONS, { token: admin, body: { email, ...(roles ? { roles } : {}) } });

  test("only with one; it proves its address and gives its roles, once", async () => {
    const refused = await register("ada");
    expect([codeOf(refused), refused.body.error.details.reason]).toEqual(["403 FORBIDDEN", "invitation_required"]);
    await app.request("POST", "/api/v1/roles", { token: admin, body: { name: "editor", permissions: ["posts:*"] } });
    const { body } = await invite("ada@example.org", ["user", "editor"]);
    const { token: invitation } = body;
    const stranger = await register("eve", PASSWORD, { invitation });
    expect(codeOf(stranger)).toBe("400 LINK_INVALID");
    const answer = await register("ada", PASSWORD, { invitation });
    expect(answer.body).toMatchObject({ status: "active", email_verified: true, roles: ["editor", "user"] });
    expect(codeOf(await logIn("ada"))).toBe("200");
    expect(
      codeOf(await post("register", { username: "ada2", email: "ada2@example.org", password: PASSWORD, invitation })),
    ).toBe("400 LINK_INVALID");
    expect((await app.request("GET", INVITATIONS, { token: admin })).body.data).toEqual([]);
    expect(await app.db.query("SELECT * FROM invitations WHERE token_hash = $1", [invitation])).toEqual([]);
  });

  test("for 72 hours, and not once it was taken back", async () => {
    const [late, back] = [(await invite("ada@example.org")).body, (await invite("bob@example.org")).body];
    expect((await app.request("GET", `${INVITATIONS}?limit=1`, { token: admin })).body).toMatchObject({
      data: [{ email: "bob@example.org" }],
      next_cursor: expect.any(String),
    });
    expect((await app.request("DELETE", `${INVITATIONS}/${back.id}`, { token: admin })).status).toBe(204);
    expect((await app.request("DELETE", `${INVITATIONS}/${back.id}`, { token: admin })).status).toBe(404);
    expect(codeOf(await register("bob", PASSWORD, { invitation: back.token }))).toBe("400 LINK_INVALID");
    app.clock.advance(3 * DAY);
    expect(codeOf(await register("ada", PASSWORD, { invitation: late.token }))).toBe("400 LINK_INVALID");
  });

  // Nobody invites somebody who may do more than they.
  test("403 beyond one's own rights", async () => {
    await app.request("POST", "/api/v1/roles", { token: admin, body: { name: "host", permissions: ["users:*"] } });
    await app.createUser({ username: "hal", roles: ["host"] });
    const { access_token: token } = await app.login("hal");
    const ask = (roles: string[]) =>
      app.request("POST", INVITATIONS, { token, body: { email: "x@example.org", roles } });
    expect((await ask(["user"])).status).toBe(201);
    expect(codeOf(await ask(["admin"]))).toBe("403 FORBIDDEN");
    expect(codeOf(await ask(["nobody"]))).toBe("422 VALIDATION_FAILED");
  });
});

// Nothing about registering tells whether an address has an account: each of these is asked for one that has and one that
// has not.
describe("what registering does not tell", () => {
  const ask = (body: object) => post("register", { password: PASSWORD, ...body });
  beforeEach(async () => {
    await app.createUser({ username: "ada", email: "ada@example.org" });
  });
  const both = async (questions: (email: string) => Promise<string[]>) => {
    const [known, unknown] = [await questions("ada@example.org"), await questions("nobody@example.org")];
    expect(known).toEqual(unknown);
    return known;
  };

  test("a made-up invitation", async () => {
    const asked = async (email: string) => [
      codeOf(await ask({ username: `u${email.length}`, email, invitation: "x" })),
    ];
    expect(await both(asked)).toEqual(["400 LINK_INVALID"]);
  });

  test("the user name of an account", async () => {
    expect(await both(async (email) => [codeOf(await ask({ username: "ada", email }))])).toEqual(["409 CONFLICT"]);
  });

  test("whether a name was held by asking for it", async () => {
    let count = 0;
    const codes = await both(async (email) => {
      const username = `probe${++count}`;
      const first = codeOf(await ask({ username, email }));
      return [first, codeOf(await ask({ username, email: `mine${count}@example.org` }))];
    });
    expect(codes).toEqual(["202", "409 CONFLICT"]);
  });
});

// A link is good for what it was sent for, also where the mailbox has had as many mails as it may.
test("past the limit of mails no link makes another attempt valid", async () => {
  const email = "victim@example.org";
  const attempt = (username: string, password: string) => post("register", { username, email, password });
  await attempt("mallory", OTHER);
  await attempt("mallory", OTHER);
  await takeMails(app);
  await attempt("victim", PASSWORD);
  const token = await tokenIn(app, "verify_email");
  expect(codeOf(await attempt("mallory", OTHER))).toBe("202");
  expect(await takeMails(app)).toEqual([]);
  expect(codeOf(await post("verify-email", { token }))).toBe("400 LINK_INVALID");
  expect(codeOf(await logIn("mallory", OTHER))).toBe("403 AUTH_EMAIL_NOT_VERIFIED");
});

describe("an invitation is worth what its inviter may give", () => {
  let admin: string;
  beforeEach(async () => {
    await app.createUser({ username: "root", roles: ["admin"] });
    admin = (await app.login("root")).access_token;
  });
  const invite = async (token: string, roles: string[]) =>
    (await app.request("POST", "/api/v1/invitations", { token, body: { email: "guest@example.org", roles } })).body
      .token;
  const guest = (invitation: string) =>
    post("register", { username: "guest", email: "guest@example.org", password: PASSWORD, invitation });

  test("not once they are disabled", async () => {
    const { id } = await app.createUser({ username: "boss", roles: ["admin"] });
    const invitation = await invite((await app.login("boss")).access_token, ["admin"]);
    await app.request("PUT", `/api/v1/users/${id}`, { token: admin, body: { status: "disabled" } });
    expect(codeOf(await guest(invitation))).toBe("400 LINK_INVALID");
  });

  test("a role that somebody is invited to stays", async () => {
    await app.request("POST", "/api/v1/roles", { token: admin, body: { name: "editor", permissions: [] } });
    const invitation = await invite(admin, ["editor"]);
    expect((await app.request("DELETE", "/api/v1/roles/editor", { token: admin })).status).toBe(409);
    expect(codeOf(await guest(invitation))).toBe("201");
    expect((await app.request("DELETE", "/api/v1/roles/editor", { token: admin })).status).toBe(409);
  });
});
