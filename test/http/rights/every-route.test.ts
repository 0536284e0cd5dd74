import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createClient } from "../../../server/features/clients/service.ts";
import { PASSWORD } from "../../support/app.ts";
import { enqueue, mail } from "../../worker/support/jobs.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";

/** Who asks: nobody, whose the thing is, another user, an administrator. */
const CALLERS = ["nobody", "owner", "other", "admin"] as const;
type Caller = (typeof CALLERS)[number];
type Statuses = Readonly<Record<Caller, number>>;

const everybody = (status: number): Statuses => ({ nobody: status, owner: status, other: status, admin: status });
/** For whoever is logged in, on what is their own. */
const own = (status: number, more: Partial<Statuses> = {}): Statuses => ({
  ...everybody(status),
  nobody: 401,
  ...more,
});
/** For those who have a permission. */
const administration = (status: number): Statuses => ({ nobody: 401, owner: 403, other: 403, admin: status });

/** What the owner has. */
interface Things {
  readonly user: string;
  readonly session: string;
  readonly refresh: string;
  readonly invitation: string;
  readonly client: string;
  readonly job: string;
  readonly role: string;
}

const NOTHING: Things = { user: "", session: "", refresh: "", invitation: "", client: "", job: "", role: "" };

interface Row {
  readonly answers: Statuses;
  /** What `:id` or `:name` of the path is. */
  readonly of?: keyof Things;
  /** @param unique a word that no other request has */
  readonly body?: (things: Things, unique: string) => unknown;
}

const role = { permissions: ["orders:read"] };

const ROUTES: Readonly<Record<string, Row>> = {
  "POST /api/v1/auth/login": { answers: everybody(200), body: () => ({ username: "ada", password: PASSWORD }) },
  "POST /api/v1/auth/refresh": { answers: everybody(200), body: ({ refresh }) => ({ refresh_token: refresh }) },
  "POST /api/v1/auth/logout": { answers: own(204) },
  "POST /api/v1/auth/step-up": { answers: own(200), body: () => ({ password: PASSWORD }) },
  "GET /api/v1/auth/verify": { answers: own(200) },
  "POST /api/v1/auth/register": {
    answers: everybody(202),
    body: (_, word) => ({ username: word, email: `${word}@example.test`, password: PASSWORD }),
  },
  "POST /api/v1/auth/verify-email": { answers: everybody(400), body: () => ({ token: "x".repeat(43) }) },
  "POST /api/v1/auth/resend-verification": { answers: everybody(202), body: () => ({ email: "a@example.test" }) },
  "POST /api/v1/auth/forgot-password": { answers: everybody(202), body: () => ({ email: "a@example.test" }) },
  "POST /api/v1/auth/reset-password": {
    answers: everybody(400),
    body: () => ({ token: "x".repeat(43), new_password: "violet tractor nineteen" }),
  },
  "POST /api/v1/auth/end-session": { answers: everybody(400), body: () => ({ token: "x".repeat(43) }) },

  "GET /api/v1/users/me": { answers: own(200) },
  "PUT /api/v1/users/me": { answers: own(200), body: (_, word) => ({ username: word }) },
  "PATCH /api/v1/users/me/password": {
    answers: own(204),
    body: () => ({ current_password: PASSWORD, new_password: "violet tractor nineteen" }),
  },
  "DELETE /api/v1/users/me": { answers: own(204, { admin: 409 }) },
  "GET /api/v1/users/me/export": { answers: own(200) },
  "GET /api/v1/users/me/permissions": { answers: own(200) },
  "GET /api/v1/users/me/logins": { answers: own(200) },
  "GET /api/v1/users/me/sessions": { answers: own(200) },
  "DELETE /api/v1/users/me/sessions": { answers: own(204) },
  "DELETE /api/v1/users/me/sessions/:id": { answers: own(404, { owner: 204 }), of: "session" },

  "GET /api/v1/users": { answers: administration(200) },
  "POST /api/v1/users": {
    answers: administration(201),
    body: (_, word) => ({ username: word, email: `${word}@example.test`, password: PASSWORD }),
  },
  "GET /api/v1/users/:id": { answers: administration(200), of: "user" },
  "PUT /api/v1/users/:id": { answers: administration(200), of: "user", body: (_, word) => ({ username: word }) },
  "DELETE /api/v1/users/:id": { answers: administration(204), of: "user" },
  "PUT /api/v1/users/:id/roles": { answers: administration(200), of: "user", body: () => ({ roles: ["admin"] }) },
  "GET /api/v1/users/:id/permissions": { answers: administration(200), of: "user" },
  "GET /api/v1/users/:id/logins": { answers: administration(200), of: "user" },
  "GET /api/v1/users/:id/sessions": { answers: administration(200), of: "user" },
  "DELETE /api/v1/users/:id/sessions": { answers: administration(204), of: "user" },
  "POST /api/v1/users/:id/unlock": { answers: administration(200), of: "user" },
  "POST /api/v1/users/:id/require-password-change": { answers: administration(204), of: "user" },

  "GET /api/v1/invitations": { answers: administration(200) },
  "POST /api/v1/invitations": { answers: administration(201), body: (_, word) => ({ email: `${word}@example.test` }) },
  "DELETE /api/v1/invitations/:id": { answers: administration(204), of: "invitation" },

  "GET /api/v1/roles": { answers: administration(200) },
  "POST /api/v1/roles": { answers: administration(201), body: (_, word) => ({ name: word, ...role }) },
  "GET /api/v1/roles/:name": { answers: administration(200), of: "role" },
  "PUT /api/v1/roles/:name": { answers: administration(200), of: "role", body: () => ({ description: "Other" }) },
  "DELETE /api/v1/roles/:name": { answers: administration(204), of: "role" },
  "GET /api/v1/permissions": { answers: administration(200) },

  "GET /api/v1/clients": { answers: administration(200) },
  "POST /api/v1/clients": { answers: administration(201), body: (_, word) => ({ name: word }) },
  "DELETE /api/v1/clients/:id": { answers: administration(204), of: "client" },
  "POST /api/v1/clients/:id/rotate-secret": { answers: administration(200), of: "client" },
  // They know service clients, and no users.
  "POST /oauth2/introspect": { answers: everybody(401) },
  "POST /oauth2/revoke": { answers: everybody(401) },

  "GET /api/v1/jobs": { answers: administration(200) },
  "POST /api/v1/jobs/:id/retry": { answers: administration(200), of: "job" },
  "GET /api/v1/audit": { answers: administration(200) },
  "GET /api/v1/monitoring/metrics": { answers: administration(200) },
  "GET /api/v1/monitoring/health": { answers: administration(200) },
  "GET /api/v1/monitoring/circuit-breakers": { answers: administration(200) },

  "GET /metrics": { answers: everybody(404) },
  "GET /readyz": { answers: everybody(503) }, // the test's clock is not the database's
  ...Object.fromEntries(
    [
      ...["/.well-known/jwks.json", "/api/v1/revocations", "/api/v1/revocations/stream"],
      ...["/api/v1/health", "/livez"],
      ...["", "/start.js", "/page.css", "/swagger-ui.css", "/swagger-ui-bundle.js", "/json"].map(
        (path) => `/docs${path}`,
      ),
      ...["verify-email", "reset-password", "end-session", "page.js", "page.css"].map((path) => `/account/${path}`),
    ].map((path) => [`GET ${path}`, { answers: everybody(200) }]),
  ),
};

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp({
    PRIMER_RATE_LIMITS__REGISTER_IP: "off",
    PRIMER_RATE_LIMITS__MAIL_ADDRESS: "off",
    PRIMER_RATE_LIMITS__CLIENT_FAILED: "off",
  });
  await app.createUser({ username: "ada" });
});
afterAll(() => app.close());

let made = 0;
const word = () => `word${++made}`;

interface Person {
  readonly id: string;
  readonly token: string;
}
/** Those who are logged in; whom a route has logged out makes room for somebody new. */
const people = new Map<Caller, Person>();

async function personFor(caller: Exclude<Caller, "nobody">): Promise<Person> {
  const known = people.get(caller);
  if (known && (await app.request("GET", "/api/v1/auth/verify", { token: known.token })).status === 200) return known;
  if (caller === "admin") await app.db.query("DELETE FROM user_roles WHERE role = 'admin'");
  const username = word();
  const { id } = await app.createUser({ username, roles: [caller === "admin" ? "admin" : "user"] });
  const person = { id, username, token: (await app.login(username)).access_token };
  people.set(caller, person);
  return person;
}

async function thingsOf(owner: Person, admin: Person): Promise<Things> {
  const { username } = (await app.request("GET", "/api/v1/users/me", { token: owner.token })).body;
  const { session_id, refresh_token } = await app.login(username);
  const name = word();
  await app.db.query("INSERT INTO roles (name, created_at, updated_at) VALUES ($1, now(), now())", [name]);
  await app.db.query("INSERT INTO role_permissions (role, permission) VALUES ($1, 'orders:read')", [name]);
  const job = await enqueue(app, mail());
  await app.db.query("UPDATE jobs.job SET state = 'failed', completed_on = now(), retry_count = 20 WHERE id = $1", [
    job,
  ]);
  const client = await createClient(app.deps, { name: word() }, { actor: { kind: "operator" } });
  const body = { email: `${word()}@example.test` };
  const invitation = await app.request("POST", "/api/v1/invitations", { token: admin.token, body });
  return {
    user: owner.id,
    session: session_id,
    refresh: refresh_token,
    invitation: invitation.body.id,
    client: client.id,
    job,
    role: name,
  };
}

/** Everything that a route could change for somebody who may not. */
async function everything(): Promise<unknown> {
  const digest = (what: string, from: string) =>
    `(SELECT md5(string_agg(${what}, ',' ORDER BY ${what})) FROM ${from} t)`;
  const whole = [
    "users",
    "credentials",
    "user_roles",
    "roles",
    "role_permissions",
    "invitations",
    "clients",
    "client_secrets",
  ];
  const parts = whole.map((table) => `${digest("t::text", table)} AS ${table}`);
  const sessions = digest("id::text || coalesce(revoked_at::text, '')", "sessions");
  const [row] = await app.db.query(
    `SELECT ${parts.join(", ")}, ${sessions} AS sessions, ${digest("id::text || state::text", "jobs.job")} AS jobs`,
  );
  return row;
}

const REFUSED = new Set([400, 401, 403, 404, 409]);

describe("every route, for everybody", () => {
  // Whoever adds a route says here who may call it.
  test("the table names every route there is, and no other", () => {
    const there = app.app.routes.map(({ method, path }: { method: string; path: string }) => `${method} ${path}`);
    expect([...new Set(there)].sort()).toEqual(Object.keys(ROUTES).sort());
  });

  // Nobody sees or changes what is another's, whatever ids they know; and what is refused has changed nothing.
  test.each(Object.entries(ROUTES))("%s", async (route, { answers, of, body }) => {
    const [method = "", path = ""] = route.split(" ");
    const [owner, other, admin] = [await personFor("owner"), await personFor("other"), await personFor("admin")];
    const tokens: Partial<Record<Caller, string>> = { owner: owner.token, other: other.token, admin: admin.token };
    const things = of || body ? await thingsOf(owner, admin) : NOTHING;
    const filled = of ? path.replace(/:\w+/, things[of]) : path;
    // Those who are refused come first, so that there is something to refuse.
    const order: readonly Caller[] = ["nobody", "other", "owner", "admin"];
    const seen: Partial<Record<Caller, number>> = {};
    for (const caller of order) {
      const token = tokens[caller];
      const before = await everything();
      const answer = await app.request(method, filled, {
        ...(token ? { token } : {}),
        ...(body ? { body: body(things, word()) } : {}),
      });
      seen[caller] = answer.status;
      if (REFUSED.has(answer.status)) expect([caller, await everything()]).toEqual([caller, before]);
    }
    expect(seen).toEqual(answers);
    if (of === "user") people.delete("owner"); // who may be an administrator by now
  });

  // An id that nobody has is 404 to an administrator, and to everybody else what one that exists is.
  test.each(Object.entries(ROUTES).filter(([, { of }]) => of))("%s of nothing", async (route, { answers, body }) => {
    const [method = "", path = ""] = route.split(" ");
    const tokens = { admin: (await personFor("admin")).token, other: (await personFor("other")).token };
    const nothing = path.replace(/:\w+/, "019b76da-a800-7000-8000-000000000000");
    for (const caller of ["other", "admin"] as const) {
      const sent = body ? { body: body(NOTHING, word()) } : {};
      const answer = await app.request(method, nothing, { token: tokens[caller], ...sent });
      expect([caller, answer.status]).toEqual([caller, caller === "admin" ? 404 : answers.other]);
    }
  });
});
