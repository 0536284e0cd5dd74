import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect } from "node:tls";
import { canRun, waitFor } from "../drills/processes.ts";
import { type Stack, startStack, whyNoStack } from "../support/stack.ts";

const possible = canRun(whyNoStack(), "the stack of compose/");

let stack: Stack;
beforeAll(async () => {
  if (!possible) return;
  stack = await startStack();
  for (const part of stack.leftOut) process.stderr.write(`Left out of the stack: ${part}\n`);
}, 60_000);
afterAll(() => stack?.remove(), 30_000);

interface Tokens {
  readonly access_token: string;
  readonly refresh_token: string;
}

async function send(path: string, init: RequestInit = {}) {
  const response = await fetch(stack.url + path, {
    ...init,
    signal: AbortSignal.timeout(15_000),
    tls: { ca: stack.certificate },
  });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.includes("json");
  return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
}
const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  send(path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
const login = (username = "admin") => post("/api/v1/auth/login", { username, password: stack.password });
const bearer = ({ access_token }: Tokens) => ({ authorization: `Bearer ${access_token}` });

const addressOf = (index: 0 | 1) => new URL(stack.nodes[index].url).host;

async function handshake(servername: string, maxVersion: "TLSv1.2" | "TLSv1.3"): Promise<string> {
  const port = Number(new URL(stack.url).port);
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port, servername, maxVersion, ca: stack.certificate }, () => {
      resolve(socket.getProtocol() ?? "");
      socket.end();
    });
    socket.once("error", () => resolve("refused"));
  });
}

const PEOPLE = ["ada", "grace", "edsger", "barbara"];

describe.if(possible)("the production stack", () => {
  // What is reached from outside is TLS 1.3 under its own name, and nothing that is for machines inside.
  test("the proxy speaks TLS 1.3 alone, for its own names, and keeps the inside to itself", async () => {
    expect(await handshake("localhost", "TLSv1.3")).toBe("TLSv1.3");
    expect(await handshake("localhost", "TLSv1.2")).toBe("refused");
    expect(await handshake("somebody.else", "TLSv1.3")).toBe("refused");
    for (const path of ["/metrics", "/readyz", "/livez"]) expect((await send(path)).status).toBe(404);
    const plain = await fetch(`${stack.plainUrl}/docs?a=b`, { redirect: "manual" });
    expect([plain.status, plain.headers.get("location")]).toEqual([308, "https://localhost/docs?a=b"]);
    expect((await send("/api/v1/health")).headers.get("strict-transport-security")).toContain("max-age");
  });

  // Who a client is says the proxy, and never the client.
  test("an address that a client claims is not believed", async () => {
    const { body } = await post(
      "/api/v1/auth/login",
      { username: "admin", password: stack.password },
      { "x-forwarded-for": "203.0.113.9", forwarded: "for=203.0.113.9" },
    );
    const sessions = await send("/api/v1/users/me/sessions", { headers: bearer(body) });
    expect(sessions.status).toBe(200);
    expect(JSON.stringify(sessions.body)).not.toContain("203.0.113.9");
    expect(JSON.stringify(sessions.body)).toContain("127.0.0.1");
  });

  test("the replica streams, jobs get done and mails out", async () => {
    expect(await stack.query("SELECT state FROM pg_stat_replication WHERE usename = 'replicator'")).toBe("streaming");
    expect((await post("/api/v1/auth/forgot-password", { email: "admin@localhost" })).status).toBeWithin(200, 300);
    await waitFor("the mail", () => stack.smtp.received.some(({ to }) => to.includes("admin@localhost")));
  });

  test("metrics of every process arrive", async () => {
    if (stack.metricsUrl === undefined) return; // said when it started
    const query = "count(count by (service_instance_id) (process_cpu_seconds_total))";
    await waitFor("metrics of two nodes and two workers", async () => {
      const answer = await fetch(
        `${stack.metricsUrl}/api/v1/query?latency_offset=1ms&query=${encodeURIComponent(query)}`,
      );
      return Number((await answer.json()).data.result[0]?.value[1]) === 4;
    });
  });

  test("the alerts are watched", async () => {
    if (stack.alertsUrl === undefined) return; // said when it started
    const rules = async () => (await fetch(`${stack.alertsUrl}/api/v1/rules`)).json();
    await waitFor("vmalert", () => rules().then(Boolean, () => false));
    expect((await rules()).data.groups.length).toBeGreaterThan(0);
  });

  // No login fails because a node died: neither one that had not reached it, nor one that it was working on.
  // Each is somebody else's, since one person's logins wait for each other.
  test("a node is killed: no login through the proxy fails, and what it began goes on at the other one", async () => {
    for (const name of PEOPLE) {
      const words = ["users", "create", name, "--email", `${name}@example.org`, "--password-stdin"];
      expect((await stack.primer(words, stack.password)).exitCode).toBe(0);
    }
    const before: Tokens = (await login()).body;
    let stop = false;
    const statuses: number[] = [];
    const underWay = new Set<{ since: number }>();
    const loops = PEOPLE.map(async (username) => {
      while (!stop) {
        const one = { since: performance.now() };
        underWay.add(one);
        statuses.push((await login(username)).status);
        underWay.delete(one);
      }
    });
    await waitFor("logins", () => statuses.length >= 20);
    // It is stopped first, so that some are surely with it when it dies.
    stack.nodes[0].signal("SIGSTOP");
    await waitFor("a login that it holds", () => [...underWay].some(({ since }) => performance.now() - since > 1000));
    await stack.nodes[0].end("SIGKILL");
    const atDeath = statuses.length;
    await waitFor("logins without it", () => statuses.length >= atDeath + 20);
    stop = true;
    await Promise.all(loops);
    expect(new Set(statuses)).toEqual(new Set([200]));
    const resumed = stack.passed().filter(({ node }) => node === `${addressOf(0)}, ${addressOf(1)}`);
    expect(resumed.length).toBeGreaterThan(0);
    process.stderr.write(`${statuses.length} logins, ${resumed.length} taken over from the killed node\n`);

    const refreshed = await post("/api/v1/auth/refresh", { refresh_token: before.refresh_token });
    expect(refreshed.status).toBe(200);
    const headers = bearer(refreshed.body);
    expect((await send("/api/v1/auth/verify", { headers })).body.username).toBe("admin");
    expect((await send("/api/v1/auth/logout", { method: "POST", headers })).status).toBe(204);
    expect((await send("/api/v1/auth/verify", { headers })).status).toBe(401);

    await stack.startNode(0);
    await waitFor("requests at the node that is back", async () => {
      const seen = stack.passed().length;
      await send("/api/v1/health");
      return stack
        .passed()
        .slice(seen)
        .some(({ node, status }) => node === addressOf(0) && status === 200);
    });
  });

  test("primer doctor finds nothing wrong", async () => {
    const { exitCode, stdout } = await stack.primer(["doctor", "--json"]);
    const { ok, findings } = JSON.parse(stdout);
    expect(findings.filter(({ state }: { state: string }) => state === "failed")).toEqual([]);
    expect([exitCode, ok]).toEqual([0, true]);
    const checked = new Map(findings.map(({ check, state }: Record<string, string>) => [check, state]));
    for (const check of ["database", "migrations", "redis", "mail", "keys", "TLS", "audit log", "hashing"]) {
      expect([check, checked.get(check)]).toEqual([check, "ok"]);
    }
  });

  // With every node gone clients get primer's own form, and are told when to come again.
  test("where no node is left, the answer is a 503 in primer's form", async () => {
    await Promise.all(stack.nodes.map((node) => node.end("SIGKILL")));
    const { status, body, headers } = await login();
    expect([status, body.error.code, headers.get("retry-after")]).toEqual([503, "SERVICE_UNAVAILABLE", "2"]);
  });
});
