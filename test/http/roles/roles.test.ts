import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { setRoles } from "../../../server/features/users/service.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";

const PATH = "/api/v1/roles";
const OPERATOR = { actor: { kind: "operator" } } as const;

let app: HttpApp;
let admin: string;
let keeper: string;
beforeAll(async () => {
  app = await openHttpApp();
  await app.createUser({ username: "root", roles: ["admin"] });
  admin = (await app.login("root")).access_token;
  await make({ name: "keeper", permissions: ["roles:*", "orders:read"] });
  await app.createUser({ username: "kim", roles: ["keeper"] });
  keeper = (await app.login("kim")).access_token;
});
afterAll(() => app.close());

const make = (body: object, token = admin) => app.request("POST", PATH, { token, body: { permissions: [], ...body } });
const change = (name: string, body: object, token = admin, headers: Record<string, string> = {}) =>
  app.request("PUT", `${PATH}/${name}`, { token, body, headers });
const audited = (action: string, id: string) =>
  app.db.query<{ details: Record<string, unknown> }>(
    "SELECT details FROM audit_log WHERE action = $1 AND subject_id = $2",
    [action, id],
  );
let made = 0;
const fresh = () => `role-${++made}`;

describe("POST /roles", () => {
  test("201 with Location and ETag, sorted and without repetition, and it can be read", async () => {
    const name = fresh();
    const body = { name, description: "d", permissions: ["b:read", "a:*", "b:read"], includes: ["user"] };
    const answer = await make(body);
    expect([answer.status, answer.headers.get("location")]).toEqual([201, `${PATH}/${name}`]);
    expect(answer.body).toMatchObject({ name, permissions: ["a:*", "b:read"], includes: ["user"], built_in: false });
    const read = await app.request("GET", `${PATH}/${name}`, { token: admin });
    expect(read.body).toEqual(answer.body);
    expect(read.headers.get("etag")).toBe(answer.headers.get("etag"));
    expect(await audited("role.created", name)).toHaveLength(1);
  });

  test.each([
    [{ name: "Upper" }, 422],
    [{ name: "-x" }, 422],
    [{ name: "" }, 422],
    [{ name: "x".repeat(64) }, 422],
    [{ name: "a b" }, 422],
    [{ name: "ok1", permissions: ["orders"] }, 422],
    [{ name: "ok1", permissions: ["Orders:read"] }, 422],
    [{ name: "ok1", includes: ["nobody-knows"] }, 422],
    [{ name: "ok1", includes: ["ok1"] }, 422],
    [{ name: "ok1", built_in: true }, 422],
    [{ name: "user" }, 409],
  ])("%j: %p", async (body, status) => {
    expect((await make(body)).status).toBe(status);
    expect((await app.request("GET", `${PATH}/ok1`, { token: admin })).status).toBe(404);
  });

  // Of several at once with one name exactly one is made.
  test("ten at the same moment: one", async () => {
    const name = fresh();
    const answers = await Promise.all(Array.from({ length: 10 }, () => make({ name })));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(9).fill(409)]);
  });
});

describe("PUT /roles/{name}", () => {
  test("changes the fields given and no others", async () => {
    const name = fresh();
    await make({ name, description: "d", permissions: ["a:read"] });
    const { body } = await change(name, { permissions: ["a:write"] });
    expect(body).toMatchObject({ description: "d", permissions: ["a:write"], includes: [] });
    expect((await audited("role.changed", name))[0]?.details).toMatchObject({ to: { permissions: ["a:write"] } });
  });

  // Whoever changes something that somebody else has changed meanwhile hears of it.
  test("412 with an ETag from before, 200 with the present one", async () => {
    const name = fresh();
    const old = (await make({ name })).headers.get("etag") ?? "";
    const now = (await change(name, { description: "new" }, admin, { "if-match": old })).headers.get("etag") ?? "";
    const refused = await change(name, { description: "newer" }, admin, { "if-match": old });
    expect([refused.status, refused.body.error.code]).toEqual([412, "PRECONDITION_FAILED"]);
    expect((await change(name, { description: "newer" }, admin, { "if-match": now })).status).toBe(200);
    expect((await change(name, { description: "any" }, admin, { "if-match": "*" })).status).toBe(200);
  });

  test("404 for one that there is not, 409 for admin, 422 for a circle of any length", async () => {
    expect((await change("nowhere", { description: "x" })).status).toBe(404);
    expect((await change("admin", { permissions: [] })).status).toBe(409);
    const [a, b, c] = [fresh(), fresh(), fresh()];
    await make({ name: a });
    await make({ name: b, includes: [a] });
    await make({ name: c, includes: [b] });
    expect((await change(a, { includes: [c] })).status).toBe(422);
    expect((await change(a, { includes: [a] })).status).toBe(422);
  });

  // Two changes that would close a circle together: one is refused.
  test("a circle closed by two at the same moment", async () => {
    for (let round = 0; round < 5; round++) {
      const [a, b] = [fresh(), fresh()];
      await make({ name: a });
      await make({ name: b });
      const answers = await Promise.all([change(a, { includes: [b] }), change(b, { includes: [a] })]);
      expect(answers.map(({ status }) => status).sort()).toEqual([200, 422]);
    }
  });
});

describe("DELETE /roles/{name}", () => {
  test("204; 409 while somebody has it, another includes it, or it is built in", async () => {
    const [held, granted, included, free] = [fresh(), fresh(), fresh(), fresh()];
    for (const name of [held, granted, included, free]) await make({ name });
    await make({ name: fresh(), includes: [included] });
    const { id } = await app.createUser({ username: `u${made}` });
    await setRoles(app.deps, id, { roles: [held], grants: [{ role: granted, resource: "a/b" }] }, OPERATOR);
    const remove = async (name: string) => (await app.request("DELETE", `${PATH}/${name}`, { token: admin })).status;
    expect(await Promise.all([held, granted, included, "user", "admin"].map(remove))).toEqual(Array(5).fill(409));
    expect([await remove(free), await remove(free)]).toEqual([204, 404]);
    expect(await audited("role.deleted", free)).toHaveLength(1);
  });

  test("409 while somebody is invited to have it, 204 once that invitation is over", async () => {
    const invited = fresh();
    await make({ name: invited });
    const body = { email: `${invited}@example.org`, roles: [invited] };
    expect((await app.request("POST", "/api/v1/invitations", { token: admin, body })).status).toBe(201);
    const remove = async () => (await app.request("DELETE", `${PATH}/${invited}`, { token: admin })).status;
    expect(await remove()).toBe(409);
    await app.db.query("UPDATE invitations SET expires_at = $1", [app.clock.now().toISOString()]);
    expect(await remove()).toBe(204);
  });
});

// Whoever keeps the roles cannot give, nor change, more than they have.
describe("nobody gives beyond their own rights", () => {
  let strong: string;
  beforeEach(async () => {
    strong = fresh();
    await make({ name: strong, permissions: ["payments:write"] });
  });

  const refusedFor = async (answer: Promise<{ status: number; body: { error: { details: object } } }>) => {
    const { status, body } = await answer;
    return status === 403 ? body.error.details : status;
  };

  test("not by a new role", async () => {
    expect((await make({ name: fresh(), permissions: ["orders:read"] }, keeper)).status).toBe(201);
    for (const permission of ["orders:write", "orders:*", "*:read", "*:*"]) {
      const made = make({ name: fresh(), permissions: [permission] }, keeper);
      expect(await refusedFor(made)).toEqual({ permission });
    }
    const including = make({ name: fresh(), includes: [strong] }, keeper);
    expect(await refusedFor(including)).toEqual({ permission: "payments:write" });
    expect(await refusedFor(make({ name: fresh(), includes: ["admin"] }, keeper))).toEqual({ permission: "*:*" });
  });

  test("not by changing a role: neither one's own, nor a stronger one", async () => {
    expect(await refusedFor(change("keeper", { permissions: ["roles:*", "users:write"] }, keeper))).toEqual({
      permission: "users:write",
    });
    expect(await refusedFor(change(strong, { permissions: [] }, keeper))).toEqual({ permission: "payments:write" });
    const deleted = app.request("DELETE", `${PATH}/${strong}`, { token: keeper });
    expect(await refusedFor(deleted)).toEqual({ permission: "payments:write" });
  });

  test("not by giving a role, everywhere or on one thing, nor by taking one from somebody stronger", async () => {
    const { id } = await app.createUser({ username: `v${made}` });
    const give = (body: object, of = id) => app.request("PUT", `/api/v1/users/${of}/roles`, { token: keeper, body });
    expect((await give({ roles: ["user", "keeper"] })).status).toBe(200);
    expect(await refusedFor(give({ roles: ["admin"] }))).toEqual({ permission: "*:*" });
    expect(await refusedFor(give({ roles: [], grants: [{ role: strong, resource: "a" }] }))).toEqual({
      permission: "payments:write",
    });
    const other = await app.createUser({ username: `w${made}`, roles: [strong] });
    expect(await refusedFor(give({ roles: [] }, other.id))).toEqual({ permission: "payments:write" });
  });
});

// A change of rights counts at the next request of every token, and what a role includes is given with it.
describe("what counts", () => {
  const verify = (token: string, query: string) => app.request("GET", `/api/v1/auth/verify?${query}`, { token });

  test("included roles, however deep, from the next request on", async () => {
    const [base, middle, top] = [fresh(), fresh(), fresh()];
    await make({ name: base, permissions: ["orders:read"] });
    await make({ name: middle, includes: [base] });
    await make({ name: top, includes: [middle] });
    await app.createUser({ username: `x${made}`, roles: [top] });
    const { access_token: token } = await app.login(`x${made}`);
    expect((await verify(token, "permission=orders:read")).status).toBe(200);
    expect((await verify(token, "permission=orders:write")).status).toBe(403);
    await change(base, { permissions: ["orders:write"] });
    expect((await verify(token, "permission=orders:read")).status).toBe(403);
    expect((await verify(token, "permission=orders:write")).status).toBe(200);
    await change(middle, { includes: [] });
    expect((await verify(token, "permission=orders:write")).status).toBe(403);
    expect((await app.login(`x${made}`)).access_token).not.toContain("orders");
  });

  test("a role on one thing: there and below, and nowhere else; not in the token's scope", async () => {
    const role = fresh();
    await make({ name: role, permissions: ["orders:*"] });
    const { id } = await app.createUser({ username: `y${made}` });
    const { access_token: token } = await app.login(`y${made}`);
    const body = { roles: ["user"], grants: [{ role, resource: "tenants/acme" }] };
    expect((await app.request("PUT", `/api/v1/users/${id}/roles`, { token: admin, body })).status).toBe(200);
    expect((await verify(token, "permission=orders:read&resource=tenants/acme/orders/3")).status).toBe(200);
    expect((await verify(token, "permission=orders:read&resource=tenants/other")).status).toBe(403);
    const refused = await verify(token, "permission=orders:read");
    expect(refused.body.error.details).toEqual({ permission: "orders:read" });
    expect((await verify(token, "")).body.scope).toBe("");
    const mine = await app.request("GET", "/api/v1/users/me/permissions", { token });
    expect(mine.body).toEqual({
      permissions: [],
      grants: [{ role, resource: "tenants/acme", permissions: ["orders:*"] }],
    });
    await app.request("PUT", `/api/v1/users/${id}/roles`, { token: admin, body: { roles: ["user"], grants: [] } });
    expect((await verify(token, "permission=orders:read&resource=tenants/acme")).status).toBe(403);
  });

  test("roles that are set without a word of single things leave those as they are", async () => {
    const role = fresh();
    await make({ name: role });
    const { id } = await app.createUser({ username: `z${made}` });
    await setRoles(app.deps, id, { roles: [], grants: [{ role, resource: "a/b" }] }, OPERATOR);
    await app.request("PUT", `/api/v1/users/${id}/roles`, { token: admin, body: { roles: ["user"] } });
    const { body } = await app.request("GET", `/api/v1/users/${id}/permissions`, { token: admin });
    expect(body.grants).toEqual([{ role, resource: "a/b", permissions: [] }]);
    for (const resource of ["/a", "a/..", ""]) {
      const body = { roles: [], grants: [{ role, resource }] };
      expect((await app.request("PUT", `/api/v1/users/${id}/roles`, { token: admin, body })).status).toBe(422);
    }
  });
});

describe("lists", () => {
  test("GET /roles: newest first, page by page, each once", async () => {
    const names: string[] = [];
    let cursor: string | null = null;
    do {
      const query: string = cursor === null ? "" : `&cursor=${cursor}`;
      const { body } = await app.request("GET", `${PATH}?limit=3${query}`, { token: admin });
      names.push(...body.data.map(({ name }: { name: string }) => name));
      cursor = body.next_cursor;
    } while (cursor !== null);
    const [{ count } = { count: 0 }] = await app.db.query<{ count: number }>(
      "SELECT count(*)::int AS count FROM roles",
    );
    expect([names.length, new Set(names).size]).toEqual([count, count]);
    expect((await app.request("GET", `${PATH}?cursor=nowhere`, { token: admin })).status).toBe(422);
  });

  test("GET /permissions: what primer asks for, with a sentence, and what roles give", async () => {
    const { body } = await app.request("GET", "/api/v1/permissions", { token: admin });
    const described = new Map(
      body.data.map((entry: { permission: string; description: string | null }) => [
        entry.permission,
        entry.description,
      ]),
    );
    expect(described.get("users:read")).toBeString();
    expect(described.get("payments:write")).toBeNull();
  });
});
