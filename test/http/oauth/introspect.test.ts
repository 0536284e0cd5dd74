import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { decodeJwt } from "jose";
import { createClient } from "../../../server/features/clients/service.ts";
import { changeUser, setRoles } from "../../../server/features/users/service.ts";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { type Credentials, introspect, revoke } from "../support/oauth.ts";
import { brokenDatabase, replaceDeps, stepsOf } from "../support/observe.ts";
import { setStatus } from "../support/scenario.ts";

const BY = { actor: { kind: "operator" } } as const;
const MINUTE = 60_000;

let app: HttpApp;
let client: Credentials;
let ada: { id: string };
beforeAll(async () => {
  app = await openHttpApp({ PRIMER_RATE_LIMITS__INTROSPECT_FAILED: "off" });
  ada = await app.createUser({ username: "ada" });
  client = await createClient(app.deps, { name: "orders" }, BY);
});
afterAll(() => app.close());

const look = (token: string, more = {}) => introspect(app, client, token, more);
const refresh = async (token: string) =>
  (await app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token: token } })).body;
const seconds = () => Math.floor(app.clock.now().getTime() / 1000);

/** RFC 7662, section 2.2: nothing but this, so that nothing is learned. */
async function expectInactive(...tokens: string[]): Promise<void> {
  for (const token of tokens) {
    const answer = await look(token);
    expect({ status: answer.status, text: answer.text }).toEqual({ status: 200, text: '{"active":false}' });
  }
}

describe("POST /oauth2/introspect", () => {
  test("an access token", async () => {
    const tokens = await app.login("ada");
    const claims = decodeJwt(tokens.access_token);
    const answer = await look(tokens.access_token);
    expect(answer.headers.get("content-type")).toMatch(/^application\/json/);
    expect(answer.headers.get("cache-control")).toBe("no-store");
    expect(answer.body).toEqual({
      active: true,
      token_type: "Bearer",
      iss: "http://primer.test",
      aud: "primer",
      sub: ada.id,
      client_id: "primer",
      username: "ada",
      scope: "",
      roles: ["user"],
      jti: claims.jti,
      sid: tokens.session_id,
      iat: seconds(),
      exp: seconds() + 900,
      auth_time: seconds(),
    });
  });

  // A token that was stolen earlier is no fresher here than at home once its owner has proven who they are.
  test("auth_time is the token's own, also after a step-up", async () => {
    const { access_token } = await app.login("ada");
    const before = seconds();
    app.clock.advance(300_000);
    await app.request("POST", "/api/v1/auth/step-up", { token: access_token, body: { password: PASSWORD } });
    expect((await look(access_token)).body.auth_time).toBe(before);
    app.clock.advance(-300_000);
  });

  test("a refresh token", async () => {
    const tokens = await app.login("ada");
    expect((await look(tokens.refresh_token)).body).toEqual({
      active: true,
      token_type: "refresh_token",
      sub: ada.id,
      client_id: "primer",
      username: "ada",
      sid: tokens.session_id,
      iat: seconds(),
      exp: seconds() + 86_400,
    });
  });

  // The hint only helps to find the token: a wrong one changes nothing.
  test.each(["access_token", "refresh_token", "nonsense", ""])("with the hint %j", async (token_type_hint) => {
    const tokens = await app.login("ada");
    for (const token of [tokens.access_token, tokens.refresh_token])
      expect((await look(token, { token_type_hint })).body.active).toBe(true);
  });

  // Roles and permissions are those of now, whatever the token says.
  test("a changed role shows at once", async () => {
    const { access_token } = await app.login("ada");
    await setRoles(app.deps, ada.id, { roles: ["admin", "user"] }, BY);
    await app.createUser({ username: "second-admin", roles: ["admin"] });
    expect((await look(access_token)).body).toMatchObject({ roles: ["admin", "user"], scope: "*:*" });
    await setRoles(app.deps, ada.id, { roles: ["user"] }, BY);
    expect((await look(access_token)).body).toMatchObject({ roles: ["user"], scope: "" });
  });

  interface End {
    readonly name: string;
    readonly end: (tokens: Awaited<ReturnType<HttpApp["login"]>>) => Promise<unknown>;
  }
  const ENDS: readonly End[] = [
    {
      name: "logout",
      end: ({ access_token }) => app.request("POST", "/api/v1/auth/logout", { token: access_token }),
    },
    { name: "revoke", end: ({ refresh_token }) => revoke(app, client, refresh_token) },
    {
      name: "disabling the user",
      async end() {
        await changeUser(app.deps, ada.id, { status: "disabled" }, BY);
        await changeUser(app.deps, ada.id, { status: "active" }, BY);
      },
    },
    {
      name: "reuse of a refresh token",
      async end({ refresh_token }) {
        const { refresh_token: second } = await refresh(refresh_token);
        await refresh(second);
        await refresh(refresh_token);
      },
    },
    {
      name: "the end of the row",
      end: ({ session_id }) => app.db.query("DELETE FROM sessions WHERE id = $1", [session_id]),
    },
  ];
  for (const { name, end } of ENDS) {
    // What ends a session ends it for whoever introspects, at once and for both tokens.
    test(`inactive after ${name}`, async () => {
      const tokens = await app.login("ada");
      expect((await look(tokens.access_token)).body.active).toBe(true);
      await end(tokens);
      await app.deps.changes.settled(); // what was changed behind our back is heard of a moment later
      await expectInactive(tokens.access_token, tokens.refresh_token);
    });
  }

  test.each(["disabled", "deactivated", "pending"])("inactive while the user is %s", async (status) => {
    const tokens = await app.login("ada");
    await setStatus(app, ada.id, status);
    await app.deps.changes.settled();
    await expectInactive(tokens.access_token, tokens.refresh_token);
    await setStatus(app, ada.id, "active");
    await app.deps.changes.settled();
    expect((await look(tokens.access_token)).body.active).toBe(true);
  });

  // To the second: our own clock is the one that the token was made by.
  test("inactive once its time is over", async () => {
    const tokens = await app.login("ada");
    app.clock.advance(15 * MINUTE - 1000);
    expect((await look(tokens.access_token)).body.active).toBe(true);
    app.clock.advance(1000);
    await expectInactive(tokens.access_token);
    app.clock.advance(24 * 60 * MINUTE - 15 * MINUTE - 1);
    expect((await look(tokens.refresh_token)).body.active).toBe(true);
    app.clock.advance(1);
    await expectInactive(tokens.refresh_token);
  });

  test("a refresh token past the session's absolute end", async () => {
    let { refresh_token } = await app.login("ada");
    for (let day = 0; day < 30; day++) {
      app.clock.advance(24 * 60 * MINUTE - 1);
      refresh_token = (await refresh(refresh_token)).refresh_token;
    }
    expect((await look(refresh_token)).body.exp - seconds()).toBeLessThanOrEqual(1);
    app.clock.advance(30);
    await expectInactive(refresh_token);
  });

  // Looking at a used refresh token is not using it: the session lives on, and nothing is written.
  test("a used refresh token is inactive and that is all", async () => {
    const first = await app.login("ada");
    const second = await refresh(first.refresh_token);
    app.clock.advance(MINUTE);
    const steps = await stepsOf(app.deps, () => expectInactive(first.refresh_token));
    expect(steps.filter((step) => !step.startsWith("select"))).toEqual([]);
    expect((await look(second.refresh_token)).body.active).toBe(true);
    expect((await refresh(second.refresh_token)).refresh_token).toBeDefined();
  });

  test("garbage", async () => {
    const { access_token, refresh_token } = await app.login("ada");
    await expectInactive(
      "x",
      " ",
      "a.b.c",
      "a..b.c.d",
      "....",
      "\u0000",
      "\u{1f40e}",
      access_token.slice(0, -1),
      `${access_token}x`,
      `${access_token}.x`,
      ` ${access_token}`,
      `Bearer ${access_token}`,
      refresh_token.slice(0, -1),
      `${refresh_token}.x`,
      refresh_token.replace("..", ".x."),
      "a".repeat(60_000),
      ".".repeat(60_000),
      app.deps.keys.signing().kid,
      client.client_secret,
    );
  });

  // A token that was made for somebody else's audience is none of ours.
  test("another audience or issuer", async () => {
    const { access_token } = await app.login("ada");
    for (const changed of [{ audience: "elsewhere" }, { issuer: "http://elsewhere.test" }]) {
      const { settings } = app.deps;
      const restore = replaceDeps(app.deps, { settings: { ...settings, tokens: { ...settings.tokens, ...changed } } });
      try {
        await expectInactive(access_token);
      } finally {
        restore();
      }
    }
  });
});

describe("while the database is away", () => {
  const gone = Object.assign(new Error("gone"), { code: "ECONNREFUSED" });

  // What cannot be known is not answered: a false "inactive" would log people out, a false 200 would leave a thief in.
  test("503 with Retry-After, and all is as before afterwards", async () => {
    const tokens = await app.login("ada");
    for (const [call, knows] of [
      [introspect, "nothing"],
      [introspect, "the client"],
      [revoke, "nothing"],
      [revoke, "the client"],
    ] as const) {
      for (const token of [tokens.access_token, tokens.refresh_token]) {
        app.deps.sessions.forget(undefined);
        if (knows === "nothing") app.deps.clients.forget(undefined);
        else await introspect(app, client, "x");
        const restore = replaceDeps(app.deps, { db: brokenDatabase(app.db, gone) });
        const answer = await call(app, client, token).finally(restore);
        expect({ status: answer.status, error: answer.body.error }).toEqual({
          status: 503,
          error: "temporarily_unavailable",
        });
        expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d?$/);
      }
    }
    await app.deps.clients.forget(undefined);
    for (const token of [tokens.access_token, tokens.refresh_token]) expect((await look(token)).body.active).toBe(true);
    expect((await revoke(app, client, tokens.refresh_token)).status).toBe(200);
    await expectInactive(tokens.access_token, tokens.refresh_token);
  });

  test("500 for a fault of ours says nothing", async () => {
    app.deps.clients.forget(undefined);
    const restore = replaceDeps(app.deps, { db: brokenDatabase(app.db, new Error("SELECT secret FROM vault")) });
    const answer = await look("x").finally(restore);
    expect({ status: answer.status, error: answer.body.error }).toEqual({ status: 500, error: "server_error" });
    expect(answer.text).not.toContain("vault");
  });
});
