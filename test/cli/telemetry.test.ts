import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ADMIN_PASSWORD,
  type Child,
  initHome,
  login,
  logLines,
  post,
  primer,
  serve,
  waitFor,
} from "../drills/processes.ts";
import { NO_LIMITS } from "../support/no-limits.ts";
import { freePort } from "../support/services.ts";
import { startSmtp } from "../worker/support/smtp.ts";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT = "00f067aa0ba902b7";
const METRICS_TOKEN = "a-token-for-metrics-alone";

interface OtlpSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly attributes: readonly { key: string; value: { stringValue?: string; intValue?: number } }[];
}

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

function newHome(): string {
  const folder = mkdtempSync(join(tmpdir(), "primer-telemetry-"));
  closing.push(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, "home");
}

async function served(home: string, variables: Record<string, string>) {
  const server = await serve(home, { ...NO_LIMITS, ...variables });
  closing.push(async () => {
    if (server.running()) server.signal("SIGTERM");
    await server.finished;
  });
  return server;
}

/** A collector, as OpenTelemetry describes it for JSON. */
function startCollector(answer: () => Response | Promise<Response> = () => Response.json({})) {
  const bodies: string[] = [];
  const paths: string[] = [];
  const spans: OtlpSpan[] = [];
  const metrics = new Set<string>();
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    async fetch(request) {
      paths.push(`${new URL(request.url).pathname} ${request.headers.get("content-type")}`);
      const body = await request.text();
      bodies.push(body);
      if (request.headers.get("content-type") === "application/json") {
        const { resourceSpans = [], resourceMetrics = [] } = JSON.parse(body);
        for (const resource of resourceSpans)
          for (const scope of resource.scopeSpans) spans.push(...(scope.spans as OtlpSpan[]));
        for (const resource of resourceMetrics)
          for (const scope of resource.scopeMetrics) for (const { name } of scope.metrics) metrics.add(name);
      }
      return answer();
    },
  });
  closing.push(() => server.stop(true));
  return { url: `http://127.0.0.1:${server.port}`, bodies, paths, spans, metrics };
}

const attributeOf = (span: OtlpSpan | undefined, key: string) => {
  const value = span?.attributes.find((attribute) => attribute.key === key)?.value;
  return value?.stringValue ?? value?.intValue;
};

describe("to a collector", () => {
  test("a trace that a caller began goes through request, queries, hash, signature, queue and mail; the log knows it", async () => {
    const collector = startCollector();
    const smtp = await startSmtp();
    closing.push(() => smtp.close());
    const home = newHome();
    await initHome(home);
    const server = await served(home, {
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_TRACES_SAMPLER_ARG: "1",
      OTEL_EXPORTER_OTLP_HEADERS: "x-canary-header=canary-of-headers",
      OTEL_METRIC_EXPORT_INTERVAL: "1000",
      SMTP_URL: `smtp://127.0.0.1:${smtp.port}`,
      PRIMER_MAIL__NOTIFY_LOGIN: "every",
    });
    const canary = "canary-of-a-password";
    await post(server.url, "/api/v1/auth/login", { username: "admin", password: canary });
    const answer = await fetch(`${server.url}/api/v1/auth/login?canary=of-a-query`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        traceparent: `00-${TRACE}-${PARENT}-01`,
        "user-agent": "canary-agent",
      },
      body: JSON.stringify({ username: "admin", password: ADMIN_PASSWORD }),
    });
    const { access_token, refresh_token } = (await answer.json()) as Record<string, string>;
    const ours = () => collector.spans.filter(({ traceId }) => traceId === TRACE);
    const named = (name: string) => ours().find((span) => span.name === name);
    await waitFor("the mail's span", () => named("mail.send") !== undefined);
    await waitFor("the request's span", () => named("POST /api/v1/auth/login") !== undefined);
    await waitFor("metrics", () => collector.metrics.has("primer_sign_ins_total"));

    const request = named("POST /api/v1/auth/login");
    expect([request?.parentSpanId, request?.kind]).toEqual([PARENT, 2]);
    expect(attributeOf(request, "http.route")).toBe("/api/v1/auth/login");
    expect(Number(attributeOf(request, "http.response.status_code"))).toBe(200);
    for (const name of ["parse", "password.hash", "token.sign", "db.query", "job send-mail", "mail.send"])
      expect({ name, there: named(name) !== undefined }).toEqual({ name, there: true });
    const ids = new Set([PARENT, ...ours().map(({ spanId }) => spanId)]);
    for (const span of ours())
      expect({ span: span.name, parent: ids.has(span.parentSpanId ?? "") }).toEqual({ span: span.name, parent: true });
    expect(named("mail.send")?.parentSpanId).toBe(named("job send-mail")?.spanId ?? "");

    const lines = logLines(server.out()) as { event?: string; trace_id?: string; request_id?: string }[];
    const traced = lines.filter(({ trace_id }) => trace_id === TRACE);
    expect(traced.map(({ event }) => event)).toEqual(expect.arrayContaining(["request.answered", "mail.sent"]));
    expect(new Set(collector.paths)).toEqual(new Set(["/v1/metrics application/json", "/v1/traces application/json"]));

    // Nothing of what was sent in, nor what was given out, is told to whoever watches.
    const told = collector.bodies.join("\n");
    for (const secret of [
      canary,
      ADMIN_PASSWORD,
      access_token,
      refresh_token,
      "canary-agent",
      "of-a-query",
      "canary-of-headers",
    ])
      expect({ secret, told: told.includes(secret ?? "") }).toEqual({ secret, told: false });
  }, 60_000);

  // A collector costs nobody anything: neither one that is away, nor one that never answers.
  test.each(["away", "silent"])(
    "one that is %s holds up no request and no end, and is told once",
    async (how) => {
      const silent = startCollector(() => new Promise<Response>(() => {}));
      const url = how === "away" ? `http://127.0.0.1:${await freePort()}` : silent.url;
      const home = newHome();
      await initHome(home);
      const server = await served(home, {
        OTEL_EXPORTER_OTLP_ENDPOINT: url,
        OTEL_METRIC_EXPORT_INTERVAL: "1000",
        OTEL_TRACES_SAMPLER_ARG: "1",
      });
      expect((await login(server.url)).status).toBe(200);
      const notSent = () => logLines(server.out()).filter(({ event }) => event === "telemetry.not_sent");
      await waitFor("the log tells", () => notSent().length > 0);
      const statuses = await Promise.all(
        Array.from({ length: 50 }, async () => (await fetch(`${server.url}/api/v1/health`)).status),
      );
      expect(new Set(statuses)).toEqual(new Set([200]));
      expect(notSent().length).toBeLessThanOrEqual(2); // of metrics, and of spans
      server.signal("SIGTERM");
      expect((await server.finished).exitCode).toBe(0);
    },
    60_000,
  );

  test("protobuf is what is sent where nothing is said, and no spans where their share is 0", async () => {
    const collector = startCollector();
    const home = newHome();
    await initHome(home);
    const server = await served(home, {
      OTEL_EXPORTER_OTLP_ENDPOINT: `${collector.url}/opentelemetry`,
      OTEL_METRIC_EXPORT_INTERVAL: "1000",
      OTEL_TRACES_SAMPLER_ARG: "0",
    });
    expect((await login(server.url)).status).toBe(200);
    await waitFor("three times", () => collector.paths.length >= 3);
    expect(new Set(collector.paths)).toEqual(new Set(["/opentelemetry/v1/metrics application/x-protobuf"]));
  }, 60_000);
});

describe("log files", () => {
  test("hold the same lines, make room for new ones, and only their owner reads them", async () => {
    const home = newHome();
    await initHome(home);
    const server = await served(home, {
      PRIMER_LOG__FOLDER: "logs",
      PRIMER_LOG__MAX_BYTES: "65536",
      PRIMER_LOG__KEEP: "2",
    });
    const ask = () => fetch(`${server.url}/nowhere`).then((answer) => answer.text());
    const files = () => readdirSync(join(home, "logs")).sort();
    for (let round = 0; round < 40; round++) await Promise.all(Array.from({ length: 50 }, ask));
    await waitFor("old files are gone", () => files().length === 3);
    server.signal("SIGTERM");
    await server.finished;
    for (const name of files()) {
      expect(name).toMatch(/^serve-\d{8}T\d{9}Z-[0-9a-f]{8}-\d+\.log$/);
      const path = join(home, "logs", name);
      expect(statSync(path).mode & 0o777).toBe(0o600);
      const lines = readFileSync(path, "utf8").trimEnd().split("\n");
      for (const line of lines) expect(server.out()).toContain(line);
    }
    expect(readFileSync(join(home, "logs", files().at(-1) ?? ""), "utf8")).toContain('"event":"process.stopped"');
  }, 60_000);

  test("a folder that cannot be written ends the start with what to do", async () => {
    const home = newHome();
    await initHome(home);
    const { exitCode, notes } = await primer(home, ["serve", "--port", String(await freePort())], {
      PRIMER_LOG__FOLDER: "/dev/null/logs",
    }).finished;
    expect([exitCode, notes.includes("log.folder")]).toEqual([1, true]);
  });
});

const url = process.env.TEST_DATABASE_URL;
if (!url) console.log("The metrics of several processes were not tried: they need a PostgreSQL (TEST_DATABASE_URL).");

describe.if(url !== undefined)("of several processes in one home", () => {
  test("/metrics is that of all of them, whoever is asked, and goes on without one that was killed", async () => {
    const name = `telemetry_${process.pid}`;
    const admin = new Bun.SQL(url ?? "");
    await admin.unsafe(`CREATE DATABASE ${name}`);
    closing.push(async () => {
      await admin.unsafe(`DROP DATABASE ${name} WITH (FORCE)`);
      await admin.close();
    });
    const home = newHome();
    const listen = `127.0.0.1:${await freePort()}`;
    const variables = {
      DATABASE_URL: Object.assign(new URL(url ?? ""), { pathname: `/${name}` }).href,
      PRIMER_TELEMETRY__METRICS_LISTEN: listen,
      PRIMER_TELEMETRY__METRICS_TOKEN: METRICS_TOKEN,
    };
    await initHome(home, variables);
    const [one, other] = [await served(home, variables), await served(home, variables)];
    const worker: Child = primer(home, ["worker"], variables);
    closing.push(() => (worker.running() ? worker.kill() : undefined));
    await worker.until((out) => out.includes('"event":"worker.started"'));
    const headers = { authorization: `Bearer ${METRICS_TOKEN}` };
    const scrape = async (from: string) => (await fetch(`${from}/metrics`, { headers })).text();
    const kinds = async (from: string) => {
      const text = await scrape(from);
      const count = (kind: string) =>
        Number(new RegExp(`^primer_info\\{[^}]*kind="${kind}"[^}]*\\} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
      return [count("serve"), count("worker")];
    };
    for (const from of [one.url, other.url, `http://${listen}`]) expect(await kinds(from)).toEqual([2, 1]);
    expect((await fetch(`http://${listen}/metrics`)).status).toBe(401);
    expect((await fetch(`http://${listen}/api/v1/health`, { headers })).status).toBe(404);
    const sockets = () => readdirSync(home).filter((file) => file.endsWith(".sock"));
    for (const file of sockets()) expect(statSync(join(home, file)).mode & 0o777).toBe(0o600);

    // What was counted stays, whoever is asked: a sum that falls would look as if all of them had begun anew.
    const answered = async (from: string) =>
      (await scrape(from))
        .split("\n")
        .filter((line) => /^http_server_request_duration_seconds_count.*"\/api\/v1\/health"/.test(line))
        .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
    for (let count = 0; count < 7; count++) await fetch(`${other.url}/api/v1/health`);
    await waitFor("they are counted", async () => (await answered(one.url)) === 7);

    await worker.kill();
    expect(await kinds(one.url)).toEqual([2, 0]);
    expect(sockets()).toHaveLength(2);
    other.signal("SIGTERM");
    await other.finished;
    expect(await kinds(one.url)).toEqual([1, 0]);
    expect(sockets()).toHaveLength(1);
    expect(await answered(one.url)).toBe(7);
    const third = await served(home, variables);
    expect(await answered(third.url)).toBe(7);
    await fetch(`${third.url}/api/v1/health`);
    await waitFor("it is counted too", async () => (await answered(one.url)) === 8);
    await third.kill();
    expect(await answered(one.url)).toBe(8);
  }, 60_000);
});
