/** A reverse proxy as it stands before several nodes: it asks each whether it is ready, and sends to those that are. */

const LOOK_EVERY_MS = 200;
/** A node gets no more requests once it has been seen not to be ready so many times in a row. */
const FALL = 3;
const NOT_SENT: ReadonlySet<unknown> = new Set(["ConnectionRefused", "ECONNREFUSED"]);

export interface ReverseProxy {
  readonly url: string;
  /** The nodes as they are now; one that is put here gets requests once it is ready. */
  nodes: readonly string[];
  /** Those that get requests now. */
  ready(): readonly string[];
  /** Why requests were answered 502. */
  readonly failures: readonly string[];
  /** How many requests were sent a second time, since the first node had refused the connection. */
  retried(): number;
  stop(): void;
}

export function startProxy(first: readonly string[]): ReverseProxy {
  let nodes = first;
  const ready = new Set<string>();
  const fallen = new Map<string, number>();
  const failures: string[] = [];
  let turn = 0;
  let retried = 0;
  const looking = setInterval(() => {
    for (const node of nodes) void look(node);
  }, LOOK_EVERY_MS);

  async function look(node: string): Promise<void> {
    const isReady = await readiness(node);
    const times = isReady ? 0 : (fallen.get(node) ?? 0) + 1;
    fallen.set(node, times);
    if (isReady && nodes.includes(node)) ready.add(node);
    if (times >= FALL) ready.delete(node);
  }

  function failed(why: string): Response {
    failures.push(why);
    return new Response(why, { status: 502 });
  }

  async function handle(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    const body = request.method === "GET" ? null : await request.arrayBuffer();
    const headers = new Headers(request.headers);
    headers.delete("host");
    const tried: string[] = [];
    for (;;) {
      const left = [...ready].filter((node) => !tried.includes(node));
      const node = left[turn++ % left.length];
      if (node === undefined) return failed("No node is ready");
      try {
        return await fetch(node + pathname + search, { method: request.method, headers, body, redirect: "manual" });
      } catch (error) {
        // Whatever a node may have read is not sent again: it may have been done.
        if (!NOT_SENT.has((error as { code?: unknown }).code)) return failed(`${node}: ${String(error)}`);
        tried.push(node);
        retried++;
      }
    }
  }

  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", idleTimeout: 60, fetch: handle });
  return {
    url: `http://127.0.0.1:${server.port}`,
    get nodes() {
      return nodes;
    },
    set nodes(now) {
      nodes = now;
      for (const node of ready) if (!now.includes(node)) ready.delete(node);
    },
    ready: () => [...ready],
    failures,
    retried: () => retried,
    stop() {
      clearInterval(looking);
      server.stop(true);
    },
  };
}

const readiness = (node: string): Promise<boolean> =>
  fetch(`${node}/readyz`, { headers: { connection: "close" }, signal: AbortSignal.timeout(1000) }).then(
    ({ status }) => status === 200,
    () => false,
  );
