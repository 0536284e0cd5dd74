import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createBreaker } from "../../../db/breaker.ts";
import { TEST_DATABASE } from "../../support/database.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { play, type Scenario } from "../support/scenario.ts";

const HEALTH = "/api/v1/monitoring/health";
const BREAKERS = "/api/v1/monitoring/circuit-breakers";

let app: HttpApp;
let admin: string;
let user: string;
beforeAll(async () => {
  app = await openHttpApp();
  await app.createUser({ username: "root", roles: ["admin"] });
  await app.createUser({ username: "ada" });
  admin = (await app.login("root")).access_token;
  user = (await app.login("ada")).access_token;
});
afterAll(() => app.close());

// What primer stands on, and how that is, is for those who look after it.
describe("who may look", () => {
  for (const path of [HEALTH, BREAKERS]) {
    const scenarios = (): Scenario[] => [
      { name: "nobody", status: 401, code: "AUTH_TOKEN_MISSING" },
      { name: "a made-up token", token: "a.b.c", status: 401, code: "AUTH_TOKEN_INVALID" },
      {
        name: "a user",
        token: user,
        status: 403,
        code: "FORBIDDEN",
        notInAnswer: ["database"],
        adds: { audit_log: 1 },
      },
      { name: "an administrator", token: admin, status: 200 },
    ];
    for (const [index, { name }] of scenarios().entries()) {
      test(`${path}: ${name}`, async () => {
        await play(app, scenarios()[index] as Scenario, { method: "GET", path });
      });
    }
  }
});

describe("what is shown", () => {
  test("the database is healthy", async () => {
    const { body } = await app.request("GET", HEALTH, { token: admin });
    expect(body).toMatchObject({ status: "healthy", timestamp: app.clock.now().toISOString() });
    const { database } = body.dependencies;
    expect(database).toMatchObject({ status: "healthy", circuit_breaker: "closed" });
    expect(database.latency_ms).toBeGreaterThanOrEqual(0);
    expect(database.connections).toEqual(
      TEST_DATABASE === "postgres" ? { size: 10, in_use: 0, waiting: 0 } : undefined,
    );
  });

  test("its breaker is closed", async () => {
    const { body } = await app.request("GET", BREAKERS, { token: admin });
    expect(body).toEqual({
      circuit_breakers: { database: { state: "closed", failure_count: 0, last_failure: null, next_attempt: null } },
    });
  });
});

// One that hangs holds up neither the answer nor what is said of the others, and no reason is given away.
describe("another dependency", () => {
  test("hangs: it is unhealthy after a second, and the log tells of its breaker", async () => {
    const breaker = createBreaker("A made-up one", () => true);
    const hanging = Promise.withResolvers<void>();
    app.deps.dependencies.add("made-up", {
      breaker,
      meanwhile: "nothing is made up",
      ping: () => breaker.run(() => hanging.promise),
    });
    const began = performance.now();
    const { status, body } = await app.request("GET", HEALTH, { token: admin });
    expect(performance.now() - began).toBeWithin(900, 2000);
    expect([status, body.status]).toEqual([200, "unhealthy"]);
    expect(body.dependencies.database.status).toBe("healthy");
    expect(body.dependencies["made-up"]).toEqual({ status: "unhealthy", latency_ms: null, circuit_breaker: "closed" });

    hanging.reject(new Error("secret://of.the.operator"));
    for (let count = 1; count < 5; count++) {
      await breaker.run(() => hanging.promise).catch(() => {});
    }
    const after = await app.request("GET", BREAKERS, { token: admin });
    expect(after.body.circuit_breakers["made-up"]).toMatchObject({ state: "open", failure_count: 5 });
    const { last_failure, next_attempt } = after.body.circuit_breakers["made-up"];
    expect(Date.parse(next_attempt) - Date.parse(last_failure)).toBeWithin(400, 1100);
    expect(after.text).not.toContain("operator");
    expect((await app.request("GET", HEALTH, { token: admin })).text).not.toContain("operator");
    expect(app.logLines.filter((line) => line.includes("breaker.opened"))).toHaveLength(1);
  });
});

// What the settings ask for is shown; a service outside is not asked only to see whether it answers.
test("Redis and the service of breached passwords are shown where they are used", async () => {
  const settings = { REDIS_URL: "redis://127.0.0.1:1", PRIMER_PASSWORD__HIBP: "online" };
  const other = await openHttpApp({ ...settings, PRIMER_PASSWORD__HIBP_URL: "http://127.0.0.1:1" });
  try {
    await other.createUser({ username: "root", roles: ["admin"] });
    const { access_token: token } = await other.login("root");
    const { body } = await other.request("GET", HEALTH, { token });
    expect(body.status).toBe("unhealthy");
    expect(Object.keys(body.dependencies)).toEqual(["database", "redis", "breached_passwords"]);
    expect(body.dependencies.redis).toMatchObject({ status: "unhealthy", latency_ms: null });
    expect(body.dependencies.breached_passwords).toMatchObject({ status: "healthy", latency_ms: null });
  } finally {
    await other.close();
  }
});
