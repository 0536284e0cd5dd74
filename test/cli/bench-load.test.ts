/** The load generator of `primer bench` against servers that misbehave in known ways. */
import { afterEach, describe, expect, test } from "bun:test";
import { createServer, type Server } from "node:net";
import { createHistogram } from "../../cli/bench/histogram.ts";
import type { Load } from "../../cli/bench/load.ts";
import { createLoadGenerator, type LoadGenerator } from "../../cli/bench/load-generator.ts";
import { targetOf } from "../../cli/bench/requests.ts";
import { certificateAuthority } from "../support/certificates.ts";
import { freePort } from "../support/services.ts";

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (let close = closing.pop(); close; close = closing.pop()) await close();
});

function generatorFor(url: string, ca?: string): LoadGenerator {
  const accounts = [{ username: "ada", password: "secret" }];
  const to = { target: targetOf(url, ca), authority: new URL(url).host, accounts, client: null, prefix: "new" };
  const generator = createLoadGenerator(to);
  closing.push(() => generator.close());
  return generator;
}

function serve(fetch: (request: Request) => Response | Promise<Response>, tls?: { cert: string; key: string }): string {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch, ...(tls ? { tls } : {}) });
  closing.push(() => server.stop(true));
  return `${tls ? "https" : "http"}://127.0.0.1:${server.port}`;
}

/** A server that answers each connection's bytes with these, and then may end it. */
async function serveBytes(answer: string, ends: boolean): Promise<string> {
  const server: Server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", () => (ends ? socket.end(answer) : socket.write(answer)));
  });
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  closing.push(() => server.close());
  return `http://127.0.0.1:${port}`;
}

const GET = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const load = (more: Partial<Load> = {}): Load => ({
  what: { raw: GET },
  connections: 2,
  rate: null,
  warmUpMs: 0,
  durationMs: 300,
  timeoutMs: 5000,
  ...more,
});
const run = (url: string, more: Partial<Load> = {}, ca?: string) => generatorFor(url, ca).run(load(more), () => {});

// No coordinated omission: the requests that a stall held up count, each from when it was due.
test("a stall is seen by every request that was due in it, over one connection", async () => {
  let asked = 0;
  const url = serve(async () => {
    if (++asked === 20) await Bun.sleep(400);
    return new Response("ok");
  });
  const { latency, requests, errors, waited } = await run(url, { connections: 1, rate: 100, durationMs: 1000 });
  const histogram = createHistogram(latency);
  expect({ requests, errors }).toEqual({ requests: 100, errors: {} });
  // 40 requests were due in those 400 ms; 30 of them waited for 100 ms or more.
  expect(histogram.countBetween(100, Number.POSITIVE_INFINITY)).toBeGreaterThanOrEqual(29);
  expect(waited).toBeGreaterThanOrEqual(38);
  expect(histogram.maxMs()).toBeGreaterThanOrEqual(395);
});

test("a request that is not answered is given up, and counts with the time that it waited", async () => {
  const url = serve((request) => new Promise(() => request.signal));
  const { latency, completed, errors } = await run(url, { timeoutMs: 200 });
  expect(completed).toBe(0);
  expect(Object.keys(errors)).toEqual(["timeout"]);
  expect(createHistogram(latency).percentileMs(0.01)).toBeGreaterThan(190);
});

test("a server that never answers costs each rate its whole schedule", async () => {
  const url = serve((request) => new Promise(() => request.signal));
  const { requests, errors } = await run(url, { rate: 200, durationMs: 500, timeoutMs: 200 });
  expect(requests).toBe(100);
  expect((errors.timeout ?? 0) + (errors["not sent"] ?? 0)).toBe(100);
});

describe("errors are named by what was answered", () => {
  const envelope = (code: string, status: number) => Response.json({ error: { code } }, { status });

  test.each([
    ["the envelope's code", () => envelope("RATE_LIMIT_EXCEEDED", 429), "429 RATE_LIMIT_EXCEEDED"],
    ["that of OAuth", () => Response.json({ error: "invalid_client" }, { status: 401 }), "401 invalid_client"],
    ["the status alone", () => new Response("<html>", { status: 502 }), "502"],
    ["an error that is none", () => Response.json({ error: null }, { status: 500 }), "500"],
  ])("%s", async (_, answer, name) => {
    const { errors, completed, requests } = await run(serve(answer));
    expect(Object.keys(errors)).toEqual([name]);
    expect([completed, requests]).toEqual([0, errors[name] ?? 0]);
  });

  // A client that is refused waits; a flood of refusals would measure nothing but itself.
  test("in a closed loop who is refused pauses", async () => {
    const { requests } = await run(serve(() => envelope("SERVICE_UNAVAILABLE", 503)));
    expect(requests).toBeLessThanOrEqual(2 * (300 / 100 + 1));
  });

  test("no connection, and one that ends too early", async () => {
    const refused = await run(`http://127.0.0.1:${await freePort()}`);
    expect(Object.keys(refused.errors)).toEqual(["connection: ECONNREFUSED"]);
    const cut = await run(await serveBytes("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfour", true));
    expect(Object.keys(cut.errors)).toEqual(["connection: closed before the answer"]);
  });
});

test.each([
  ["closes after each", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", true],
  ["without a length", "HTTP/1.1 200 OK\r\n\r\nok", true],
  ["in chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false],
])("answers of a server that %s are whole", async (_, answer, ends) => {
  const { errors, completed } = await run(await serveBytes(answer, ends));
  expect(errors).toEqual({});
  expect(completed).toBeGreaterThan(1);
});

test("what came in the warm-up does not count", async () => {
  let asked = 0;
  const url = serve(() => new Response(String(asked++)));
  const events: string[] = [];
  const result = await generatorFor(url).run(load({ rate: 100, warmUpMs: 500, durationMs: 500 }), ({ at }) => {
    if (at !== "now") events.push(at);
  });
  expect([result.requests, asked, events]).toEqual([50, 100, ["begin", "end"]]);
});

describe("over TLS", () => {
  const [ours, others] = [certificateAuthority(), certificateAuthority()];
  const url = () => serve(() => new Response("ok"), ours.issue(["127.0.0.1", "localhost"]));

  test("with the CA it is trusted", async () => {
    const { errors, completed } = await run(url(), {}, ours.cert);
    expect(errors).toEqual({});
    expect(completed).toBeGreaterThan(1);
  });

  // A password is never sent to a server whose certificate is not known.
  test.each([
    ["another CA", others.cert],
    ["none", undefined],
  ])("with %s no request is sent", async (_, ca) => {
    let asked = 0;
    const at = serve(() => new Response(String(asked++)), ours.issue(["127.0.0.1"]));
    const { errors, completed } = await run(at, {}, ca);
    expect([completed, asked]).toEqual([0, 0]);
    expect(Object.keys(errors).every((name) => name.startsWith("connection: "))).toBe(true);
    expect(Object.keys(errors)).not.toEqual([]);
  });

  test("nor to one whose certificate is of another name", async () => {
    let asked = 0;
    const at = serve(() => new Response(String(asked++)), ours.issue(["somewhere.example"]));
    const { completed } = await run(at, {}, ours.cert);
    expect([completed, asked]).toEqual([0, 0]);
  });
});

test("a mix sends each kind with the session of its connection, and renews what it has used", async () => {
  const seen = new Map<string, number>();
  const used = new Set<string>();
  let generation = 0;
  const url = serve(async (request) => {
    const { pathname } = new URL(request.url);
    seen.set(pathname, (seen.get(pathname) ?? 0) + 1);
    const tokens = { access_token: "a", refresh_token: `r${++generation}`, expires_in: 900 };
    if (pathname === "/api/v1/auth/refresh") {
      const { refresh_token } = (await request.json()) as { refresh_token: string };
      if (used.has(refresh_token)) return Response.json({ error: { code: "AUTH_REFRESH_REUSED" } }, { status: 401 });
      used.add(refresh_token);
    }
    return Response.json(tokens);
  });
  const generator = generatorFor(url);
  expect(await generator.logIn(3)).toBeNull();
  const mix = { login: 1, refresh: 2, verify: 3 };
  const { errors, byKind } = await generator.run(load({ what: { mix }, connections: 3 }), () => {});
  expect(errors).toEqual({});
  expect(Object.keys(byKind).sort()).toEqual(["login", "refresh", "verify"]);
  const { sessionsEnded, sessionsLeft } = await generator.cleanUp({ accounts: true });
  expect({ sessionsEnded, sessionsLeft }).toEqual({
    sessionsEnded: seen.get("/api/v1/auth/login") ?? 0,
    sessionsLeft: 0,
  });
  expect(seen.get("/api/v1/auth/logout")).toBe(sessionsEnded);
});
