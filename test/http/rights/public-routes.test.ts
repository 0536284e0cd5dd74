import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { countRows } from "../support/scenario.ts";

/** Every route that answers without credentials. Whoever adds one here says so in a review. */
const PUBLIC = new Set([
  "POST /api/v1/auth/login",
  "GET /.well-known/jwks.json",
  "GET /api/v1/revocations",
  "GET /api/v1/revocations/stream",
  "GET /api/v1/health",
  "GET /livez",
  "GET /readyz",
  "GET /docs",
  "GET /docs/json",
  "GET /docs/page.css",
  "GET /docs/start.js",
  "GET /docs/swagger-ui-bundle.js",
  "GET /docs/swagger-ui.css",
]);

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
});
afterAll(() => app.close());

const routes = () => app.app.routes.map(({ method, path }: { method: string; path: string }) => ({ method, path }));

describe("access", () => {
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
