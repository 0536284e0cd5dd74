import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { hashSecret } from "../../server/features/tokens/service.ts";
import { PASSWORD, type TestAnswer, type TestNode } from "../support/app.ts";
import { TEST_DATABASE } from "../support/database.ts";
import { type HttpApp, openHttpApp } from "./support/http-app.ts";

const HOUR_MS = 3_600_000;
const KEY = "Idempotency-Key";

let app: HttpApp;
let other: TestNode;
let admin: string;
let second: string;
beforeAll(async () => {
  app = await openHttpApp();
  other = await app.otherNode();
  await app.createUser({ username: "root", roles: ["admin"] });
  await app.createUser({ username: "second", roles: ["admin"] });
  await login();
});
afterAll(() => app.close());

async function login() {
  admin = (await app.login("root")).access_token;
  second = (await app.login("second")).access_token;
}

let made = 0;
/** A key and a name that nothing else in this file has. */
const fresh = () => ({ key: `key-${++made}`, name: `thing-${made}` });

interface Route {
  readonly path: string;
  readonly table: string;
  readonly column: string;
  body(name: string): Record<string, unknown>;
}

const ROUTES: readonly Route[] = [
  {
    path: "/api/v1/users",
    table: "users",
    column: "username",
    body: (name) => ({ username: name, email: `${name}@example.org`, password: PASSWORD }),
  },
  { path: "/api/v1/roles", table: "roles", column: "name", body: (name) => ({ name, permissions: ["orders:read"] }) },
  { path: "/api/v1/clients", table: "clients", column: "name", body: (name) => ({ name }) },
];
const [USERS, ROLES, CLIENTS] = ROUTES as [Route, Route, Route];

const post = (
  route: Route,
  key: string,
  body: unknown,
  { token = admin, on = app as Pick<TestNode, "request"> } = {},
) => on.request("POST", route.path, { token, body, headers: { [KEY]: key } });
const shown = ({ status, headers, text }: TestAnswer) => ({
  status,
  text,
  location: headers.get("location"),
  etag: headers.get("etag"),
});
const outcome = ({ status, body }: TestAnswer) =>
  status < 300 ? status : `${status} ${body.error.code} ${body.error.details?.fields?.[0]?.path ?? ""}`.trim();
const countOf = async ({ table, column }: Route, name: string) =>
  (await app.db.query(`SELECT 1 FROM ${table} WHERE ${column} = $1`, [name])).length;
const REUSED = `422 VALIDATION_FAILED ${KEY}`;

describe.each(ROUTES.map((route) => [route.path, route] as const))("POST %s", (_path, route) => {
  // Whoever did not hear the answer asks again, and hears the same: nothing is made twice.
  test("the same request again: the same answer, and one thing made", async () => {
    const { key, name } = fresh();
    const first = await post(route, key, route.body(name));
    expect(first.status).toBe(201);
    app.clock.advance(HOUR_MS / 60);
    expect(shown(await post(route, key, route.body(name)))).toEqual(shown(first));
    expect(shown(await post(route, key, route.body(name), { on: other }))).toEqual(shown(first));
    expect(await countOf(route, name)).toBe(1);
    const audited = await app.db.query("SELECT 1 FROM audit_log WHERE subject_id = $1 AND action LIKE '%.created'", [
      first.body.id ?? first.body.name,
    ]);
    expect(audited.length).toBe(1);
  });

  // A key that is used by mistake for something else does not pass for it.
  test("another request: refused, and nothing made", async () => {
    const [{ key, name }, { name: otherName }] = [fresh(), fresh()];
    await post(route, key, route.body(name));
    expect(outcome(await post(route, key, route.body(otherName)))).toBe(REUSED);
    expect(await countOf(route, otherName)).toBe(0);
    const elsewhere = ROUTES.find(({ path }) => path !== route.path) as Route;
    expect(outcome(await post(elsewhere, key, elsewhere.body(otherName)))).toBe(REUSED);
  });

  // However many come at once, on however many nodes: one of them makes it, and all are told of that one.
  test("50 at once over two nodes make one", async () => {
    const { key, name } = fresh();
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) => post(route, key, route.body(name), { on: index % 2 ? other : app })),
    );
    const made = answers.filter(({ status }) => status === 201);
    const [first] = made;
    expect(new Set(made.map(({ text }) => text))).toEqual(new Set([first?.text ?? ""]));
    // Those that found no room to wait in may have been sent away.
    expect(answers.map(outcome).filter((code) => code !== 201 && code !== "503 SERVICE_UNAVAILABLE")).toEqual([]);
    expect(await countOf(route, name)).toBe(1);
    expect(shown(await post(route, key, route.body(name)))).toEqual(shown(first as TestAnswer));
  });

  test("what failed is not kept: the key is as good as new", async () => {
    const { key, name } = fresh();
    const wrong = { ...route.body(name), [route.column]: "" };
    expect(outcome(await post(route, key, wrong))).toStartWith("422");
    const taken = fresh();
    await post(route, taken.key, route.body(taken.name));
    expect(outcome(await post(route, key, route.body(taken.name)))).toBe("409 CONFLICT");
    expect((await post(route, key, route.body(name))).status).toBe(201);
  });

  // Nobody is told what somebody else's key stands for.
  test("two callers with one key do not meet", async () => {
    const [{ key, name }, { name: otherName }] = [fresh(), fresh()];
    const first = await post(route, key, route.body(name));
    const theirs = await post(route, key, route.body(otherName), { token: second });
    expect([first.status, theirs.status]).toEqual([201, 201]);
    expect(theirs.text).not.toBe(first.text);
  });

  test("without a key each request is one of its own", async () => {
    const { name } = fresh();
    const send = () => app.request("POST", route.path, { token: admin, body: route.body(name) });
    expect([outcome(await send()), outcome(await send())]).toEqual([201, "409 CONFLICT"]);
  });
});

describe("a key", () => {
  test("in double quotes is the same as without, and a field's order does not matter", async () => {
    const { key, name } = fresh();
    const first = await post(ROLES, key, { name, permissions: ["orders:read"], description: "x" });
    const again = await post(ROLES, `"${key}"`, { description: "x", permissions: ["orders:read"], name });
    expect(shown(again)).toEqual(shown(first));
  });

  test.each(["", " ", "two words", "a,b c", "x".repeat(256), "é", '""'])("%j is none: 422", async (key) => {
    expect(outcome(await post(ROLES, key, ROLES.body(fresh().name)))).toBe(REUSED);
  });

  test.each(["x".repeat(255), "!", "~", "a,b", '"with \\" and \\\\"'.replaceAll(" ", "-")])(
    "%s is one",
    async (key) => {
      expect((await post(ROLES, key, ROLES.body(fresh().name))).status).toBe(201);
    },
  );

  // A day later it means nothing any more; the clean-up is not what decides.
  test("counts for 24 hours", async () => {
    const { key, name } = fresh();
    const first = await post(ROLES, key, ROLES.body(name));
    app.clock.advance(24 * HOUR_MS - 1);
    await login();
    expect(shown(await post(ROLES, key, ROLES.body(name)))).toEqual(shown(first));
    app.clock.advance(1);
    expect(outcome(await post(ROLES, key, ROLES.body(name)))).toBe("409 CONFLICT");
    const { name: next } = fresh();
    const renewed = await post(ROLES, key, ROLES.body(next));
    expect(renewed.status).toBe(201);
    expect(shown(await post(ROLES, key, ROLES.body(next)))).toEqual(shown(renewed));
  });

  // While the first request is under way, whoever asks again waits for it, but not for ever.
  test("that another request holds for long: 409, to be tried again", async () => {
    if (TEST_DATABASE === "pglite") {
      process.stderr.write("not on the embedded database, which has one transaction at a time: a key that is held\n");
      return;
    }
    const { key, name } = fresh();
    const release = Promise.withResolvers<void>();
    const held = Promise.withResolvers<void>();
    const [caller] = await app.db.query<{ id: string }>("SELECT id FROM users WHERE username = 'root'");
    const holder = app.db
      .longTransaction(async (connection) => {
        await connection.query(
          `INSERT INTO idempotency_keys (caller_id, key_hash, expires_at) VALUES ('${caller?.id}', '${hashSecret(key)}', now())`,
        );
        held.resolve();
        await release.promise;
        throw new Error("undone");
      })
      .catch((error: Error) => error.message);
    await held.promise;
    const answer = await post(ROLES, key, ROLES.body(name));
    expect([outcome(answer), answer.body.error.details.reason]).toEqual(["409 CONFLICT", "in_progress"]);
    expect(answer.headers.get("retry-after")).toBe("1");
    release.resolve();
    expect(await holder).toBe("undone");
    expect((await post(ROLES, key, ROLES.body(name))).status).toBe(201);
  });
});

describe("what is kept", () => {
  const rowsAsText = async () => JSON.stringify(await app.db.query("SELECT * FROM idempotency_keys"));

  // Whoever reads the table finds no secret, nor what one could be guessed from.
  test("is sealed: no secret, address or key can be read", async () => {
    const [client, user] = [fresh(), fresh()];
    const { client_secret } = (await post(CLIENTS, client.key, CLIENTS.body(client.name))).body;
    await post(USERS, user.key, USERS.body(user.name));
    const text = await rowsAsText();
    for (const secret of [client_secret, PASSWORD, `${user.name}@example.org`, user.key, client.key]) {
      expect(secret.length).toBeGreaterThan(4);
      expect(text).not.toContain(secret);
    }
  });

  test("of a password is known again only with that password", async () => {
    const { key, name } = fresh();
    const body = USERS.body(name);
    const first = await post(USERS, key, body);
    expect(outcome(await post(USERS, key, { ...body, password: "another horse battery staple" }))).toBe(REUSED);
    expect(shown(await post(USERS, key, body))).toEqual(shown(first));
  });

  // Erasure takes away what was answered about somebody, and what they were answered.
  test("of a user goes with them", async () => {
    const { key, name } = fresh();
    const { id } = (await post(USERS, key, USERS.body(name))).body;
    const about = async () =>
      (await app.db.query("SELECT 1 FROM idempotency_keys WHERE subject_id = $1 OR caller_id = $1", [id])).length;
    expect(await about()).toBe(1);
    await login(); // proven just now
    expect((await app.request("DELETE", `${USERS.path}/${id}?erase=true`, { token: admin })).status).toBe(204);
    expect(await about()).toBe(0);
  });

  // What cannot be opened any more, as after a rotation of the master key, is not done once more either.
  test("and does not open is a conflict", async () => {
    const { key, name } = fresh();
    const { id } = (await post(CLIENTS, key, CLIENTS.body(name))).body;
    await app.db.query("UPDATE idempotency_keys SET sealed = sealed || 'AAAA' WHERE subject_id = $1", [id]);
    const answer = await post(CLIENTS, key, CLIENTS.body(name));
    expect([outcome(answer), answer.body.error.details.reason]).toEqual(["409 CONFLICT", "answer_lost"]);
    expect(await countOf(CLIENTS, name)).toBe(1);
  });
});
