import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createSessionStates } from "../../../server/features/sessions/service.ts";
import { changeUser, setPassword, setRoles } from "../../../server/features/users/service.ts";
import { PASSWORD, type TestApp, type TestNode } from "../../support/app.ts";
import { deafFeed } from "../../support/frozen-feed.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { untilAnswered, WITHIN_MS } from "../support/until-answered.ts";

const OPERATOR = { actor: { kind: "operator" } } as const;
const MINE = "/api/v1/users/me/sessions";

type Tokens = Awaited<ReturnType<HttpApp["login"]>>;
type Node = Pick<TestApp, "request">;

let app: HttpApp;
let other: TestNode;
let made = 0;
beforeAll(async () => {
  app = await openHttpApp();
  other = await app.otherNode();
  await app.createUser({ username: "root", roles: ["admin"] });
});
afterAll(() => app.close());

const newUser = (roles = ["user"]) => app.createUser({ username: `user-${++made}`, roles });
const codeOf = async (answer: ReturnType<Node["request"]>) => (await answer).body?.error?.code ?? "ok";
const verify = (on: Node, { access_token }: Tokens) =>
  codeOf(on.request("GET", "/api/v1/auth/verify", { token: access_token }));

/** Everything that takes a token of a session, and what it answers once that has ended. */
const ENDPOINTS: Readonly<Record<string, (on: Node, tokens: Tokens) => Promise<string>>> = {
  verify,
  refresh: (on, { refresh_token }) => codeOf(on.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } })),
  "step-up": (on, { access_token: token }) =>
    codeOf(on.request("POST", "/api/v1/auth/step-up", { token, body: { password: PASSWORD } })),
  list: (on, { access_token: token }) => codeOf(on.request("GET", MINE, { token })),
  "end another": (on, { access_token: token, session_id }) =>
    codeOf(on.request("DELETE", `${MINE}/${session_id}`, { token })),
  "end the others": (on, { access_token: token }) => codeOf(on.request("DELETE", MINE, { token })),
  "list a user's": (on, { access_token: token, session_id }) =>
    codeOf(on.request("GET", `/api/v1/users/${session_id}/sessions`, { token })),
  "end a user's": (on, { access_token: token, session_id }) =>
    codeOf(on.request("DELETE", `/api/v1/users/${session_id}/sessions`, { token })),
};

interface Way {
  readonly name: string;
  readonly end: (on: HttpApp, victim: Tokens, user: { id: string; username: string }) => Promise<unknown>;
}

const WAYS: readonly Way[] = [
  { name: "a logout", end: (on, { access_token: token }) => on.request("POST", "/api/v1/auth/logout", { token }) },
  {
    name: "a logout everywhere",
    end: async (on, _, { username }) =>
      on.request("POST", "/api/v1/auth/logout", {
        token: (await on.login(username)).access_token,
        body: { all: true },
      }),
  },
  {
    name: "one's own end of it from another session",
    end: async (on, { session_id }, { username }) =>
      on.request("DELETE", `${MINE}/${session_id}`, { token: (await on.login(username)).access_token }),
  },
  {
    name: "one's own end of all others",
    end: async (on, _, { username }) => on.request("DELETE", MINE, { token: (await on.login(username)).access_token }),
  },
  {
    name: "an administrator's end of a user's",
    end: async (on, _, { id }) =>
      on.request("DELETE", `/api/v1/users/${id}/sessions`, { token: (await on.login("root")).access_token }),
  },
  { name: "the account disabled", end: (on, _, { id }) => changeUser(on.deps, id, { status: "disabled" }, OPERATOR) },
  {
    name: "a new password",
    end: (on, _, { id }) => setPassword(on.deps, id, "a new horse battery staple", OPERATOR),
  },
  {
    name: "a token used twice",
    end: async (on, { refresh_token }) => {
      const use = () => on.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } });
      await use();
      on.clock.advance(60_000);
      await use();
    },
  },
];

describe("what ends on one node", () => {
  // However a session ends, and wherever: within a second every endpoint of every other node refuses it, although each
  // had it in its cache; the ending node itself does so at once.
  for (const { name, end } of WAYS) {
    test(`${name} is refused by the other within ${WITHIN_MS} ms`, async () => {
      const user = await newUser();
      const victim = await app.login(user.username);
      expect([await verify(app, victim), await verify(other, victim)]).toEqual(["ok", "ok"]);
      await end(app, victim, user);
      expect(await verify(app, victim)).toBe("AUTH_TOKEN_REVOKED");
      expect(await untilAnswered("AUTH_TOKEN_REVOKED", () => verify(other, victim))).toBeLessThan(WITHIN_MS);
      for (const [endpoint, ask] of Object.entries(ENDPOINTS)) {
        if (endpoint === "refresh" && name === "a token used twice") continue; // that one is told that it was reused
        expect({ endpoint, code: await ask(other, victim) }).toEqual({ endpoint, code: "AUTH_TOKEN_REVOKED" });
      }
    });
  }

  // A role that is gone gives nothing any more, on no node, although the token still names it; the session lives on.
  test(`a role taken away counts on the other within ${WITHIN_MS} ms`, async () => {
    const { id, username } = await newUser(["admin"]);
    const tokens = await app.login(username);
    const listOn = (on: Node) =>
      codeOf(on.request("GET", `/api/v1/users/${id}/sessions`, { token: tokens.access_token }));
    expect([await listOn(app), await listOn(other)]).toEqual(["ok", "ok"]);
    await setRoles(app.deps, id, { roles: ["user"] }, OPERATOR);
    expect(await listOn(app)).toBe("FORBIDDEN");
    expect(await untilAnswered("FORBIDDEN", () => listOn(other))).toBeLessThan(WITHIN_MS);
    expect(await verify(other, tokens)).toBe("ok");
  });

  // A step-up on one node counts on the other: what is refreshed there is as fresh.
  test("a step-up is known to the other", async () => {
    const { username } = await newUser();
    const tokens = await app.login(username);
    await verify(other, tokens);
    app.clock.advance(60_000);
    await app.request("POST", "/api/v1/auth/step-up", { token: tokens.access_token, body: { password: PASSWORD } });
    const { body } = await other.request("POST", "/api/v1/auth/refresh", {
      body: { refresh_token: tokens.refresh_token },
    });
    const claims = JSON.parse(Buffer.from(body.access_token.split(".")[1], "base64url").toString());
    expect(claims.auth_time).toBe(Math.floor(app.clock.now().getTime() / 1000));
  });
});

describe("a node whose feed of changes has frozen", () => {
  // Nothing tells such a node that it hears nothing: what it remembers counts for a second at most, and a refresh, which
  // reads the row, for no time at all.
  test("believes a session for one second at most", async () => {
    const frozen = deafFeed();
    const deaf = await app.otherNode({ sessions: createSessionStates(frozen) });
    const [ended, expected] = [await app.login((await newUser()).username), "AUTH_TOKEN_REVOKED"];
    expect(await verify(deaf, ended)).toBe("ok");
    await app.request("POST", "/api/v1/auth/logout", { token: ended.access_token });
    frozen.moveTo(WITHIN_MS - 1);
    expect(await verify(deaf, ended)).toBe("ok");
    expect(await ENDPOINTS.refresh?.(deaf, ended)).toBe(expected);
    expect(await ENDPOINTS["step-up"]?.(deaf, ended)).toBe(expected);
    frozen.moveTo(WITHIN_MS);
    for (const [endpoint, ask] of Object.entries(ENDPOINTS))
      expect({ endpoint, code: await ask(deaf, ended) }).toEqual({ endpoint, code: expected });
  });
});
