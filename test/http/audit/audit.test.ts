import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import type { AuditView } from "../../../server/features/audit/service.ts";
import { createClient } from "../../../server/features/clients/service.ts";
import { FULL, inShort, waitFor } from "../../drills/processes.ts";
import { openTestApp } from "../../support/app.ts";
import { type HttpApp, openHttpApp, openListeningApp } from "../support/http-app.ts";
import { introspect } from "../support/oauth.ts";

const PATH = "/api/v1/audit";
const EVENTS = 430;
const OLD = "2026-01-10T00:00:00.000Z";
inShort("who does not read an export is waited for; with TEST_FULL for as long as it takes until they are cut off");

let app: HttpApp;
let admin: string;
let rootId: string;
let ada: { id: string };
beforeAll(async () => {
  app = await openHttpApp();
  rootId = (await app.createUser({ username: "root", roles: ["admin"] })).id;
  ada = await app.createUser({ username: "ada" });
  admin = (await app.login("root")).access_token;
  await fill(app, EVENTS);
});
afterAll(() => app.close());

/** Events of long ago, several at each moment. */
const fill = (to: Pick<HttpApp, "db">, count: number, details = "{}") =>
  to.db.query(
    `INSERT INTO audit_log (id, time, action, outcome, actor_kind, actor_id, details)
     SELECT gen_random_uuid(), $1::timestamptz + (n / 7) * interval '1 second', 'logout', 'success', 'user', 'old', $3::text::jsonb
     FROM generate_series(1, $2::int) n`,
    [OLD, count, details],
  );

const get = (query = "", token = admin) => app.request("GET", `${PATH}${query}`, { token });
const linesOf = (text: string): AuditView[] =>
  text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line));

describe("GET /audit", () => {
  // Who did what to whom, from where, by which request, and how it ended.
  test("shows an event with all that is known of it", async () => {
    const answer = await app.request("POST", "/api/v1/auth/login", {
      body: { username: "ada", password: "wrong wrong wrong" },
      headers: { "user-agent": "=cmd()", "x-request-id": "request-of-ada" },
    });
    expect(answer.status).toBe(401);
    const { body } = await get(`?action=login&outcome=failure`);
    expect(body).toEqual({
      data: [
        {
          id: expect.any(String),
          time: app.clock.now().toISOString(),
          action: "login",
          outcome: "failure",
          actor: { kind: "anonymous", id: null },
          subject: { kind: "user", id: ada.id },
          ip: null,
          user_agent: "=cmd()",
          request_id: "request-of-ada",
          details: { reason: "wrong_password" },
        },
      ],
      next_cursor: null,
    });
  });

  // Nobody without the permission sees anything of it, and that they tried is an event: once.
  test("is refused without audit:read, which is an event itself", async () => {
    const { access_token: token } = await app.login("ada");
    const headers = { "x-request-id": "request-refused", "user-agent": "curious" };
    const answer = await app.request("GET", PATH, { token, headers });
    expect([answer.status, answer.body.error.code]).toEqual([403, "FORBIDDEN"]);
    const { body } = await get("?action=access.refused");
    expect(body.data).toEqual([
      expect.objectContaining({
        actor: { kind: "user", id: ada.id },
        outcome: "failure",
        request_id: "request-refused",
        user_agent: "curious",
        details: { method: "GET", route: PATH, permission: "audit:read" },
      }),
    ]);
  });

  // Whoever guesses at the secret of a service leaves a trace.
  test("has the service client that was refused", async () => {
    const client = await createClient(app.deps, { name: "orders" }, { actor: { kind: "operator" } });
    const answer = await introspect(app, { ...client, client_secret: "wrong" }, "token");
    expect(answer.status).toBe(401);
    const { body } = await get("?action=client.refused");
    expect(body.data).toEqual([
      expect.objectContaining({ subject: { kind: "client", id: client.id }, outcome: "failure" }),
    ]);
  });

  test.each<[string, () => string, (event: AuditView) => boolean]>([
    ["action", () => "action=user.created", ({ action }) => action === "user.created"],
    ["outcome", () => "outcome=failure", ({ outcome }) => outcome === "failure"],
    ["actor", () => `actor=${rootId}`, ({ actor }) => actor.id === rootId],
    ["an actor without an id", () => "actor=operator", ({ actor }) => actor.kind === "operator"],
    ["subject", () => `subject=${ada.id}`, ({ subject }) => subject?.id === ada.id],
    ["from", () => "from=2026-03-01", ({ time }) => time >= "2026-03-01"],
    ["from, in a zone", () => "from=2026-03-01T02:00%2B02:00", ({ time }) => time >= "2026-03-01"],
    ["to", () => "to=2026-01-10T00:00:10Z", ({ time }) => time < "2026-01-10T00:00:10.000Z"],
    [
      "several",
      () => "action=user.created&actor=operator&from=2026-03-01T11:00:00Z",
      ({ action }) => action === "user.created",
    ],
  ])("filters by %s", async (_name, query, fits) => {
    const all = linesOf((await get("?format=ndjson")).text);
    const expected = all.filter(fits).map(({ id }) => id);
    expect(expected.length).toBeGreaterThan(0);
    const { body } = await get(`?limit=200&${query()}`);
    expect(body.data.map(({ id }: AuditView) => id)).toEqual(expected.slice(0, 200));
  });

  test("goes page by page, the newest first, and leaves nothing out", async () => {
    const seen: string[] = [];
    let cursor: string | null = "";
    while (cursor !== null) {
      const { body } = await get(`?limit=50&to=2026-02-01${cursor === "" ? "" : `&cursor=${cursor}`}`);
      seen.push(...body.data.map(({ id }: AuditView) => id));
      cursor = body.next_cursor;
    }
    expect(seen.length).toBe(EVENTS);
    expect(new Set(seen).size).toBe(EVENTS);
    expect(linesOf((await get("?format=ndjson&to=2026-02-01")).text).map(({ id }) => id)).toEqual(seen);
  });

  test.each([
    "cursor=x",
    "cursor=1.x",
    "cursor=99999999999999999.019b76da-a800-7000-8000-000000000000",
    "cursor=999999999999999.019b76da-a800-7000-8000-000000000000",
    "from=yesterday",
    "from=0000-01-01",
    "from=0001-01-01T00:00:00%2B01:00",
    "from=2026-03-01T12:00:00",
    "from=2026-03-01%2012:00",
    "to=2026-13-01",
    "to=2026-02-31",
    "to=2026-02-29T12:00:00Z",
    "to=9999-12-31T23:59:59-01:00",
    "action=a%00b",
    "actor=a%00b",
    "subject=%00",
    "format=ndjson&action=a%00b",
    "limit=201",
    "outcome=perhaps",
    "format=csv",
    "order=asc",
    "format=ndjson&from=x",
    "format=ndjson&cursor=x",
    "format=ndjson&limit=10",
  ])("%s is refused", async (query) => {
    const answer = await get(`?${query}`);
    expect([answer.status, answer.body.error.code]).toEqual([422, "VALIDATION_FAILED"]);
  });
});

describe("GET /audit?format=ndjson", () => {
  test("is a line for each event, and an event itself", async () => {
    const answer = await get("?format=ndjson&action=user.created");
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "application/x-ndjson"]);
    expect(linesOf(answer.text).map(({ action }) => action)).toEqual(["user.created", "user.created"]);
    const { body } = await get("?action=audit.exported&limit=1");
    expect(body.data[0]).toMatchObject({ actor: { kind: "user", id: rootId }, details: { action: "user.created" } });
  });

  // Exports that nobody reads take up neither memory nor all the room there is.
  test("is sent to four at a time, and read no faster than it is sent", async () => {
    const ask = () =>
      app.app.handle(
        new Request(`http://localhost${PATH}?format=ndjson`, { headers: { authorization: `Bearer ${admin}` } }),
      );
    const unread: Response[] = [];
    for (let count = 0; count < 4; count++) unread.push(await ask());
    expect(unread.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    const refused = await ask();
    expect([refused.status, Number(refused.headers.get("retry-after"))]).toEqual([503, expect.any(Number)]);
    const [first, ...others] = unread;
    const reader = first?.body?.getReader();
    const { value } = (await reader?.read()) ?? {};
    expect(linesOf(new TextDecoder().decode(value)).length).toBe(200);
    await reader?.cancel();
    for (const { body } of others) await body?.cancel();
    const again = await ask();
    expect(again.status).toBe(200);
    await again.body?.cancel();
  });

  // What somebody types where an id or a name is asked for may be a secret, and the log is kept for good.
  test("leaves nothing of what was typed in the log", async () => {
    const secret = "correct-horse";
    await get(`?format=ndjson&action=${secret}&actor=${secret}&subject=${secret}&from=2026-03-01T02:00%2B02:00`);
    await get(`?format=ndjson&actor=operator&subject=${ada.id}&to=2026-03-01`);
    const { body, text } = await get("?action=audit.exported&limit=2");
    expect(text).not.toContain(secret);
    const [known, other] = body.data.map(({ details }: AuditView) => details);
    expect(known).toEqual({ format: "ndjson", actor: "operator", subject: ada.id, to: "2026-03-01T00:00:00.000Z" });
    expect(other).toMatchObject({ action: "(other)", subject: "(other)", from: "2026-03-01T00:00:00.000Z" });
  });

  // Who may not read the log any more gets no more of it, though they have begun to.
  test.each<[string, (of: HttpApp, reader: { id: string; sessionId: string; token: string }) => Promise<unknown>]>([
    ["their role is taken", ({ db }, { id }) => db.query("DELETE FROM user_roles WHERE user_id = $1", [id])],
    [
      "their session is ended",
      ({ request }, { sessionId, token }) => request("DELETE", `/api/v1/users/me/sessions/${sessionId}`, { token }),
    ],
    ["their token has expired", async ({ clock }) => clock.advance(7 * 60_000)],
  ])("breaks off once %s", async (_what, lose) => {
    const own = await openHttpApp({ PRIMER_TOKENS__ACCESS_TTL: "5m" });
    try {
      const { id } = await own.createUser({ username: "reader", roles: ["admin"] });
      const { access_token: token, session_id: sessionId } = await own.login("reader");
      await fill(own, EVENTS);
      const headers = { authorization: `Bearer ${token}` };
      const { body } = await own.app.handle(new Request(`http://localhost${PATH}?format=ndjson`, { headers }));
      const reader = body?.getReader();
      expect((await reader?.read())?.value?.length).toBeGreaterThan(0);
      own.clock.advance(2000);
      expect((await reader?.read())?.value?.length).toBeGreaterThan(0);
      await lose(own, { id, sessionId, token });
      await waitFor("it is known", async () => (await own.request("GET", PATH, { token })).status >= 400);
      own.clock.advance(2000);
      await expect(reader?.read()).rejects.toThrow();
    } finally {
      await own.close();
    }
  });

  // No export goes on for ever, however long the token counts.
  test("breaks off after a quarter of an hour", async () => {
    const own = await openHttpApp({ PRIMER_TOKENS__ACCESS_TTL: "1h" });
    try {
      await own.createUser({ username: "reader", roles: ["admin"] });
      const headers = { authorization: `Bearer ${(await own.login("reader")).access_token}` };
      await fill(own, EVENTS);
      const { body } = await own.app.handle(new Request(`http://localhost${PATH}?format=ndjson`, { headers }));
      const reader = body?.getReader();
      await reader?.read();
      own.clock.advance(15 * 60_000);
      expect((await reader?.read())?.value?.length).toBeGreaterThan(0);
      own.clock.advance(1000);
      await expect(reader?.read()).rejects.toThrow();
    } finally {
      await own.close();
    }
  });

  // Whoever gets a part of it can tell: the answer does not end as a whole one does.
  test.each([
    [false, true],
    [true, false],
  ])("which breaks off (%p) has an end (%p)", async (breaksOff, hasEnd) => {
    const listening = await openListeningApp();
    try {
      const { id } = await listening.createUser({ username: "reader", roles: ["admin"] });
      const { access_token: token } = await listening.login("reader");
      await fill(listening, 12_000, JSON.stringify({ filler: "x".repeat(2000) }));
      const socket = connect(Number(new URL(listening.url).port), "127.0.0.1");
      let last = "";
      const closed = new Promise<void>((resolve) => socket.on("close", resolve).on("error", () => {}));
      const begun = new Promise<void>((resolve) => {
        socket.on("data", (chunk) => {
          last = (last + chunk.toString("latin1")).slice(-64);
          resolve();
        });
      });
      socket.write(
        `GET ${PATH}?format=ndjson HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer ${token}\r\n\r\n`,
      );
      await begun;
      socket.pause();
      if (breaksOff) {
        await listening.db.query("DELETE FROM user_roles WHERE user_id = $1", [id]);
        await waitFor("it is known", async () => (await listening.request("GET", PATH, { token })).status === 403);
      }
      listening.clock.advance(2000);
      socket.resume();
      await closed;
      expect(last.endsWith("\r\n0\r\n\r\n")).toBe(hasEnd);
    } finally {
      await listening.close();
    }
  });

  // A reader who stops reading holds nothing for long.
  test.if(FULL)("cuts off who does not read", async () => {
    const listening = await openListeningApp();
    try {
      await listening.createUser({ username: "root", roles: ["admin"] });
      const token = (await listening.login("root")).access_token;
      await fill(listening, 60_000, JSON.stringify({ filler: "x".repeat(500) }));
      const { port } = new URL(listening.url);
      const socket = connect(Number(port), "127.0.0.1");
      const closed = new Promise<number>((resolve) => {
        const began = performance.now();
        socket.on("close", () => resolve(performance.now() - began));
        socket.on("error", () => {});
      });
      socket.pause();
      socket.write(`GET ${PATH}?format=ndjson HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`);
      const lines = () => listening.logLines.filter((line) => line.includes("audit.export_cut_off")).length;
      const deadline = performance.now() + 60_000;
      while (lines() === 0 && performance.now() < deadline) await Bun.sleep(250);
      expect(lines()).toBe(1);
      socket.resume();
      expect(await closed).toBeLessThan(60_000);
    } finally {
      await listening.close();
    }
  });
});

// Whoever tries again and again fills no table: so many refusals of one user are recorded a minute.
test("of one user thirty refusals are recorded a minute", async () => {
  const own = await openTestApp();
  try {
    await own.createUser({ username: "ada" });
    const { access_token: token } = await own.login("ada");
    const answers = await Promise.all(Array.from({ length: 40 }, () => own.request("GET", PATH, { token })));
    expect(answers.every(({ status }) => status === 403)).toBe(true);
    const recorded = async () => (await own.db.query("SELECT 1 FROM audit_log WHERE action = 'access.refused'")).length;
    expect(await recorded()).toBe(30);
    own.clock.advance(61_000);
    await own.request("GET", PATH, { token });
    expect(await recorded()).toBe(31);
  } finally {
    await own.close();
  }
});
