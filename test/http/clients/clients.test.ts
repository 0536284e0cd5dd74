import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createApp } from "../../../server/app.ts";
import { createClientStates } from "../../../server/features/clients/service.ts";
import { openDeps } from "../../../server/start.ts";
import { until } from "../../cli/support/serve.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { basicOf, type Credentials, FORM, introspect } from "../support/oauth.ts";

const PATH = "/api/v1/clients";
const DAY = 24 * 3_600_000;
const UNKNOWN_ID = "019b76da-a800-7000-8000-000000000000";

let app: HttpApp;
let admin: string;
beforeAll(async () => {
  app = await openHttpApp({
    PRIMER_RATE_LIMITS__CLIENT_FAILED: "off",
  });
  await app.createUser({ username: "root", roles: ["admin"] });
  await app.createUser({ username: "ada" });
  await app.db.query("INSERT INTO roles (name, created_at, updated_at) VALUES ('reader', now(), now())");
  await app.db.query("INSERT INTO role_permissions (role, permission) VALUES ('reader', 'clients:read')");
  await app.createUser({ username: "rita", roles: ["reader"] });
  admin = (await app.login("root")).access_token;
});
afterAll(() => app.close());

const create = async (name: string) => (await app.request("POST", PATH, { token: admin, body: { name } })).body;
const rotate = (id: string, body?: unknown) =>
  app.request("POST", `${PATH}/${id}/rotate-secret`, { token: admin, ...(body === undefined ? {} : { body }) });
const works = async (client: Credentials) => (await introspect(app, client, "nothing of ours")).status === 200;
const again = async () => {
  admin = (await app.login("root")).access_token;
};
const audited = (action: string, id: string) =>
  app.db.query<{ actor_kind: string; actor_id: string; details: Record<string, unknown> }>(
    "SELECT actor_kind, actor_id, details FROM audit_log WHERE action = $1 AND subject_id = $2",
    [action, id],
  );

describe("POST /clients", () => {
  test("201 with a secret that works at once, and Location", async () => {
    const answer = await app.request("POST", PATH, { token: admin, body: { name: "  Ordérs 1 " } });
    expect(answer.status).toBe(201);
    expect(answer.headers.get("location")).toBe(`${PATH}/${answer.body.id}`);
    expect(answer.body).toMatchObject({ name: "Ordérs 1", secrets: [{ expires_at: null }] });
    expect(answer.body.client_secret).toMatch(/^prs_[\w-]{43}$/);
    expect(await works(answer.body)).toBe(true);
    expect(await audited("client.created", answer.body.id)).toMatchObject([
      { actor_kind: "user", details: { name: "Ordérs 1" } },
    ]);
  });

  // Only a hash is kept: whoever reads the database cannot authenticate with it, and no log line has the secret.
  test("the secret is nowhere", async () => {
    const client = await create("nowhere");
    await works(client);
    for (const table of ["clients", "client_secrets", "audit_log"]) {
      const rows = await app.db.query(`SELECT * FROM ${table}`);
      expect(JSON.stringify(rows)).not.toContain(client.client_secret);
    }
    expect((await app.request("GET", PATH, { token: admin })).text).not.toMatch(/prs_|secret_hash/);
    expect(app.logLines.join("\n")).not.toContain(client.client_secret.slice(4));
    const [row] = await app.db.query<{ secret_hash: string }>(
      "SELECT secret_hash FROM client_secrets WHERE client_id = $1",
      [client.id],
    );
    expect(await works({ id: client.id, client_secret: row?.secret_hash ?? "" })).toBe(false);
  });

  // Of several at once with one name exactly one is registered.
  test("409 for a taken name, also at the same moment", async () => {
    const body = { name: "taken" };
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => app.request("POST", PATH, { token: admin, body })),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(9).fill(409)]);
    const refused = answers.find(({ status }) => status === 409);
    expect(refused?.body.error).toMatchObject({ code: "CONFLICT", details: { field: "name" } });
  });

  test.each([
    [{}],
    [{ name: "" }],
    [{ name: "   " }],
    [{ name: 1 }],
    [{ name: "a".repeat(65) }],
    [{ name: "a\nb" }],
    [{ name: "<b>" }],
    [{ name: "-x" }],
    [{ name: UNKNOWN_ID }],
    [{ name: "ok", client_secret: "prs_mine" }],
  ])("422 %j", async (body) => {
    const before = await app.db.query("SELECT id FROM clients");
    expect((await app.request("POST", PATH, { token: admin, body })).body.error.code).toBe("VALIDATION_FAILED");
    expect(await app.db.query("SELECT id FROM clients")).toHaveLength(before.length);
  });
});

describe("permissions", () => {
  const calls = (id: string): readonly [string, string, string, unknown?][] => [
    ["clients:read", "GET", PATH],
    ["clients:write", "POST", PATH, { name: "sneaked in" }],
    ["clients:write", "POST", PATH, { nonsense: true }],
    ["clients:write", "POST", `${PATH}/${id}/rotate-secret`],
    ["clients:write", "DELETE", `${PATH}/${id}`],
    ["clients:write", "DELETE", `${PATH}/${UNKNOWN_ID}`],
  ];

  // Who lacks the permission learns which it is and nothing else, and nothing is done.
  test("403 without them, 401 without a token, each before the input is looked at", async () => {
    const client = await create("guarded");
    const [ada, rita] = [await app.login("ada"), await app.login("rita")];
    for (const [permission, method, path, body] of calls(client.id)) {
      const sent = body === undefined ? {} : { body };
      const answer = await app.request(method, path, { token: ada.access_token, ...sent });
      expect(answer.body.error).toMatchObject({ code: "FORBIDDEN", details: { permission } });
      expect(answer.headers.get("www-authenticate")).toBe('Bearer error="insufficient_scope"');
      expect((await app.request(method, path, sent)).body.error.code).toBe("AUTH_TOKEN_MISSING");
      const reader = await app.request(method, path, { token: rita.access_token, ...sent });
      expect(reader.status).toBe(permission === "clients:read" ? 200 : 403);
    }
    expect(await works(client)).toBe(true);
  });
});

describe("GET /clients", () => {
  test("pages, the newest first", async () => {
    app.clock.advance(1000);
    for (const name of ["page-1", "page-2", "page-3"]) {
      await create(name);
      app.clock.advance(1000);
    }
    const first = await app.request("GET", `${PATH}?limit=2`, { token: admin });
    expect(first.body.data.map(({ name }: { name: string }) => name)).toEqual(["page-3", "page-2"]);
    const second = await app.request("GET", `${PATH}?limit=1&cursor=${first.body.next_cursor}`, { token: admin });
    expect(second.body.data[0].name).toBe("page-1");
    const all = await app.request("GET", `${PATH}?limit=200`, { token: admin });
    expect(all.body.next_cursor).toBeNull();
    expect((await app.request("GET", PATH, { token: admin })).body.data).toEqual(all.body.data);
  });

  test.each(["limit=0", "limit=201", "limit=x", "limit=1.5", "cursor=x", "cursor=", "cursor=%00", "other=1"])(
    "422 ?%s",
    async (query) => {
      const answer = await app.request("GET", `${PATH}?${query}`, { token: admin });
      expect(answer.body.error?.code).toBe("VALIDATION_FAILED");
    },
  );
});

describe("POST /clients/{id}/rotate-secret", () => {
  // Both secrets work until the old one's time is over: no service is cut off while it is told the new one.
  test("the old secret works for a day", async () => {
    const old = await create("day");
    const { status, body: fresh } = await rotate(old.id);
    expect(status).toBe(200);
    expect(fresh.client_secret).not.toBe(old.client_secret);
    expect(fresh.secrets).toEqual([
      { created_at: expect.any(String), expires_at: null },
      { created_at: expect.any(String), expires_at: new Date(app.clock.now().getTime() + DAY).toISOString() },
    ]);
    expect([await works(old), await works(fresh)]).toEqual([true, true]);
    app.clock.advance(DAY - 1);
    expect([await works(old), await works(fresh)]).toEqual([true, true]);
    app.clock.advance(1);
    expect([await works(old), await works(fresh)]).toEqual([false, true]);
    expect(await audited("client.secret_rotated", old.id)).toMatchObject([{ details: { overlap_seconds: 86_400 } }]);
    await again();
  });

  // Never more than two: a third one ends the first at once.
  test("at most two work", async () => {
    const first = await create("two");
    const second = (await rotate(first.id)).body;
    const third = (await rotate(first.id)).body;
    expect([await works(first), await works(second), await works(third)]).toEqual([false, true, true]);
  });

  test("overlap_seconds: 0 ends the old one at once", async () => {
    const old = await create("at once");
    await rotate(old.id);
    const fresh = (await rotate(old.id, { overlap_seconds: 0 })).body;
    expect([await works(old), await works(fresh)]).toEqual([false, true]);
    expect(fresh.secrets).toHaveLength(1);
  });

  // Rotations at the same moment follow one another: two secrets are left, whichever they are.
  test("10 at the same moment", async () => {
    const client = await create("race");
    const answers = await Promise.all(Array.from({ length: 10 }, () => rotate(client.id)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    const alive = await Promise.all(answers.map(({ body }) => works(body)));
    expect(alive.filter(Boolean)).toHaveLength(2);
    expect(await app.db.query("SELECT id FROM client_secrets WHERE client_id = $1", [client.id])).toHaveLength(2);
  });

  test.each([
    [UNKNOWN_ID, undefined, 404],
    ["x", undefined, 404],
    ["x", { overlap_seconds: -1 }, 422],
    ["x", { overlap_seconds: 2_592_001 }, 422],
    ["x", { overlap_seconds: 1.5 }, 422],
    ["x", { overlap: 1 }, 422],
  ])("%s %j: %d", async (id, body, status) => {
    expect((await rotate(id, body)).status).toBe(status);
  });
});

describe("DELETE /clients/{id}", () => {
  // A deleted client's credentials are dead at once, although this process had them in memory.
  test("204, and the secrets are dead at once", async () => {
    const client = await create("gone");
    expect(await works(client)).toBe(true);
    expect((await app.request("DELETE", `${PATH}/${client.id}`, { token: admin })).status).toBe(204);
    expect(await works(client)).toBe(false);
    expect(await audited("client.deleted", client.id)).toMatchObject([{ details: { name: "gone" } }]);
    expect((await app.request("DELETE", `${PATH}/${client.id}`, { token: admin })).status).toBe(404);
    expect((await create("gone")).id).not.toBe(client.id);
  });

  test.each([UNKNOWN_ID, "x", "%00"])("404 %s", async (id) => {
    expect((await app.request("DELETE", `${PATH}/${id}`, { token: admin })).status).toBe(404);
  });

  // What was read while word of a change came may be of before the change, so it is not remembered.
  test("a change while the client is being read", async () => {
    const client = await create("read meanwhile");
    const states = createClientStates(app.deps.changes);
    const reading = states.find(app.db.orm, client.id);
    states.forget({ kind: "client", id: client.id });
    expect((await reading)?.client.name).toBe("read meanwhile");
    await app.db.query("DELETE FROM clients WHERE id = $1", [client.id]);
    expect(await states.find(app.db.orm, client.id)).toBeUndefined();
  });

  // Another node that has the client in its memory refuses it within a second as well.
  test("a second node", async () => {
    const { settings, db, log, secrets, clock } = app.deps;
    const other = await openDeps({ home: "/nonexistent", settings, db, log, secrets, clock });
    try {
      const node = createApp(other);
      const client = await create("two nodes");
      const status = async () => {
        const headers = { "content-type": FORM, authorization: basicOf(client) };
        const request = new Request("http://localhost/oauth2/introspect", { method: "POST", headers, body: "token=x" });
        return (await node.handle(request)).status;
      };
      expect(await status()).toBe(200);
      await app.request("DELETE", `${PATH}/${client.id}`, { token: admin });
      await until("the other node to hear of it", async () => (await status()) === 401, 1);
    } finally {
      await other.close();
    }
  });
});
