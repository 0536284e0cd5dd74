/**
 * Sends a load to a server from a process of its own: `bun generate-load.ts` with a Load as JSON on standard input; it
 * answers a Report. Each request has its time in a schedule and is sent then, whatever became of those before it; its
 * latency counts from there, so that a slow server cannot make the load lighter, nor its own slowness unseen.
 */
import type { Kind, Load, Report, Seen, Session } from "../load.ts";

const load: Load = await Bun.stdin.json();
const { url, durationMs, usernames, password } = load;
const DEADLINE_MS = 10_000;

const kinds: Record<Kind, Seen> = {
  login: nothing(),
  refresh: nothing(),
  verify: nothing(),
  livez: nothing(),
  introspect: nothing(),
  logout: nothing(),
};
const sessions: Session[] = [...load.sessions];
const busy = new Set<Session>();
/** How many requests are under way that show a session's access token. */
const shown = new Map<Session, number>();
let requests = 0;

function nothing(): Seen {
  return { scheduled: 0, latencies: {}, lateness: [], withoutRetryAfter: 0, failures: [] };
}

const json = { "content-type": "application/json" };
const form = { "content-type": "application/x-www-form-urlencoded" };
const post = (path: string, body: unknown) =>
  fetch(url + path, {
    method: "POST",
    headers: body instanceof URLSearchParams ? form : json,
    body: body instanceof URLSearchParams ? body.toString() : JSON.stringify(body),
    signal: AbortSignal.timeout(DEADLINE_MS),
  });

/** Takes out the session that was refreshed the longest time ago; where all wait for an answer, the first that has it. */
async function takeSession(isFree: (session: Session) => boolean): Promise<Session> {
  const until = performance.now() + DEADLINE_MS;
  while (performance.now() < until) {
    const free = sessions.findIndex((session) => !busy.has(session) && isFree(session));
    const [session] = free < 0 ? [] : sessions.splice(free, 1);
    if (session) return session;
    await Bun.sleep(1);
  }
  throw new Error(`No session was free within ${DEADLINE_MS} ms`);
}

/** A request with the access token of one session after the other; none of them is ended meanwhile. */
async function showToken(ask: (accessToken: string) => Promise<Response>): Promise<Response> {
  const session = sessions[requests++ % sessions.length];
  if (!session) throw new Error("There is no session to ask with");
  shown.set(session, (shown.get(session) ?? 0) + 1);
  try {
    return await ask(session.access_token);
  } finally {
    const left = (shown.get(session) ?? 1) - 1;
    if (left > 0) shown.set(session, left);
    else shown.delete(session);
  }
}

const SEND: Record<Kind, () => Promise<Response>> = {
  async login() {
    const username = usernames[requests++ % usernames.length];
    const response = await post("/api/v1/auth/login", { username, password });
    if (response.status === 200 && load.keepSessions) sessions.unshift((await response.clone().json()) as Session);
    return response;
  },
  async refresh() {
    const session = await takeSession(() => true);
    sessions.push(session);
    busy.add(session);
    try {
      const response = await post("/api/v1/auth/refresh", { refresh_token: session.refresh_token });
      if (response.status === 200) Object.assign(session, await response.clone().json());
      return response;
    } finally {
      busy.delete(session);
    }
  },
  verify: () =>
    showToken((token) =>
      fetch(`${url}/api/v1/auth/verify`, {
        headers: { authorization: `Bearer ${token}` },
        signal: AbortSignal.timeout(DEADLINE_MS),
      }),
    ),
  introspect: () =>
    showToken((token) => {
      const { id = "", client_secret = "" } = load.client ?? {};
      return post("/oauth2/introspect", new URLSearchParams({ token, client_id: id, client_secret }));
    }),
  async logout() {
    const { refresh_token } = await takeSession((session) => !shown.has(session));
    return post("/api/v1/auth/logout", { refresh_token });
  },
  livez: () => fetch(`${url}/livez`, { signal: AbortSignal.timeout(DEADLINE_MS) }),
};

/** @param dueAt when it was to be sent, by `performance.now()` */
async function send(kind: Kind, dueAt: number): Promise<void> {
  const seen = kinds[kind];
  seen.scheduled++;
  seen.lateness.push(performance.now() - dueAt);
  try {
    const response = await SEND[kind]();
    await response.arrayBuffer();
    const latencies = seen.latencies[response.status] ?? [];
    seen.latencies[response.status] = latencies;
    latencies.push(performance.now() - dueAt);
    if (response.status === 503 && !response.headers.has("retry-after")) seen.withoutRetryAfter++;
  } catch (error) {
    seen.failures.push(String(error));
  }
}

const began = performance.now();
let stopped = false;
process.on("SIGTERM", () => {
  stopped = true;
});
const isOver = () => stopped || performance.now() - began >= durationMs;
const underWay = new Set<Promise<void>>();
const track = (sent: Promise<void>) => {
  underWay.add(sent);
  void sent.finally(() => underWay.delete(sent));
};

/** One after the other, as fast as they are answered. */
async function closedLoop(kind: Kind): Promise<void> {
  while (!isOver()) await send(kind, performance.now());
}

async function openLoop(): Promise<void> {
  const schedules = Object.entries(load.perSecond).map(([kind, rate]) => ({ kind: kind as Kind, rate, sent: 0 }));
  while (!isOver()) {
    const now = performance.now() - began;
    for (const schedule of schedules) {
      while ((schedule.sent / schedule.rate) * 1000 <= now) {
        track(send(schedule.kind, began + (schedule.sent++ / schedule.rate) * 1000));
      }
    }
    await Bun.sleep(1);
  }
}

await Promise.all([openLoop(), ...Array.from({ length: load.loginsAtATime ?? 0 }, () => closedLoop("login"))]);
const tookMs = Math.min(durationMs, performance.now() - began);
await Promise.all(underWay);
const report: Report = { tookMs, kinds, sessions };
process.stdout.write(JSON.stringify(report));
