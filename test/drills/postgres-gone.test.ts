import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { openPostgresAt } from "../support/database.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import {
  type Answer,
  canRun,
  expectAuditWhole,
  FULL,
  initHome,
  inShort,
  login,
  logLines,
  refresh,
  residentMiB,
  type Server,
  scratchFolder,
  send,
  serve,
  waitFor,
} from "./processes.ts";
import { tableRow } from "./table.ts";

const possible = canRun(whyNoPostgres(), "drill of a PostgreSQL that goes away");
const GONE_MS = FULL ? 30_000 : 2500;
/** Longer than our own deadlines are, so that they are what ends the wait. */
const FROZEN_MS = FULL ? 28_000 : 4000;
/** For how long sessions are believed while PostgreSQL is away. */
const STALE_MS = FULL ? 10_000 : 1800;
inShort(
  `PostgreSQL is away for ${GONE_MS / 1000} s and frozen for ${FROZEN_MS / 1000} s, about 30 s each with TEST_FULL`,
);
/** A session is believed from the last proof on that it has not changed, which comes every quarter of a second. */
const PROOF_MS = 500;
const ANSWERS_WITHIN_MS = 1000;
const BACK_WITHIN_MS = 10_000;
const MOST_GROWTH_MIB = 50;
/** The pool, and one that hears of changes and one that proves that it hears. */
const MOST_CONNECTIONS = 10 + 2;

const scratch = scratchFolder();
const home = join(scratch.path, "home");
let postgres: OwnPostgres;
let variables: Record<string, string>;
beforeAll(async () => {
  if (!possible) return;
  postgres = await ownPostgres();
  variables = { DATABASE_URL: postgres.url };
  await initHome(home, variables);
}, 60_000);
afterAll(async () => {
  if (!possible) return;
  await postgres.remove();
  scratch.remove();
});

/** Runs a drill on a server of its own, with somebody logged in whose session it has seen. */
async function withServer<T>(
  more: Record<string, string>,
  drill: (server: Server, tokens: Tokens) => Promise<T>,
): Promise<T> {
  const server = await serve(home, { ...variables, ...more });
  try {
    const tokens: Tokens = (await login(server.url)).body;
    expect((await verify(server, tokens)).status).toBe(200);
    const seen = await drill(server, tokens);
    await expectAuditWhole(home, variables);
    return seen;
  } finally {
    await server.kill();
  }
}

interface Tokens {
  readonly access_token: string;
  readonly refresh_token: string;
}

const bearer = ({ access_token }: Tokens) => ({ authorization: `Bearer ${access_token}` });
const get = (server: Server, path: string, headers: Record<string, string> = {}) =>
  send(server.url + path, { headers });
const verify = (server: Server, tokens: Tokens) => get(server, "/api/v1/auth/verify", bearer(tokens));
const statusOf = async (server: Server, path: string) => (await get(server, path)).status;

function expectUnavailable(answer: Answer): void {
  expect([answer.status, answer.body?.error?.code]).toEqual([503, "SERVICE_UNAVAILABLE"]);
  const retryAfter = Number(answer.headers.get("retry-after"));
  expect(retryAfter).toBeGreaterThanOrEqual(1);
  expect(retryAfter).toBeLessThanOrEqual(5);
}

interface Timed {
  readonly sentAt: number;
  readonly tookMs: number;
}
const slowestOf = (answers: readonly Timed[]) => Math.round(Math.max(0, ...answers.map(({ tookMs }) => tookMs)));

/** Sends what needs the database for as long: each is told to come back. */
async function unavailableFor(server: Server, durationMs: number, tokens: Tokens): Promise<Timed[]> {
  const began = performance.now();
  const answers: Timed[] = [];
  const sendUntilDone = async (ask: () => Promise<Answer>) => {
    do {
      const sentAt = performance.now();
      const answer = await ask();
      expectUnavailable(answer);
      answers.push({ sentAt, tookMs: answer.tookMs });
      await Bun.sleep(50);
    } while (performance.now() - began < durationMs);
  };
  const kinds = [
    () => login(server.url),
    () => refresh(server.url, tokens.refresh_token),
    () => send(`${server.url}/api/v1/auth/logout`, { method: "POST", headers: bearer(tokens) }),
    () => get(server, "/api/v1/users/me/sessions", bearer(tokens)),
  ];
  await Promise.all([...kinds, ...kinds, ...kinds].map(sendUntilDone));
  return answers;
}

/** Asks again and again who a token belongs to. @returns for how long that was answered, and how slow it was at most */
async function verifiedFor(server: Server, durationMs: number, tokens: Tokens) {
  const began = performance.now();
  const seen: (Timed & { readonly status: number })[] = [];
  while (performance.now() - began < durationMs) {
    const sentAt = performance.now();
    const answer = await verify(server, tokens);
    if (answer.status !== 200) expectUnavailable(answer);
    seen.push({ sentAt, status: answer.status, tookMs: answer.tookMs });
    await Bun.sleep(50);
  }
  const refused = seen.findIndex(({ status }) => status === 503);
  // Once it has ended it does not begin again.
  expect(seen.slice(refused < 0 ? seen.length : refused).every(({ status }) => status === 503)).toBe(true);
  const until = refused < 0 ? durationMs : (seen[refused]?.sentAt ?? 0) - began;
  return { verifiedMs: Math.round(until), slowest: slowestOf(seen) };
}

async function expectProbes(server: Server): Promise<void> {
  for (const path of ["/livez", "/api/v1/health", "/.well-known/jwks.json", "/docs"]) {
    expect([path, await statusOf(server, path)]).toEqual([path, 200]);
  }
  await waitFor("no readiness", async () => (await statusOf(server, "/readyz")) === 503, 2000);
}

/** Whoever may look sees what is wrong, also while the session that asks cannot be read. */
async function expectSeen(server: Server, tokens: Tokens): Promise<void> {
  const breaker = async () =>
    (await get(server, "/api/v1/monitoring/circuit-breakers", bearer(tokens))).body.circuit_breakers?.database;
  await waitFor("an open breaker", async () => (await breaker())?.state === "open", 6000);
  const { failure_count, last_failure, next_attempt } = await breaker();
  expect(failure_count).toBeGreaterThanOrEqual(5);
  expect(Date.parse(last_failure)).toBeWithin(Date.now() - 10_000, Date.now() + 1);
  if (next_attempt !== null) expect(Date.parse(next_attempt)).toBeWithin(Date.now() - 1000, Date.now() + 1001);
  const { body, tookMs } = await get(server, "/api/v1/monitoring/health", bearer(tokens));
  expect([body.status, body.dependencies.database.latency_ms]).toEqual(["unhealthy", null]);
  expect(tookMs).toBeLessThan(2 * ANSWERS_WITHIN_MS);
}

/** A service that asks about tokens. */
async function newClient(server: Server, tokens: Tokens) {
  const { body } = await send(`${server.url}/api/v1/clients`, {
    method: "POST",
    headers: { ...bearer(tokens), "content-type": "application/json" },
    body: JSON.stringify({ name: `service-${crypto.randomUUID().slice(0, 8)}` }),
  });
  const authorization = `Basic ${btoa(`${body.id}:${body.client_secret}`)}`;
  const ask = (path: string, token: string) =>
    send(`${server.url}/oauth2/${path}`, {
      method: "POST",
      headers: { authorization, "content-type": "application/x-www-form-urlencoded" },
      body: new URLSearchParams({ token }).toString(),
    });
  expect((await ask("introspect", tokens.access_token)).body.active).toBe(true);
  return ask;
}

async function expectBack(server: Server, tokens: Tokens): Promise<string> {
  const back = await waitFor("a login", async () => (await login(server.url)).status === 200, BACK_WITHIN_MS);
  await waitFor("readiness", async () => (await statusOf(server, "/readyz")) === 200, 2000);
  expect((await verify(server, tokens)).status).toBe(200);
  expect((await refresh(server.url, tokens.refresh_token)).status).toBe(200);
  expect(server.running()).toBe(true);
  const many = await Promise.all(Array.from({ length: 30 }, () => login(server.url)));
  expect(many.filter(({ status }) => status !== 200 && status !== 503)).toEqual([]);
  const db = await openPostgresAt(postgres.url);
  // The one that counts is called primer too.
  const sql =
    "SELECT count(*)::int AS count FROM pg_stat_activity WHERE application_name = 'primer' AND pid <> pg_backend_pid()";
  const count = async () => (await db.query<{ count: number }>(sql))[0]?.count ?? 0;
  const few = waitFor("few connections", async () => (await count()) <= MOST_CONNECTIONS, BACK_WITHIN_MS);
  const tookMs = await few.finally(db.close);
  return `back after ${Math.round(back)} ms, as few connections as ever after ${Math.round(tookMs)} ms more`;
}

const eventsOf = (server: Server, event: string) =>
  logLines(server.out()).filter((line) => line.event === event).length;

// While the database is away, callers are told so soon and in a way that makes them come back; what needs no database
// goes on, and so do for a while the sessions that were just seen; and once it is there again, so is everything else,
// without a restart.
describe("PostgreSQL goes away", () => {
  test.if(possible)("crashed and started again: 503 within a second, back within 10 s", () =>
    withServer({ PRIMER_RESILIENCE__VERIFY_STALE: `${STALE_MS}ms` }, async (server, tokens) => {
      const ask = await newClient(server, tokens);
      const before = await residentMiB(server.pid);
      await postgres.crash();
      const [answers, { verifiedMs, slowest }] = await Promise.all([
        unavailableFor(server, GONE_MS, tokens),
        verifiedFor(server, GONE_MS, tokens),
        expectSeen(server, tokens),
        expectProbes(server),
        // The one thing that is asked of a token and not of its session's row; whatever changes something waits.
        ask("introspect", tokens.access_token).then(({ body }) => expect(body.active).toBe(true)),
        ask("introspect", tokens.refresh_token).then(({ status }) => expect(status).toBe(503)),
        ask("revoke", tokens.access_token).then(({ status }) => expect(status).toBe(503)),
      ]).finally(postgres.start);
      const grown = (await residentMiB(server.pid)) - before;
      const back = await expectBack(server, tokens);
      tableRow(
        `D5 PostgreSQL crashed for ${GONE_MS / 1000} s`,
        "what needs it 503 with Retry-After within 1 s; JWKS, livez and seen sessions go on; readyz 503; back within 10 s; under 50 MiB more",
        `${answers.length} answers in ${slowestOf(answers)} ms at most, ${grown} MiB more; a seen session verified for ${verifiedMs} ms of ${STALE_MS} ms in ${slowest} ms at most; ${back}`,
      );
      expect(slowestOf(answers)).toBeLessThan(ANSWERS_WITHIN_MS);
      expect(slowest).toBeLessThan(2 * ANSWERS_WITHIN_MS);
      expect(verifiedMs).toBeWithin(STALE_MS - PROOF_MS, STALE_MS + PROOF_MS);
      if (FULL) expect(grown).toBeLessThan(MOST_GROWTH_MIB);
      for (const event of ["breaker.opened", "breaker.closed"])
        expect([event, eventsOf(server, event)]).toEqual([event, 1]);
      expect(eventsOf(server, "verify.stale")).toBe(2);
      expect(eventsOf(server, "request.unavailable")).toBeGreaterThan(0);
      expect(eventsOf(server, "request.failed")).toBe(0);
    }),
  );

  // A server that hangs refuses nothing: only our own deadlines end the wait, and once that has happened a few times
  // nobody waits any more.
  test.if(possible)("frozen and thawed: 503 within 3 s, then at once; back within 10 s", () =>
    withServer({}, async (server, tokens) => {
      const before = await residentMiB(server.pid);
      await postgres.freeze();
      let openedAt = Number.POSITIVE_INFINITY;
      const [answers, { verifiedMs, slowest }] = await Promise.all([
        unavailableFor(server, FROZEN_MS, tokens),
        verifiedFor(server, FROZEN_MS, tokens),
        server
          .until((out) => out.includes("breaker.opened"))
          .then(() => {
            openedAt = performance.now();
          }),
        expectSeen(server, tokens),
        expectProbes(server),
      ]).finally(postgres.thaw);
      const later = slowestOf(answers.filter(({ sentAt }) => sentAt > openedAt));
      const grown = (await residentMiB(server.pid)) - before;
      const back = await expectBack(server, tokens);
      tableRow(
        `D6 PostgreSQL frozen for ${FROZEN_MS / 1000} s`,
        "503 within 3 s, and within 1 s once the breaker is open; under 50 MiB more; connections at most the pool after; back within 10 s",
        `${answers.length} answers in ${slowestOf(answers)} ms at most, ${later} ms once the breaker was open, ${grown} MiB more; a seen session verified for ${verifiedMs} ms in ${slowest} ms at most; ${back}`,
      );
      expect(slowestOf(answers)).toBeLessThan(3500);
      expect(later).toBeLessThan(ANSWERS_WITHIN_MS); // nobody waits in order to find out whether it is back
      expect(verifiedMs).toBe(FROZEN_MS);
      expect(slowest).toBeLessThan(2 * ANSWERS_WITHIN_MS);
      if (FULL) expect(grown).toBeLessThan(MOST_GROWTH_MIB);
      expect(eventsOf(server, "request.failed")).toBe(0);
    }),
  );

  // Whoever allows nothing from memory gets nothing from memory: a second after the last proof nobody is believed.
  test.if(possible)("verify_stale = 0s: a seen session is refused with 503", () =>
    withServer({ PRIMER_RESILIENCE__VERIFY_STALE: "0s" }, async (server, tokens) => {
      await postgres.crash();
      try {
        await waitFor("refusal", async () => (await verify(server, tokens)).status === 503, 1000 + PROOF_MS);
        expectUnavailable(await verify(server, tokens));
        expectUnavailable(await get(server, "/api/v1/monitoring/health", bearer(tokens)));
        expect(eventsOf(server, "verify.stale")).toBe(0);
      } finally {
        await postgres.start();
      }
      await waitFor("verification", async () => (await verify(server, tokens)).status === 200, BACK_WITHIN_MS);
      expect((await login(server.url)).status).toBe(200);
    }),
  );
});
