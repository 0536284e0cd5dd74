import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";

const ALLOWED = "https://allowed.test";
const LOGIN = "/api/v1/auth/login";

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp({ PRIMER_SERVER__CORS_ORIGINS: `${ALLOWED},https://second.test:8443` });
});
afterAll(() => app.close());

const CORS_HEADERS = [
  "access-control-allow-origin",
  "access-control-allow-credentials",
  "access-control-allow-methods",
  "access-control-allow-headers",
];
const corsOf = (headers: Headers) => CORS_HEADERS.filter((name) => headers.has(name));

const STRANGERS = [
  "null",
  "*",
  "http://allowed.test",
  "https://allowed.test.evil.test",
  "https://evil-allowed.test",
  "https://evil.test/https://allowed.test",
  "https://allowed.test:8443",
  "https://allowed.test/",
  "https://ALLOWED.test",
  "https://sub.allowed.test",
  "https://second.test",
  "https://allowed.test, https://evil.test",
  "",
];

describe("CORS", () => {
  // A page of a listed origin, and of no other, may read what we answer: the origin is compared as a whole.
  for (const origin of STRANGERS) {
    test(`nothing for ${JSON.stringify(origin)}`, async () => {
      for (const [method, path] of [
        ["GET", "/livez"],
        ["POST", LOGIN],
        ["GET", "/api/v1/auth/verify"],
        ["GET", "/nowhere"],
      ] as const) {
        const answer = await app.request(method, path, { headers: { origin } });
        expect({ path, cors: corsOf(answer.headers) }).toEqual({ path, cors: [] });
        expect(answer.headers.get("vary")).toContain("Origin");
      }
      const preflight = await app.request("OPTIONS", LOGIN, {
        headers: { origin, "access-control-request-method": "POST" },
      });
      expect({ status: preflight.status, cors: corsOf(preflight.headers) }).toEqual({ status: 405, cors: [] });
    });
  }

  for (const origin of [ALLOWED, "https://second.test:8443"]) {
    test(`${origin} may read answers and errors alike`, async () => {
      for (const [method, path] of [
        ["GET", "/livez"],
        ["POST", LOGIN],
        ["GET", "/nowhere"],
        ["DELETE", LOGIN],
      ] as const) {
        const { headers } = await app.request(method, path, { headers: { origin } });
        expect(headers.get("access-control-allow-origin")).toBe(origin);
        expect(headers.get("access-control-allow-credentials")).toBe("true");
        expect(headers.get("access-control-expose-headers")).toContain("X-Request-Id");
        expect(headers.get("vary")).toContain("Origin");
      }
    });
  }

  // A browser asks before it sends a token or JSON: it is told the methods and headers that there are.
  test("preflight", async () => {
    const answer = await app.request("OPTIONS", LOGIN, {
      headers: {
        origin: ALLOWED,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
      },
    });
    expect({ status: answer.status, text: answer.text }).toEqual({ status: 204, text: "" });
    expect(answer.headers.get("access-control-allow-origin")).toBe(ALLOWED);
    expect(answer.headers.get("access-control-allow-methods")).toBe("POST");
    expect(answer.headers.get("access-control-allow-headers")).toMatch(/Authorization, Content-Type/);
    expect(Number(answer.headers.get("access-control-max-age"))).toBeWithin(1, 7201);
  });

  test("preflight of what does not exist", async () => {
    const headers = { origin: ALLOWED, "access-control-request-method": "POST" };
    expect((await app.request("OPTIONS", "/nowhere", { headers })).status).toBe(404);
  });

  test("OPTIONS that is no preflight", async () => {
    const answer = await app.request("OPTIONS", LOGIN, { headers: { origin: ALLOWED } });
    expect(answer.status).toBe(405);
    expect(answer.headers.get("allow")).toBe("POST");
  });

  // With no list, no page of another origin may do anything.
  test("nothing at all by default", async () => {
    const closed = await openHttpApp();
    try {
      for (const origin of [ALLOWED, "http://primer.test", "null"]) {
        const answer = await closed.request("GET", "/livez", { headers: { origin } });
        expect(corsOf(answer.headers)).toEqual([]);
      }
    } finally {
      await closed.close();
    }
  });
});
