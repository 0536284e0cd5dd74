import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createClient } from "../../../server/features/clients/service.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { type Credentials, introspect, revoke } from "../support/oauth.ts";
import { countRows } from "../support/scenario.ts";

const HOUR = 3_600_000;

let app: HttpApp;
let client: Credentials;
beforeAll(async () => {
  app = await openHttpApp();
  await app.createUser({ username: "ada" });
  client = await createClient(app.deps, { name: "orders" }, { actor: { kind: "operator" } });
});
afterAll(() => app.close());

type Tokens = Awaited<ReturnType<HttpApp["login"]>>;
const verify = async ({ access_token }: Tokens) =>
  (await app.request("GET", "/api/v1/auth/verify", { token: access_token })).body.error?.code ?? "ok";
const refresh = async ({ refresh_token }: Tokens) =>
  (await app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } })).body;

interface Way {
  readonly name: string;
  readonly token: (tokens: Tokens) => string | Promise<string>;
  readonly hint?: string;
}

const WAYS: readonly Way[] = [
  { name: "the refresh token", token: ({ refresh_token }) => refresh_token },
  { name: "the refresh token, with a wrong hint", token: ({ refresh_token }) => refresh_token, hint: "access_token" },
  { name: "the access token", token: ({ access_token }) => access_token },
  { name: "the access token, with a wrong hint", token: ({ access_token }) => access_token, hint: "refresh_token" },
  {
    name: "an expired access token",
    token({ access_token }) {
      app.clock.advance(HOUR);
      return access_token;
    },
  },
  {
    name: "a refresh token past its idle time",
    token({ refresh_token }) {
      app.clock.advance(25 * HOUR);
      return refresh_token;
    },
  },
  {
    name: "a refresh token that was used",
    async token(tokens) {
      await refresh(tokens);
      return tokens.refresh_token;
    },
  },
];

describe("POST /oauth2/revoke", () => {
  for (const { name, token, hint } of WAYS) {
    // RFC 7009, section 2.1: the grant ends with everything that was made for it, at once; no other session does.
    test(`200 by ${name}`, async () => {
      const tokens = await app.login("ada");
      const sent = await token(tokens);
      const bystander = await app.login("ada");
      expect(await verify(tokens)).toMatch(/^ok$|EXPIRED$/);
      const before = await countRows(app);
      const answer = await revoke(app, client, sent, hint === undefined ? {} : { token_type_hint: hint });
      expect({ status: answer.status, text: answer.text }).toEqual({ status: 200, text: "" });
      expect(await verify(tokens)).toMatch(/^AUTH_TOKEN_(REVOKED|EXPIRED)$/);
      expect((await refresh(tokens)).error.code).toMatch(/^AUTH_(TOKEN_REVOKED|TOKEN_EXPIRED|REFRESH_REUSED)$/);
      for (const dead of [tokens.access_token, tokens.refresh_token])
        expect((await introspect(app, client, dead)).text).toBe('{"active":false}');
      expect(await verify(bystander)).toBe("ok");

      const rows = await app.db.query(
        "SELECT actor_kind, actor_id, outcome, request_id FROM audit_log WHERE action = 'session.revoked' AND subject_id = $1",
        [tokens.session_id],
      );
      const request_id = answer.headers.get("x-request-id");
      expect(rows).toEqual([{ actor_kind: "client", actor_id: client.id, outcome: "success", request_id }]);
      const [session] = await app.db.query("SELECT revoked_reason FROM sessions WHERE id = $1", [tokens.session_id]);
      expect(session).toEqual({ revoked_reason: "revoked_by_client" });

      // Doing it again is no error, and is not recorded again.
      const after = await countRows(app);
      expect((await revoke(app, client, sent)).status).toBe(200);
      expect(await countRows(app)).toEqual(after);
      expect(after.sessions).toBe(before.sessions);
    });
  }

  // RFC 7009, section 2.2: what is not there need not be revoked, and nothing is told of it.
  test.each(["x", "a.b.c", "a..b.c.d", "\u0000", "a".repeat(60_000), "prs_secret"])("200 for %.20j", async (token) => {
    const before = await countRows(app);
    const answer = await revoke(app, client, token);
    expect({ status: answer.status, text: answer.text }).toEqual({ status: 200, text: "" });
    expect(await countRows(app)).toEqual(before);
  });

  test("200 for a token whose session's row is gone", async () => {
    const tokens = await app.login("ada");
    await app.db.query("DELETE FROM sessions WHERE id = $1", [tokens.session_id]);
    for (const token of [tokens.access_token, tokens.refresh_token])
      expect((await revoke(app, client, token)).status).toBe(200);
  });

  // However often it is sent at once, the session ends once; a refresh under way does not bring it back.
  test("10 at the same moment, with refreshes among them", async () => {
    const tokens = await app.login("ada");
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, index) => [
        revoke(app, client, index % 2 ? tokens.access_token : tokens.refresh_token).then(({ status }) => status),
        refresh(tokens),
      ]).flat(),
    );
    expect(new Set(answers.filter((answer) => typeof answer === "number"))).toEqual(new Set([200]));
    for (const made of [tokens, ...answers.filter((answer) => answer.access_token)]) {
      expect(await verify(made)).toBe("AUTH_TOKEN_REVOKED");
      expect((await refresh(made)).error.code).toMatch(/^AUTH_TOKEN_REVOKED|AUTH_REFRESH_REUSED$/);
    }
    const rows = await app.db.query("SELECT id FROM audit_log WHERE action = 'session.revoked' AND subject_id = $1", [
      tokens.session_id,
    ]);
    expect(rows).toHaveLength(1);
  });
});
