import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { openTestApp, type TestApp } from "../../support/app.ts";

const GRACE_MS = 10_000;
/** How soon a change counts on every node (milliseconds). */
const KNOWN_WITHIN_MS = 1000;

type Node = Pick<TestApp, "deps" | "request">;

let app: TestApp;
let nodes: readonly [Node, Node];
beforeAll(async () => {
  app = await openTestApp();
  await app.createUser({ username: "root", roles: ["admin"] });
  nodes = [app, await app.otherNode()];
});
afterAll(() => app.close());

let made = 0;
async function newUser() {
  const username = `user${++made}`;
  return app.createUser({ username });
}

const refreshOn = (node: Node, refresh_token: string) =>
  node.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } });
const verifyOn = (node: Node, token: string, query = "") =>
  node.request("GET", `/api/v1/auth/verify${query}`, { token });
const codeOf = ({ status, body }: { status: number; body: { error?: { code: string } } }) =>
  status === 200 ? "ok" : (body.error?.code ?? String(status));

const generationOf = async (sessionId: string) =>
  (
    await app.db.query<{ generation: number }>("SELECT generation FROM refresh_families WHERE session_id = $1", [
      sessionId,
    ])
  )[0]?.generation;

/** What the other node says at last, and how long it took to say it. */
async function told(ask: () => Promise<string>, expected: string): Promise<number> {
  const began = performance.now();
  for (;;) {
    const answer = await ask();
    const took = performance.now() - began;
    if (answer === expected) return took;
    if (took > 5000) throw new Error(`Still ${answer} after ${Math.round(took)} ms, not ${expected}`);
    await Bun.sleep(5);
  }
}

// Tabs and devices that refresh at the same moment never log each other out, and never split a session in two.
describe("50 truly parallel refreshes of one token over two nodes", () => {
  test("one lineage: everybody has tokens that work, and the token moved on once", async () => {
    const { username } = await newUser();
    const { refresh_token, session_id } = await app.login(username);
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) => refreshOn(nodes[index % 2 === 0 ? 0 : 1], refresh_token)),
    );
    expect(answers.map(codeOf)).toEqual(Array.from({ length: 50 }, () => "ok"));
    expect(await generationOf(session_id)).toBe(2);
    for (const { body } of answers) expect(codeOf(await verifyOn(nodes[1], body.access_token))).toBe("ok");
    app.clock.advance(GRACE_MS * 2);
    // Whichever of the answers a client has kept, it goes on from there: they are all the same generation.
    const next = await refreshOn(nodes[1], answers[49]?.body.refresh_token);
    expect(codeOf(next)).toBe("ok");
    expect(await generationOf(session_id)).toBe(3);
    expect(codeOf(await refreshOn(nodes[0], next.body.refresh_token))).toBe("ok");
  });

  test("again and again, each time with whatever came back", async () => {
    const { username } = await newUser();
    let { refresh_token, session_id } = await app.login(username);
    for (let round = 2; round < 7; round++) {
      const answers = await Promise.all(
        Array.from({ length: 10 }, (_, index) => refreshOn(nodes[index % 2 === 0 ? 0 : 1], refresh_token)),
      );
      expect(new Set(answers.map(codeOf))).toEqual(new Set(["ok"]));
      expect(await generationOf(session_id)).toBe(round);
      refresh_token = answers[round]?.body.refresh_token;
      app.clock.advance(GRACE_MS + 1);
    }
  });

  // Outside the grace the same race is a theft: nobody keeps anything.
  test("of a used token past the grace: the session ends on both nodes", async () => {
    const { username } = await newUser();
    const first = await app.login(username);
    const second = await refreshOn(nodes[0], first.refresh_token);
    app.clock.advance(GRACE_MS + 1);
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => refreshOn(nodes[index % 2 === 0 ? 0 : 1], first.refresh_token)),
    );
    expect(new Set(answers.map(codeOf))).toEqual(new Set(["AUTH_REFRESH_REUSED"]));
    expect(codeOf(await refreshOn(nodes[1], second.body.refresh_token))).toBe("AUTH_TOKEN_REVOKED");
    const mails = await app.db.query<{ data: { template: string } }>(
      "SELECT data FROM jobs.job WHERE data ->> 'session_id' = $1",
      [first.session_id],
    );
    expect(mails).toHaveLength(1);
    expect(mails[0]?.data.template).toBe("refresh_reused");
    const audited = await app.db.query("SELECT 1 FROM audit_log WHERE action = 'refresh.reused' AND subject_id = $1", [
      first.session_id,
    ]);
    expect(audited).toHaveLength(1);
  });
});

// A logout wins: whatever was under way at that moment, nothing of the session is alive afterwards.
test("refreshes in flight on both nodes never revive a session that is logged out", async () => {
  for (let round = 0; round < 10; round++) {
    const { username } = await newUser();
    const tokens = await app.login(username);
    const racing = Array.from({ length: 8 }, (_, index) =>
      refreshOn(nodes[index % 2 === 0 ? 0 : 1], tokens.refresh_token),
    );
    const logout = nodes[1].request("POST", "/api/v1/auth/logout", { token: tokens.access_token });
    const answers = await Promise.all(racing);
    expect((await logout).status).toBe(204);
    for (const answer of answers.filter(({ status }) => status === 200)) {
      expect(codeOf(await refreshOn(nodes[0], answer.body.refresh_token))).toBe("AUTH_TOKEN_REVOKED");
      expect(codeOf(await verifyOn(nodes[1], answer.body.access_token))).toBe("AUTH_TOKEN_REVOKED");
    }
  }
});

// Whoever changes a row, and be it by hand in the database: every node knows within a second.
describe("a change by hand is known on the other node within a second", () => {
  async function watched() {
    const user = await newUser();
    const tokens = await app.login(user.username);
    for (const node of nodes) expect(codeOf(await verifyOn(node, tokens.access_token))).toBe("ok");
    return { user, tokens };
  }
  const other =
    (token: string, query = "") =>
    async () =>
      codeOf(await verifyOn(nodes[1], token, query));

  const ENDS: Record<
    string,
    (user: { id: string }, tokens: { access_token: string; refresh_token: string }) => Promise<unknown>
  > = {
    "the row itself, changed by hand": ({ id }) =>
      app.db.query("UPDATE sessions SET revoked_at = created_at, revoked_reason = 'by hand' WHERE user_id = $1", [id]),
    "the row itself, deleted by hand": ({ id }) => app.db.query("DELETE FROM sessions WHERE user_id = $1", [id]),
  };
  for (const [name, end] of Object.entries(ENDS)) {
    test(name, async () => {
      const { user, tokens } = await watched();
      await end(user, tokens);
      const took = await told(other(tokens.access_token), "AUTH_TOKEN_REVOKED");
      expect(took).toBeLessThan(KNOWN_WITHIN_MS);
      expect(codeOf(await refreshOn(nodes[1], tokens.refresh_token))).not.toBe("ok");
    });
  }

  test("what a role may do", async () => {
    const { tokens } = await watched();
    const ask = other(tokens.access_token, "?permission=orders:read");
    expect(await ask()).toBe("FORBIDDEN");
    await app.db.query("INSERT INTO role_permissions VALUES ('user', 'orders:read')");
    expect(await told(ask, "ok")).toBeLessThan(KNOWN_WITHIN_MS);
    await app.db.query("DELETE FROM role_permissions WHERE permission = 'orders:read'");
    expect(await told(ask, "FORBIDDEN")).toBeLessThan(KNOWN_WITHIN_MS);
  });
});
