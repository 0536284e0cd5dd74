import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { countRows } from "../support/scenario.ts";

/** Every route that answers without credentials. Whoever adds one here says so in a review. */
const PUBLIC = new Set([
  "POST /api/v1/auth/login",
  "POST /api/v1/auth/register",
  "POST /api/v1/auth/verify-email",
  "POST /api/v1/auth/resend-verification",
  "POST /api/v1/auth/forgot-password",
  "POST /api/v1/auth/reset-password",
  "POST /api/v1/auth/end-session",
  "GET /account/verify-email",
  "GET /account/reset-password",
  "GET /account/end-session",
  "GET /account/page.js",
  "GET /account/page.css",
  "GET /.well-known/jwks.json",
  "GET /api/v1/revocations",
  "GET /api/v1/revocations/stream",
  "GET /api/v1/health",
  "GET /livez",
  "GET /readyz",
  "GET /metrics", // 404 without telemetry.metrics_token, which is no user's
  "GET /docs",
  "GET /docs/json",
  "GET /docs/page.css",
  "GET /docs/start.js",
  "GET /docs/swagger-ui-bundle.js",
  "GET /docs/swagger-ui.css",
]);

/** Every route that anybody who is logged in may call, for what is their own. All others ask for a permission. */
const OWN = new Set([
  "POST /api/v1/auth/logout",
  "POST /api/v1/auth/refresh",
  "POST /api/v1/auth/step-up",
  "GET /api/v1/auth/verify",
  "GET /api/v1/users/me",
  "PUT /api/v1/users/me",
  "DELETE /api/v1/users/me",
  "PATCH /api/v1/users/me/password",
  "GET /api/v1/users/me/export",
  "GET /api/v1/users/me/permissions",
  "GET /api/v1/users/me/logins",
  "GET /api/v1/users/me/sessions",
  "DELETE /api/v1/users/me/sessions",
  "DELETE /api/v1/users/me/sessions/:id",
]);

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
});
afterAll(() => app.close());

/** Routes under /oauth2/ know clients and no users. */
const isForUsers = ({ method, path }: { method: string; path: string }) =>
  !PUBLIC.has(`${method} ${path}`) && !path.startsWith("/oauth2/");

const routes = () => app.app.routes.map(({ method, path }: { method: string; path: string }) => ({ method, path }));

describe("access", () => {
  // Nobody looks after others by accident: a user without rights is refused everywhere but at what is their own.
  test("a user without rights is refused by every route that is not for their own account", async () => {
    await app.createUser({ username: "ada" });
    const { access_token: token } = await app.login("ada");
    const before = await countRows(app);
    const closed = routes().filter((route) => isForUsers(route) && !OWN.has(`${route.method} ${route.path}`));
    expect(closed.length).toBeGreaterThan(15);
    for (const { method, path } of closed) {
      const answer = await app.request(method, path.replace(/:[^/]+/g, "x"), { token });
      const { code, details } = answer.body.error;
      expect([`${method} ${path}`, answer.status, code]).toEqual([`${method} ${path}`, 403, "FORBIDDEN"]);
      expect(details.permission).toMatch(/^[a-z]+:[a-z]+$/);
    }
    // Each refusal is an event, up to so many a minute.
    expect(await countRows(app)).toEqual({ ...before, audit_log: before.audit_log + Math.min(30, closed.length) });
  });

  // Nothing is open by accident: every route of the application that is not on the list asks who is there.
  test("without credentials every other route answers 401", async () => {
    const before = await countRows(app);
    const closed = routes().filter(({ method, path }) => !PUBLIC.has(`${method} ${path}`));
    expect(closed.length).toBeGreaterThan(0);
    for (const { method, path } of closed) {
      for (const headers of [
        {},
        { authorization: "Bearer a.b.c" },
        { authorization: "Basic YTpi" },
        { cookie: "a=b" },
      ]) {
        const answer = await app.request(method, path.replace(/:[^/]+/g, "x"), {
          headers: headers as Record<string, string>,
        });
        expect({ route: `${method} ${path}`, status: answer.status }).toEqual({
          route: `${method} ${path}`,
          status: 401,
        });
        const challenge = path.startsWith("/oauth2/") ? /^Basic realm="primer"$/ : /^Bearer/;
        expect(answer.headers.get("www-authenticate")).toMatch(challenge);
      }
    }
    expect(await countRows(app)).toEqual(before);
  });

  // The list names what there is: a route that is gone, or is not public any more, leaves it.
  test("every route of the list answers without credentials", async () => {
    const there = new Set(routes().map(({ method, path }) => `${method} ${path}`));
    for (const route of PUBLIC) {
      expect(there.has(route)).toBe(true);
      const [method = "", path = ""] = route.split(" ");
      expect((await app.app.handle(new Request(`http://localhost${path}`, { method }))).status).not.toBe(401);
    }
  });

  // The document says of each route whether it asks for a token or a client, as it does.
  test("the document says which routes ask who is there", () => {
    for (const { method, path } of routes()) {
      const operation = app.document.paths[path.replace(/:([^/]+)/g, "{$1}")]?.[method.toLowerCase()];
      if (!operation) continue;
      const asks = (operation.security ?? []).some((scheme) =>
        ["bearer", "basic", "cookie"].some((name) => name in scheme),
      );
      expect({ path, asks }).toEqual({ path, asks: !PUBLIC.has(`${method} ${path}`) });
    }
  });
});
