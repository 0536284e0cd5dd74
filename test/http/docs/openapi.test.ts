import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ERRORS } from "../../../server/errors.ts";
import { createClient } from "../../../server/features/clients/service.ts";
import { openTestApp, PASSWORD } from "../../support/app.ts";
import { takeMails, tokenIn } from "../accounts/support.ts";
import { documentedPath, type Operation } from "../support/contract.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { faultsOf, type Schema } from "../support/json-schema.ts";
import { basicOf, introspect, revoke } from "../support/oauth.ts";

const METRICS_TOKEN = "a-token-for-metrics-alone";
let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp({ PRIMER_PASSWORD__FAILURE_FLOOR: "0ms", PRIMER_TELEMETRY__METRICS_TOKEN: METRICS_TOKEN });
  app.clock.advance(Date.now() - app.clock.now().getTime()); // readiness compares the clock with the database's
  await app.createUser({ username: "ada", roles: ["admin"] });
});
afterAll(() => app.close());

interface Documented {
  readonly method: string;
  readonly path: string;
  readonly operation: Operation;
}

const documented = (): Documented[] =>
  Object.entries(app.document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
  );

const newClient = (name: string) => createClient(app.deps, { name }, { actor: { kind: "operator" } });

const asDocumented = (path: string) => path.replace(/:([^/]+)/g, "{$1}");

/** Every schema of the document, wherever it stands. */
function* schemasIn(value: unknown): Generator<Schema> {
  if (typeof value !== "object" || value === null) return;
  for (const [name, inner] of Object.entries(value)) {
    if (name === "schema" && typeof inner === "object" && inner !== null) yield inner as Schema;
    if (name !== "example" && name !== "examples") yield* schemasIn(inner);
  }
}

function* within(schema: Schema): Generator<Schema> {
  yield schema;
  const parts = [
    ...Object.values((schema.properties ?? {}) as object),
    schema.items,
    ...((schema.anyOf ?? []) as object[]),
  ];
  for (const part of parts) if (part) yield* within(part as Schema);
}

/** What a Schema Object of OpenAPI 3.0 may hold (3.1 takes all of JSON Schema). */
const KEYWORDS_OF_3_0 = new Set(
  "title multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength pattern maxItems minItems uniqueItems maxProperties minProperties required enum type allOf oneOf anyOf not items properties additionalProperties description format default nullable discriminator readOnly writeOnly xml externalDocs example deprecated $ref".split(
    " ",
  ),
);

type Call = HttpApp["request"];

async function callUsersAndRoles(call: Call, token: string): Promise<void> {
  const [users, roles] = ["/api/v1/users", "/api/v1/roles"];
  await call("POST", roles, { token, body: { name: "support", permissions: ["users:read"] } });
  for (const path of [roles, `${roles}/support`, "/api/v1/permissions"]) await call("GET", path, { token });
  await call("PUT", `${roles}/support`, { token, body: { description: "Looks after users" } });
  await call("DELETE", `${roles}/support`, { token });
  const body = { username: "documented", email: "documented@example.test", password: PASSWORD };
  const { id } = (await call("POST", users, { token, body })).body;
  for (const path of ["", "/me", "/me/logins", "/me/permissions", `/${id}`, `/${id}/logins`, `/${id}/permissions`])
    await call("GET", `${users}${path}`, { token });
  await call("PUT", `${users}/${id}`, { token, body: { username: "documented2" } });
  await call("PUT", `${users}/${id}/roles`, { token, body: { roles: ["user"] } });
  await call("POST", `${users}/${id}/unlock`, { token });
  await call("POST", `${users}/${id}/require-password-change`, { token });
  await call("DELETE", `${users}/${id}`, { token });
}

/** Routes that answer as they do for whoever comes from a mail, or asks for one. */
async function callAccounts(call: Call): Promise<void> {
  const auth = "/api/v1/auth";
  const me = "/api/v1/users/me";
  const email = "newcomer@example.test";
  await call("POST", `${auth}/register`, { body: { username: "newcomer", email, password: PASSWORD } });
  await call("POST", `${auth}/verify-email`, { body: { token: await tokenIn(app, "verify_email") } });
  await call("POST", `${auth}/resend-verification`, { body: { email } });
  await call("POST", `${auth}/forgot-password`, { body: { email } });
  const reset = { token: await tokenIn(app, "password_reset"), new_password: PASSWORD };
  await call("POST", `${auth}/reset-password`, { body: reset });
  const { access_token: token } = await app.login("newcomer");
  await app.request("POST", `${auth}/login`, {
    body: { username: "newcomer", password: PASSWORD },
    headers: { "user-agent": "Another/1.0" },
  });
  const link = (await takeMails(app)).findLast(({ sealed }) => sealed?.token)?.sealed?.token ?? "";
  await call("POST", `${auth}/end-session`, { body: { token: link } });
  const passwords = { current_password: PASSWORD, new_password: `${PASSWORD} 2` };
  await call("PATCH", `${me}/password`, { token, body: passwords });
  await call("PUT", me, { token, body: { username: "newcomer2" } });
  await call("GET", `${me}/export`, { token });
  await call("DELETE", me, { token });
  const admin = (await app.login("root")).access_token;
  const invitation = { email: "guest@example.test" };
  const { id, token: invited } = (await call("POST", "/api/v1/invitations", { token: admin, body: invitation })).body;
  await call("GET", "/api/v1/invitations", { token: admin });
  const guest = { username: "guest", password: PASSWORD, invitation: invited, ...invitation };
  await call("POST", `${auth}/register`, { body: guest });
  const other = (await app.request("POST", "/api/v1/invitations", { token: admin, body: invitation })).body;
  await call("DELETE", `/api/v1/invitations/${other.id ?? id}`, { token: admin });
}

describe("GET /docs/json", () => {
  // The document and the application have the same routes: none is hidden, none is made up.
  test("every route is in it, and nothing else", () => {
    const there = app.app.routes
      .filter(({ path }: { path: string }) => !/^\/(docs|account)/.test(path))
      .map(({ method, path }: { method: string; path: string }) => `${method} ${asDocumented(path)}`);
    expect(
      documented()
        .map(({ method, path }) => `${method} ${path}`)
        .sort(),
    ).toEqual([...there].sort());
  });

  test("every operation is described", () => {
    const ids = documented().map(({ operation }) => (operation as { operationId?: string }).operationId);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { path, operation } of documented()) {
      expect({ path, summary: (operation.summary ?? "").length > 5 }).toEqual({ path, summary: true });
      for (const status of ["500", "503"]) expect(Object.keys(operation.responses)).toContain(status);
    }
  });

  // Each code is documented at its own status, with an example that is a real envelope.
  test("errors stand at their status", () => {
    const { schemas } = app.document.components;
    for (const { path, operation } of documented()) {
      const form = path.startsWith("/oauth2/") ? "OAuthError" : "Error";
      for (const [status, response] of Object.entries(operation.responses)) {
        if (Number(status) < 400) continue;
        const media = response.content?.["application/json"];
        expect(media?.schema).toEqual({ $ref: `#/components/schemas/${form}` });
        for (const [code, example] of Object.entries(media?.examples ?? {})) {
          if (form === "Error") expect(String(ERRORS[code as keyof typeof ERRORS].status)).toBe(status);
          expect(faultsOf((example as { value: unknown }).value, schemas[form] ?? {})).toEqual([]);
        }
      }
    }
  });

  // Programs are generated from the document, so it must be valid in the version that it names.
  test("schemas use what their version of OpenAPI has", () => {
    if (!app.document.openapi.startsWith("3.0")) {
      expect(app.document.openapi).toMatch(/^3\.1\./);
      return;
    }
    const foreign = new Set<string>();
    for (const outer of [...schemasIn(app.document.paths), ...Object.values(app.document.components.schemas)])
      for (const schema of within(outer))
        for (const keyword of Object.keys(schema)) if (!KEYWORDS_OF_3_0.has(keyword)) foreign.add(keyword);
    expect([...foreign]).toEqual([]);
  });

  // A number is a number: what an answer holds is not described as a text as well.
  test("answers have one type for each property", () => {
    const doubtful: string[] = [];
    for (const { method, path, operation } of documented()) {
      for (const outer of schemasIn(operation.responses))
        for (const schema of within(outer))
          if (((schema.anyOf ?? []) as Schema[]).some(({ format }) => format === "integer"))
            doubtful.push(`${method} ${path}: ${JSON.stringify(schema)}`);
    }
    expect(doubtful).toEqual([]);
  });

  // A body is required in the document exactly where the application asks for one.
  test("required bodies", async () => {
    const basic = basicOf(await newClient("required-bodies"));
    for (const { method, path, operation } of documented()) {
      if (!operation.requestBody) continue;
      const isForm = path.startsWith("/oauth2/");
      const { access_token } = await app.login("ada");
      const { status } = await app.request(
        method,
        path,
        isForm ? { headers: { authorization: basic } } : { token: access_token },
      );
      const required = status === (isForm ? 400 : 422);
      expect({ path, required: operation.requestBody.required ?? false }).toEqual({ path, required });
    }
  });

  test("a body is JSON and nothing else; a form where OAuth asks for one", () => {
    for (const { path, operation } of documented()) {
      const type = path.startsWith("/oauth2/") ? "application/x-www-form-urlencoded" : "application/json";
      if (operation.requestBody) expect(Object.keys(operation.requestBody.content)).toEqual([type]);
    }
  });

  // Every parameter that the contract names is in the document.
  test("parameters of verify", () => {
    const names = app.document.paths["/api/v1/auth/verify"]?.get?.parameters?.map(({ name }) => name) ?? [];
    expect(names.sort()).toEqual(["permission", "resource"]);
  });

  // Every answer that is no error really occurs, in the form that the document gives it (the client here checks each).
  test("every documented success occurs", async () => {
    const seen = new Set<string>();
    const call = async (method: string, path: string, options?: Parameters<HttpApp["request"]>[2]) => {
      const answer = await app.request(method, path, options);
      seen.add(`${method} ${documentedPath(app.document, path)} ${answer.status}`);
      return answer;
    };
    const root = await app.createUser({ username: "root", roles: ["admin"] });
    const admin = (await app.login("root")).access_token;
    const { body: tokens } = await call("POST", "/api/v1/auth/login", {
      body: { username: "ada", password: PASSWORD },
    });
    await call("GET", "/api/v1/auth/verify", { token: tokens.access_token });
    await call("POST", "/api/v1/auth/refresh", { body: { refresh_token: tokens.refresh_token } });
    const stepped = await call("POST", "/api/v1/auth/step-up", {
      token: tokens.access_token,
      body: { password: PASSWORD },
    });
    const token = stepped.body.access_token;
    await call("GET", "/api/v1/users/me/sessions", { token });
    const { session_id } = await app.login("ada");
    await call("DELETE", `/api/v1/users/me/sessions/${session_id}`, { token });
    await call("DELETE", "/api/v1/users/me/sessions", { token });
    const clients = "/api/v1/clients";
    const { body: client } = await call("POST", clients, { token: admin, body: { name: "orders" } });
    await call("GET", clients, { token: admin });
    await call("GET", "/api/v1/audit", { token: admin });
    for (const path of ["health", "circuit-breakers"])
      await call("GET", `/api/v1/monitoring/${path}`, { token: admin });
    const introspected = await introspect({ request: call }, client, token);
    expect(introspected.body.active).toBe(true);
    const overlap = { token: admin, body: { overlap_seconds: 60 } };
    await call("POST", `${clients}/${client.id}/rotate-secret`, overlap);
    await call("DELETE", `${clients}/${client.id}`, { token: admin });
    await revoke({ request: call }, await newClient("billing"), "nothing of ours");
    await call("POST", "/api/v1/auth/logout", { token });
    const mail = { template: "account_locked", user_id: root.id, request_id: null } as const;
    const job = await app.db.transaction((tx) => app.deps.jobs.enqueue(tx, "send-mail", mail));
    await call("POST", `/api/v1/jobs/${job}/retry`, { token: admin });
    await call("GET", "/api/v1/jobs", { token: admin });
    await call("GET", `/api/v1/users/${root.id}/sessions`, { token: admin });
    await call("DELETE", `/api/v1/users/${root.id}/sessions`, { token: admin });
    await callUsersAndRoles(call, (await app.login("root")).access_token);
    await takeMails(app);
    await callAccounts(call);
    for (const path of ["/.well-known/jwks.json", "/api/v1/revocations"]) {
      const { headers } = await call("GET", path);
      await call("GET", path, { headers: { "if-none-match": headers.get("etag") ?? "" } });
    }
    await call("GET", "/api/v1/revocations/stream");
    await call("GET", "/api/v1/monitoring/metrics", { token: (await app.login("root")).access_token });
    await call("GET", "/metrics", { token: METRICS_TOKEN });
    app.clock.advance(Date.now() - app.clock.now().getTime());
    for (const path of ["/api/v1/health", "/livez", "/readyz"]) await call("GET", path);
    const expected = documented().flatMap(({ method, path, operation }) =>
      Object.keys(operation.responses)
        .filter((status) => Number(status) < 400)
        .map((status) => `${method} ${path} ${status}`),
    );
    expect([...seen].sort()).toEqual(expected.sort());
  });
});

const pages = () =>
  app.app.routes.map(({ path }: { path: string }) => path).filter((path: string) => path.startsWith("/docs"));

describe("/docs", () => {
  // The page comes from the binary and loads nothing from elsewhere: no other host, no script inside of it.
  test("the page and its parts", async () => {
    for (const path of pages()) {
      const response = await app.app.handle(new Request(`http://localhost${path}`));
      expect({ path, status: response.status }).toEqual({ path, status: 200 });
      const policy = response.headers.get("content-security-policy") ?? "";
      expect(policy).toContain("default-src 'none'");
      expect(policy).toMatch(/script-src 'self'(;|$)/);
      expect(policy).not.toMatch(/https?:|\*/);
      expect(response.headers.get("content-type")).toMatch(/; ?charset=utf-8$/i);
      expect((await response.text()).length).toBeGreaterThan(50);
    }
    const page = await (await app.app.handle(new Request("http://localhost/docs"))).text();
    expect(page).not.toMatch(/(src|href)="(https?:)?\/\//);
    expect(page).not.toMatch(/<script(?![^>]*\bsrc=)/);
  });

  // Where the docs are switched off, and so in production by default, nothing is left of them.
  for (const [name, variables] of Object.entries({
    "switched off": { PRIMER_DOCS__ENABLED: "false" },
    "in production": { PRIMER_ENVIRONMENT: "production", PRIMER_SERVER__PUBLIC_URL: "https://primer.test" },
  })) {
    test(`404 ${name}`, async () => {
      const closed = await openTestApp(variables);
      try {
        const missing = await closed.request("GET", "/docs-that-never-were");
        for (const path of pages()) {
          const answer = await closed.request("GET", path);
          expect({ path, status: answer.status, code: answer.body.error.code }).toEqual({
            path,
            status: 404,
            code: "NOT_FOUND",
          });
          expect(answer.headers.get("content-security-policy")).toBe(missing.headers.get("content-security-policy"));
        }
      } finally {
        await closed.close();
      }
    });
  }
});
