/** Clients that send slowly, or nothing, or come in thousands: what each costs is bounded, and others are served. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  canRun,
  FULL,
  initHome,
  inShort,
  login,
  logLines,
  residentMiB,
  type Server,
  scratchFolder,
  serve,
  waitFor,
} from "./processes.ts";
import { tableRow } from "./table.ts";

const REQUEST_TIMEOUT_MS = 2000;
/** What Bun gives a new connection for its first headers, and the tick of its timers on top. */
const FIRST_HEADERS_MS = 12_000 + 4000;
/** How long a connection may be idle, and its next headers take. */
const IDLE_MS = 30_000 + 4000;
const PROMPT_MS = 250;
const MAX_GROWTH_MIB = 100;
const FEW_CONNECTIONS = 50;
const FEW_FILES = 600;

const filesAllowed = existsSync("/proc/self/limits")
  ? Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1])
  : 0;
const wanted = FULL ? 10_000 : 2000;
const idle = Math.min(wanted, filesAllowed - 500);
const possible = canRun(
  idle >= 500 ? undefined : "/proc has to tell of memory and open files, and a thousand files be allowed",
  "slow clients",
);
if (idle < wanted) process.stderr.write(`${idle} idle connections instead of ${wanted}: ${filesAllowed} open files\n`);
inShort("2000 idle connections instead of 10000, and no headers that trickle in on a connection used before");

const scratch = scratchFolder();
/** The settings of each server, and how many files it may have open. */
const SERVERS = {
  slow: [{ PRIMER_SERVER__REQUEST_TIMEOUT: `${REQUEST_TIMEOUT_MS}ms`, PRIMER_SERVER__MAX_CONNECTIONS: "12000" }],
  fewConnections: [{ PRIMER_SERVER__REQUEST_TIMEOUT: "25s", PRIMER_SERVER__MAX_CONNECTIONS: String(FEW_CONNECTIONS) }],
  fewFiles: [{ PRIMER_SERVER__REQUEST_TIMEOUT: "25s" }, FEW_FILES],
} as const satisfies Record<string, readonly [Record<string, string>, number?]>;

const servers = {} as Record<keyof typeof SERVERS, Server>;
beforeAll(async () => {
  if (!possible) return;
  const prepared = join(scratch.path, "home");
  await initHome(prepared);
  const starting = Object.entries(SERVERS).map(async ([name, [variables, maxFiles]]) => {
    const home = join(scratch.path, name);
    cpSync(prepared, home, { recursive: true });
    servers[name as keyof typeof SERVERS] = await serve(home, variables, maxFiles);
  });
  await Promise.all(starting);
}, 60_000);
afterAll(async () => {
  for (const one of Object.values(servers)) await one.kill();
  scratch.remove();
});

interface Client {
  readonly received: () => string;
  /** Milliseconds from its start to its end, which the server brought about. */
  readonly ended: Promise<number>;
  send(text: string): void;
  close(): void;
}

/** A connection over TCP that sends `first`, and then one character of `trickle` after the other. */
async function client(url: string, first: string, trickle = "", everyMs = 500): Promise<Client> {
  const began = performance.now();
  const { promise: ended, resolve } = Promise.withResolvers<number>();
  let received = "";
  let position = 0;
  const { hostname, port } = new URL(url);
  const socket = await Bun.connect({
    hostname,
    port: Number(port),
    socket: {
      data(_socket, bytes) {
        received += bytes.toString("latin1");
      },
      close: () => end(),
      error: () => end(),
    },
  });
  const timer =
    trickle === "" ? undefined : setInterval(() => socket.write(trickle[position++ % trickle.length] ?? ""), everyMs);
  function end(): void {
    clearInterval(timer);
    resolve(performance.now() - began);
  }
  if (first !== "") socket.write(first);
  return {
    received: () => received,
    ended,
    send: (text) => void socket.write(text),
    close: () => void socket.end(),
  };
}

const PROBE = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
const POST = "POST /api/v1/auth/refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";

/** Milliseconds that an answer of 200 at /livez takes, on a connection of its own. */
async function probe(url: string): Promise<number> {
  const began = performance.now();
  const { status } = await fetch(`${url}/livez`, { headers: { connection: "close" } });
  expect(status).toBe(200);
  return performance.now() - began;
}

/** Opens connections that hold on to half a header, until one is refused. @returns those that were opened */
async function flood(url: string, most: number): Promise<Client[]> {
  const opened: Client[] = [];
  while (opened.length < most) {
    const one = await client(url, "GET /livez HTTP/1.1\r\nX-A: ").catch(() => undefined);
    if (!one) return opened;
    opened.push(one);
  }
  return opened;
}

describe.if(possible)("a client that is slow, or too many", () => {
  // Whoever sends nothing, or a byte now and then, is not waited for: neither for a first header …
  test.concurrent.each([
    ["nothing", "", ""],
    ["a header that does not go on", "GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ", ""],
    ["a header that trickles in", "GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ", "a"],
    ["header after header that trickle in", "GET /livez HTTP/1.1\r\nHost: x\r\n", "X-A: a\r\n"],
  ])("%s: the connection is closed", async (_name, first, trickle) => {
    const { ended, received } = await client(servers.slow.url, first, trickle);
    expect(await ended).toBeLessThan(FIRST_HEADERS_MS);
    expect(received()).toBe("");
  });

  // … nor for a body, which has server.request_timeout; the answer says so.
  test.concurrent.each([
    ["a body that does not go on", "Content-Length: 100\r\n\r\n{", ""],
    ["a body that trickles in", "Content-Length: 100\r\n\r\n{", " "],
    ["a body in chunks that trickle in", "Transfer-Encoding: chunked\r\n\r\n", "1\r\n{\r\n"],
  ])("%s: 400, and the connection is closed", async (_name, rest, trickle) => {
    const { ended, received } = await client(servers.slow.url, POST + rest, trickle, 200);
    const tookMs = await ended;
    expect(tookMs).toBeGreaterThan(REQUEST_TIMEOUT_MS - 100);
    expect(tookMs).toBeLessThan(REQUEST_TIMEOUT_MS + 3000);
    const [head = "", body = ""] = received().split("\r\n\r\n");
    expect(head).toStartWith("HTTP/1.1 400");
    expect(JSON.parse(body).error.code).toBe("BAD_REQUEST");
  });

  // A body that comes in pieces and in time is none of them.
  test.concurrent("a body in two pieces is read", async () => {
    const body = '{"refresh_token":"none"}';
    const one = await client(servers.slow.url, `${POST}Content-Length: ${body.length}\r\n\r\n${body.slice(0, 9)}`);
    one.send(body.slice(9));
    await waitFor("an answer", () => one.received().includes("AUTH_TOKEN_INVALID"));
    one.close();
  });

  test.concurrent.if(FULL)("headers that trickle in after a first request: closed", async () => {
    const { ended, received } = await client(servers.slow.url, `${PROBE}GET /livez HTTP/1.1\r\nHost: x\r\nX-A: `, "a");
    expect(await ended).toBeLessThan(IDLE_MS);
    expect(received().match(/HTTP\/1\.1 200/g)).toHaveLength(1);
  });

  // Past server.max_connections, or what the limit of open files allows, new connections are refused at once instead of
  // taking what the database and the log need; what is under way goes on, and all is well when they are gone.
  test.concurrent.each([
    ["server.max_connections", "fewConnections"],
    ["the limit of open files", "fewFiles"],
  ] as const)("more than %s: refused until there is room", async (_name, which) => {
    const own = servers[which];
    const body = '{"username":"admin","password":"correct horse battery staple"}';
    const underWay = await client(
      own.url,
      `${POST.replace("refresh", "login")}Content-Length: ${body.length}\r\n\r\n${body.slice(0, 9)}`,
    );
    const events = () => logLines(own.out()).map(({ event }) => event);
    const clients: Client[] = [];
    await waitFor("new connections to be refused", async () => {
      clients.push(...(await flood(own.url, 10)));
      return events().includes("connections.full");
    });
    await expect(probe(own.url)).rejects.toThrow();

    underWay.send(body.slice(9));
    await waitFor("the answer to what was under way", () => underWay.received().startsWith("HTTP/1.1 200"));
    for (const one of clients) one.close();
    await waitFor("new connections to be accepted", () => events().includes("connections.accepted_again"));
    expect((await login(own.url)).status).toBe(200);
    expect(events().includes("connections.few_files")).toBe(which === "fewFiles");
  });
});

describe.if(possible)("many clients", () => {
  // Idle connections cost next to nothing, and whoever is not idle does not notice them.
  test(`${idle} idle connections: less than ${MAX_GROWTH_MIB} MiB, and answers as promptly as ever`, async () => {
    await probe(servers.slow.url);
    const before = await residentMiB(servers.slow.pid);
    const clients: Client[] = [];
    while (clients.length < idle) {
      clients.push(...(await Promise.all(Array.from({ length: 100 }, () => client(servers.slow.url, PROBE)))));
    }
    await waitFor("all to be answered", () => clients.every((one) => one.received().includes("200 OK")));
    const growth = (await residentMiB(servers.slow.pid)) - before;
    const tookMs: number[] = [];
    for (let round = 0; round < 10; round++) tookMs.push(await probe(servers.slow.url));
    expect((await login(servers.slow.url)).status).toBe(200);
    expect(growth).toBeLessThan(MAX_GROWTH_MIB);
    expect(Math.max(...tookMs)).toBeLessThan(PROMPT_MS);
    for (const one of clients) one.close();
    tableRow(
      `${idle} idle connections, slow headers and bodies`,
      `less than ${MAX_GROWTH_MIB} MiB more, probes within ${PROMPT_MS} ms, whoever is slow is cut off`,
      `${growth} MiB more, probes in ${Math.round(Math.max(...tookMs))} ms at most`,
    );
  });
});
