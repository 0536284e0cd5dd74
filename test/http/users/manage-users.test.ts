import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { PASSWORD, type TestAnswer } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";

const PATH = "/api/v1/users";
const NOBODY = "019b76da-a800-7000-8000-000000000000";

let app: HttpApp;
let admin: string;
let helper: string;
let rootId: string;
beforeAll(async () => {
  app = await openHttpApp();
  ({ id: rootId } = await app.createUser({ username: "root", roles: ["admin"] }));
  admin = (await app.login("root")).access_token;
  const body = { name: "helper", permissions: ["users:*"], includes: ["user"] };
  await app.request("POST", "/api/v1/roles", { token: admin, body });
  await app.createUser({ username: "hal", roles: ["helper"] });
  helper = (await app.login("hal")).access_token;
});
afterAll(() => app.close());

let made = 0;
const newUser = async () => {
  const username = `user${++made}`;
  const { id } = await app.createUser({ username });
  return { id, username };
};
const ask = (method: string, path: string, token: string, body?: unknown, headers: Record<string, string> = {}) =>
  app.request(method, `${PATH}${path}`, { token, headers, ...(body === undefined ? {} : { body }) });
const codeOf = ({ status, body }: TestAnswer) => (status < 300 ? status : `${status} ${body.error.code}`);
const refreshable = async (refresh_token: string) =>
  (await app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } })).status;
const audited = async (action: string, id: string) =>
  (await app.db.query("SELECT 1 FROM audit_log WHERE action = $1 AND subject_id = $2", [action, id])).length;

describe("POST /users", () => {
  test("201: active, verified, and can log in", async () => {
    const body = { username: "Nora", email: "Nora@Example.org", password: PASSWORD };
    const answer = await ask("POST", "", helper, body);
    expect(answer.status).toBe(201);
    expect(answer.headers.get("location")).toBe(`${PATH}/${answer.body.id}`);
    expect(answer.body).toMatchObject({ username: "nora", email_verified: true, status: "active", roles: ["user"] });
    expect(answer.text).not.toContain(PASSWORD);
    expect((await app.login("nora@example.org")).session_id).toBeString();
    expect(await audited("user.created", answer.body.id)).toBe(1);
  });

  test.each([
    [{ username: "nora", email: "n2@example.org", password: PASSWORD }, "409 CONFLICT"],
    [{ username: "nora2", email: "NORA@example.org", password: PASSWORD }, "409 CONFLICT"],
    [{ username: "n@x", email: "n3@example.org", password: PASSWORD }, "422 VALIDATION_FAILED"],
    [{ username: "nora3", email: "none", password: PASSWORD }, "422 VALIDATION_FAILED"],
    [{ username: "nora3", email: "n3@example.org", password: "short" }, "422 PASSWORD_TOO_WEAK"],
    [{ username: "nora3", email: "n3@example.org", password: PASSWORD, roles: ["none"] }, "422 VALIDATION_FAILED"],
    [{ username: "nora3", email: "n3@example.org", password: PASSWORD, email_verified: true }, "422 VALIDATION_FAILED"],
    [{ username: "nora3", email: "n3@example.org", password: PASSWORD, roles: ["admin"] }, "403 FORBIDDEN"],
  ])("%j: %s", async (body, code) => {
    expect(codeOf(await ask("POST", "", helper, body))).toBe(code);
  });
});

describe("PUT /users/{id}", () => {
  test("disabled: dead at once; active again: may log in", async () => {
    const { id, username } = await newUser();
    const { refresh_token } = await app.login(username);
    expect((await ask("PUT", `/${id}`, helper, { status: "disabled" })).body.status).toBe("disabled");
    expect(await refreshable(refresh_token)).toBe(401);
    expect((await ask("PUT", `/${id}`, helper, { status: "active" })).body.status).toBe("active");
    await app.login(username);
    expect([await audited("user.disabled", id), await audited("user.enabled", id)]).toEqual([1, 1]);
  });

  // With the address changes who can reset the password: whoever is logged in has to show who they are.
  test("a new address ends the sessions, a new name does not", async () => {
    const { id, username } = await newUser();
    const first = await app.login(username);
    expect((await ask("PUT", `/${id}`, helper, { username: `${username}x` })).status).toBe(200);
    const { status, body } = await app.request("POST", "/api/v1/auth/refresh", {
      body: { refresh_token: first.refresh_token },
    });
    expect(status).toBe(200);
    const answer = await ask("PUT", `/${id}`, helper, { email: `new${made}@example.org` });
    expect(answer.body).toMatchObject({ email: `new${made}@example.org`, email_verified: true });
    expect(await refreshable(body.refresh_token)).toBe(401);
  });

  test("412 with an ETag from before", async () => {
    const { id } = await newUser();
    const etag = (await ask("GET", `/${id}`, helper)).headers.get("etag") ?? "";
    app.clock.advance(1000);
    expect(codeOf(await ask("PUT", `/${id}`, helper, { email: `e${made}@example.org` }, { "if-match": etag }))).toBe(
      200,
    );
    const again = await ask("PUT", `/${id}`, helper, { status: "disabled" }, { "if-match": etag });
    expect(codeOf(again)).toBe("412 PRECONDITION_FAILED");
    expect(codeOf(await ask("DELETE", `/${id}`, helper, undefined, { "if-match": etag }))).toBe(
      "412 PRECONDITION_FAILED",
    );
  });

  test.each([
    [{}, "422 VALIDATION_FAILED"],
    [{ email_verified: true }, "422 VALIDATION_FAILED"],
    [{ status: "pending" }, "422 VALIDATION_FAILED"],
    [{ username: "root" }, "409 CONFLICT"],
    [{ username: "a@b" }, "422 VALIDATION_FAILED"],
    [{ email: "Root@example.test" }, "409 CONFLICT"],
  ])("%j: %s", async (body, code) => {
    const { id } = await newUser();
    expect(codeOf(await ask("PUT", `/${id}`, admin, body))).toBe(code);
  });
});

// The last administrator stays, whatever is tried and however many try at once.
test("the last administrator is neither disabled, nor deactivated, nor erased, nor demoted", async () => {
  const tries = [
    ask("PUT", `/${rootId}`, admin, { status: "disabled" }),
    ask("DELETE", `/${rootId}`, admin),
    ask("DELETE", `/${rootId}?erase=true`, admin),
    ask("PUT", `/${rootId}/roles`, admin, { roles: ["user"] }),
  ];
  for (const answer of await Promise.all(tries)) {
    expect(answer.body.error).toMatchObject({ code: "CONFLICT", details: { reason: "last_administrator" } });
  }
});

// Who looks after users does not get at the rights of those who may do more.
test("403 for whatever would change a user who may do more", async () => {
  const { id } = await app.createUser({ username: "boss", roles: ["admin"] });
  const tries: [string, string, unknown?][] = [
    ["PUT", `/${id}`, { email: "mine@example.org" }],
    ["PUT", `/${id}`, { status: "disabled" }],
    ["DELETE", `/${id}`],
    ["DELETE", `/${id}?erase=true`],
    ["POST", `/${id}/unlock`],
    ["POST", `/${id}/require-password-change`],
  ];
  for (const [method, path, body] of tries) {
    const { body: answer } = await ask(method, path, helper, body);
    expect(answer.error).toMatchObject({ code: "FORBIDDEN", details: { permission: "*:*" } });
  }
  expect((await app.login("boss")).session_id).toBeString();
});

// Whoever steals an administrator's token cannot make an account theirs with it once a few minutes have passed.
test("403 AUTH_STEP_UP_REQUIRED for what gives or takes an account, one's own too, unless proven lately", async () => {
  const { id } = await newUser();
  const { access_token: stolen } = await app.login("root");
  app.clock.advance(6 * 60_000);
  const tries: [string, string, unknown?][] = [
    ["PUT", `/${rootId}`, { email: "thief@example.test" }],
    ["PUT", `/${id}`, { email: "thief@example.test" }],
    ["PUT", `/${id}/roles`, { roles: ["admin"] }],
    ["DELETE", `/${id}`],
    ["DELETE", `/${rootId}?erase=true`],
  ];
  for (const [method, path, body] of tries) {
    expect(codeOf(await ask(method, path, stolen, body))).toBe("403 AUTH_STEP_UP_REQUIRED");
  }
  const body = { email: "thief@example.test", roles: ["admin"] };
  const invitation = await app.request("POST", "/api/v1/invitations", { token: stolen, body });
  expect(codeOf(invitation)).toBe("403 AUTH_STEP_UP_REQUIRED");
  admin = (await app.login("root")).access_token;
  helper = (await app.login("hal")).access_token;
});

// Taking an account out of use never lets anybody in who was not let in before.
describe("what was taken out of use", () => {
  const logIn = async (username: string) =>
    codeOf(await app.request("POST", "/api/v1/auth/login", { body: { username, password: PASSWORD } }));

  test("by an administrator: its owner does not come back, an administrator brings them back", async () => {
    const { id, username } = await newUser();
    expect((await ask("DELETE", `/${id}`, helper)).status).toBe(204);
    expect(await logIn(username)).toBe("403 AUTH_ACCOUNT_DISABLED");
    expect((await ask("PUT", `/${id}`, helper, { status: "active" })).status).toBe(200);
    expect(await logIn(username)).toBe(200);
  });

  test("a disabled one stays out", async () => {
    const { id, username } = await newUser();
    await ask("PUT", `/${id}`, helper, { status: "disabled" });
    await ask("DELETE", `/${id}`, helper);
    expect(await logIn(username)).toBe("403 AUTH_ACCOUNT_DISABLED");
  });

  test("one that was never confirmed is gone, and is enabled by nobody", async () => {
    const body = { username: "unproven", email: "ceo@example.test", password: PASSWORD };
    await app.request("POST", "/api/v1/auth/register", { body });
    const [found] = (await ask("GET", "?q=unproven", helper)).body.data;
    const enabled = await ask("PUT", `/${found.id}`, helper, { status: "active" });
    expect([codeOf(enabled), enabled.body.error.details.reason]).toEqual(["409 CONFLICT", "email_not_verified"]);
    expect((await ask("DELETE", `/${found.id}`, helper)).status).toBe(204);
    expect(await logIn("unproven")).toBe("401 AUTH_INVALID_CREDENTIALS");
  });
});

describe("DELETE /users/{id}", () => {
  test("out of use: dead at once, and still there", async () => {
    const { id, username } = await newUser();
    const { refresh_token } = await app.login(username);
    expect((await ask("DELETE", `/${id}`, helper)).status).toBe(204);
    expect(await refreshable(refresh_token)).toBe(401);
    expect((await ask("GET", `/${id}`, helper)).body.status).toBe("deactivated");
  });

  // Nothing by which the person could be known is left anywhere but in the audit log, and the name is free again.
  test("erased: dead at once and gone; services that verify by themselves hear of it", async () => {
    const { id, username } = await newUser();
    const { refresh_token, session_id } = await app.login(username);
    expect((await ask("DELETE", `/${id}?erase=true`, helper)).status).toBe(204);
    expect(await refreshable(refresh_token)).toBe(401);
    expect(codeOf(await ask("GET", `/${id}`, helper))).toBe("404 NOT_FOUND");
    expect((await ask("GET", `?q=${username}`, helper)).body.data).toEqual([]);
    for (const table of [
      "users",
      "sessions",
      "login_records",
      "credentials",
      "known_devices",
      "user_roles",
      "account_baselines",
      "sign_in_anomalies",
    ]) {
      const key = table === "users" ? "id" : "user_id";
      const rows = await app.db.query(`SELECT * FROM ${table} WHERE ${key} = $1`, [id]);
      expect(JSON.stringify(rows)).not.toContain(username);
      expect(JSON.stringify(rows)).not.toMatch(/argon2|127\.0\.0\.1|Mozilla/);
    }
    const events = await app.db.query("SELECT * FROM audit_log WHERE actor_id = $1 OR subject_id = $1", [id]);
    expect(events.length).toBeGreaterThan(1);
    expect(JSON.stringify(events)).not.toContain(username);
    const ended = await app.db.query("SELECT id FROM sessions WHERE id = $1 AND revoked_at IS NOT NULL", [session_id]);
    expect(ended).toHaveLength(1);
    await app.createUser({ username });
  });
});

test("a new password can be demanded: every session ends", async () => {
  const { id, username } = await newUser();
  const { refresh_token } = await app.login(username);
  expect((await ask("POST", `/${id}/require-password-change`, helper)).status).toBe(204);
  expect(await refreshable(refresh_token)).toBe(401);
  expect(await audited("user.password_change_required", id)).toBe(1);
});

describe("lists", () => {
  test("GET /users: newest first, each once, also searched by a part of name or address", async () => {
    for (let count = 0; count < 5; count++) await newUser();
    const ids: string[] = [];
    let cursor: string | null = null;
    do {
      const { body } = await ask("GET", `?limit=3${cursor === null ? "" : `&cursor=${cursor}`}`, helper);
      ids.push(...body.data.map(({ id }: { id: string }) => id));
      cursor = body.next_cursor;
    } while (cursor !== null);
    const rows = await app.db.query("SELECT id FROM users WHERE erased_at IS NULL");
    expect([ids.length, new Set(ids).size]).toEqual([rows.length, rows.length]);
    expect((await ask("GET", "?q=HAL", helper)).body.data).toMatchObject([{ username: "hal" }]);
    expect((await ask("GET", "?q=%25", helper)).body.data).toEqual([]);
    expect(codeOf(await ask("GET", "?cursor=x", helper))).toBe("422 VALIDATION_FAILED");
    expect(codeOf(await ask("GET", `?cursor=${NOBODY}`, helper))).toBe("422 VALIDATION_FAILED");
    expect(codeOf(await ask("GET", "?limit=201", helper))).toBe("422 VALIDATION_FAILED");
  });

  test("GET /users/{id}/logins and /users/me/logins: right and wrong, newest first", async () => {
    const { id, username } = await newUser();
    const { access_token } = await app.login(username);
    await app.request("POST", "/api/v1/auth/login", { body: { username, password: "wrong wrong wrong" } });
    const { data } = (await ask("GET", `/${id}/logins`, helper)).body;
    expect(data.map(({ outcome }: { outcome: string }) => outcome)).toEqual(["failure", "success"]);
    expect((await ask("GET", "/me/logins?limit=1", access_token)).body.data).toEqual([data[0]]);
  });
});

// Every id that is nobody's, or no id at all, is answered alike.
test.each(["nonsense", NOBODY, "%00", "..%2f..%2fme"])("404 for %s", async (id) => {
  const tries: [string, string, unknown?][] = [
    ["GET", `/${id}`],
    ["PUT", `/${id}`, { status: "disabled" }],
    ["DELETE", `/${id}`],
    ["PUT", `/${id}/roles`, { roles: [] }],
    ["GET", `/${id}/permissions`],
    ["GET", `/${id}/logins`],
    ["POST", `/${id}/unlock`],
    ["POST", `/${id}/require-password-change`],
  ];
  for (const [method, path, body] of tries) {
    const answer = await ask(method, path, admin, body);
    expect([method, path, codeOf(answer)]).toEqual([method, path, "404 NOT_FOUND"]);
  }
});
