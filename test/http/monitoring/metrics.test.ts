import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createMetrics, resourceOf } from "../../../config/meter.ts";
import { METRICS, type MetricName } from "../../../config/metrics.ts";
import { openDeps } from "../../../server/start.ts";
import { TEST_DATABASE } from "../../support/database.ts";
import { until } from "../../worker/support/jobs.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";

const TOKEN = "a-token-for-metrics-alone";
const LOGIN = "/api/v1/auth/login";

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp({
    PRIMER_TELEMETRY__METRICS_TOKEN: TOKEN,
    PRIMER_PASSWORD__FAILURE_FLOOR: "0s",
    PRIMER_RATE_LIMITS__REGISTER_IP: "1/1h",
    PRIMER_ACCOUNTS__DELAY_AFTER: "5",
  });
  await app.createUser({ username: "ada" });
});
afterAll(() => app.close());

const scrape = async () => (await app.request("GET", "/metrics", { token: TOKEN })).text;

/** The sum of the series of a metric that have all of these labels. */
async function amountOf(name: string, labels: Record<string, string> = {}): Promise<number> {
  const lines = (await scrape())
    .split("\n")
    .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  return lines
    .filter((line) => wanted.every((pair) => line.includes(pair)))
    .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

async function grows(name: string, labels: Record<string, string>, by: number, work: () => Promise<unknown>) {
  const before = await amountOf(name, labels);
  await work();
  await until(`${name} has grown`, async () => (await amountOf(name, labels)) - before >= by);
  expect((await amountOf(name, labels)) - before).toBe(by);
}

// Whoever reads how much is going on is let in by a token that opens nothing else, or not at all.
describe("GET /metrics", () => {
  test("401 with any other token, a user's included; the metrics' own opens nothing else", async () => {
    const { access_token } = await app.login("ada");
    for (const headers of [{}, { authorization: `Basic ${TOKEN}` }, { authorization: `Bearer ${access_token}` }]) {
      const answer = await app.request("GET", "/metrics", { headers: headers as Record<string, string> });
      expect([answer.status, answer.body.error.code]).toEqual([401, "AUTH_TOKEN_INVALID"]);
    }
    expect((await app.request("GET", "/api/v1/monitoring/metrics", { token: TOKEN })).status).toBe(401);
  });

  test("404 where no token is set", async () => {
    const other = await openHttpApp();
    expect((await other.request("GET", "/metrics", { token: "" })).status).toBe(404);
    await other.close();
  });

  test("in Prometheus' form, each with its sentence, kind and environment, and nothing that is not in the registry", async () => {
    await app.login("ada");
    const answer = await app.request("GET", "/metrics", { token: TOKEN });
    expect(answer.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
    for (const line of answer.text.split("\n").filter((one) => one !== "" && !one.startsWith("#"))) {
      const [, name = "", labels = ""] = /^([a-z0-9_]+)\{(.*)\} \S+$/.exec(line) ?? [];
      const family = name.replace(/_(bucket|sum|count)$/, "");
      expect({ line, known: family in METRICS || name in METRICS }).toEqual({ line, known: true });
      expect(labels).toContain('environment="development"');
      const spec = METRICS[family as MetricName] ?? METRICS[name as MetricName];
      for (const [, label = "", value = ""] of labels.matchAll(/([a-z]+)="([^"]*)"/g)) {
        if (label === "environment" || label === "le") continue;
        const allowed = (spec.labels as Record<string, readonly string[] | { boundedBy: string }>)[label];
        expect({ line, label: allowed !== undefined }).toEqual({ line, label: true });
        if (Array.isArray(allowed)) expect(allowed).toContain(value);
      }
      expect(answer.text).toContain(`# HELP ${spec === METRICS[name as MetricName] ? name : family} `);
    }
  });
});

describe("what is counted", () => {
  const login = (username: string, password: string) => app.request("POST", LOGIN, { body: { username, password } });

  test("sign-ins, by why they failed", async () => {
    await grows("primer_sign_ins_total", { outcome: "success", reason: "password" }, 1, () => app.login("ada"));
    await grows("primer_sign_ins_total", { outcome: "failure", reason: "wrong_password" }, 1, () =>
      login("ada", "wrong"),
    );
    await grows("primer_sign_ins_total", { reason: "unknown_account" }, 1, () => login("nobody-here", "wrong"));
  });

  test("tokens: issued, refreshed, verified, refused", async () => {
    const tokens = await app.login("ada");
    const refresh = (refresh_token: string) => app.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } });
    const verify = (token: string) => app.request("GET", "/api/v1/auth/verify", { token });
    await grows("primer_tokens_issued_total", { grant: "login" }, 1, () => app.login("ada"));
    await grows("primer_tokens_issued_total", { grant: "refresh" }, 1, () => refresh(tokens.refresh_token));
    await grows("primer_refreshes_total", { outcome: "accepted" }, 1, () => refresh(tokens.refresh_token));
    await grows("primer_refreshes_total", { outcome: "invalid" }, 1, () => refresh("no.token"));
    app.clock.advance(11_000);
    await grows("primer_refreshes_total", { outcome: "reused" }, 1, () => refresh(tokens.refresh_token));
    const { access_token } = await app.login("ada");
    await grows("primer_tokens_verified_total", { outcome: "accepted" }, 1, () => verify(access_token));
    await grows("primer_tokens_verified_total", { outcome: "refused" }, 1, () => verify("a.b.c"));
    await grows("primer_token_verification_duration_seconds_count", {}, 1, () => verify(access_token));
  });

  test("requests by their route as it is declared; what is no route is one", async () => {
    const name = "http_server_request_duration_seconds_count";
    const byId = { method: "GET", route: "/api/v1/users/:id", status: "401" };
    await grows(name, byId, 2, async () => {
      for (const id of ["a", "b"]) await app.request("GET", `/api/v1/users/${id}`);
    });
    await grows(name, { route: "none", status: "404" }, 2, async () => {
      for (const path of ["/a", "/b"]) await app.request("GET", path);
    });
  });

  test("the stages of a login, and one hash for each", async () => {
    const stages = ["parse", "query", "hash", "sign", "write"];
    const count = (stage: string) => amountOf("primer_request_stage_duration_seconds_count", { stage });
    const before = await Promise.all(stages.map(count));
    await app.login("ada");
    await until("the answer was written", async () => (await count("write")) > (before.at(-1) ?? 0));
    const after = await Promise.all(stages.map(count));
    const more = Object.fromEntries(stages.map((stage, index) => [stage, (after[index] ?? 0) - (before[index] ?? 0)]));
    expect(more).toMatchObject({ parse: 1, hash: 1, sign: 1 });
    expect(more.query).toBeGreaterThan(0);
  });

  test("limits that were hit", async () => {
    const register = (name: string) =>
      app.request("POST", "/api/v1/auth/register", {
        body: { username: name, email: `${name}@example.test`, password: "a long and unusual sentence" },
      });
    await register("first-of-them");
    await grows("primer_limits_hit_total", { limit: "register_ip", mode: "enforce" }, 1, async () => {
      expect((await register("second-of-them")).status).toBe(429);
    });
  });

  // 200 guesses at once: the metric shows that no more than five of them were looked at.
  test("hashes of wrong guesses at the same moment", async () => {
    await app.createUser({ username: "grace" });
    const hashes = () => amountOf("primer_request_stage_duration_seconds_count", { stage: "hash" });
    const before = await hashes();
    const answers = await Promise.all(Array.from({ length: 200 }, () => login("grace", "wrong")));
    expect((await hashes()) - before).toBeLessThanOrEqual(5);
    // The others were refused before; on a machine with much else to do some of them for want of a slot.
    expect(answers.filter(({ status }) => status === 429 || status === 503).length).toBeGreaterThanOrEqual(195);
  });

  test("what the installation comes to", async () => {
    expect(await amountOf("primer_dependency_up", { dependency: "database" })).toBe(1);
    expect(await amountOf("primer_breaker_open", { dependency: "database" })).toBe(0);
    expect(await amountOf("primer_hash_queue", { state: "slots" })).toBeGreaterThan(0);
    expect(await amountOf("process_resident_memory_bytes")).toBeGreaterThan(10_000_000);
    app.clock.advance(86_400_000);
    expect(await amountOf("primer_key_age_seconds", { use: "signing" })).toBeGreaterThanOrEqual(86_400);
  });

  test("percentiles for people, by the API", async () => {
    await app.createUser({ username: "root", roles: ["admin"] });
    const { access_token: token } = await app.login("root");
    const { body } = await app.request("GET", "/api/v1/monitoring/metrics", { token });
    const hash = body.metrics
      .find((metric: { name: string }) => metric.name === "primer_request_stage_duration_seconds")
      .points.find((point: { labels: { stage: string } }) => point.labels.stage === "query");
    expect(hash.value).toBeGreaterThan(0);
    expect(hash.p50).toBeGreaterThan(0);
    expect(hash.p99).toBeGreaterThanOrEqual(hash.p95);
    expect(hash.max).toBeGreaterThanOrEqual(hash.p99);
  });
});

// A container's home may be one that nothing can be written to: that ends no process.
test.if(TEST_DATABASE === "postgres")(
  "a process in whose home no socket can be made tells its own metrics alone",
  async () => {
    const { settings, secrets, db, log, clock, random } = app.deps;
    const metrics = createMetrics({ resource: resourceOf("development") });
    const deps = await openDeps({ home: "/nonexistent", settings, secrets, db, log, clock, random, metrics });
    expect((await deps.nodeMetrics.collect()).map(({ descriptor }) => descriptor.name)).toContain("primer_info");
    expect(app.logLines.some((line) => line.includes('"metrics.not_shared"'))).toBe(true);
    await deps.close();
  },
);
