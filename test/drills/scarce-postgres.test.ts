import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import connect from "postgres";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import {
  ADMIN_PASSWORD,
  type Answer,
  canRun,
  FULL,
  initHome,
  inShort,
  login,
  logLines,
  post,
  primer,
  refresh,
  type Server,
  scratchFolder,
  send,
  serve,
} from "./processes.ts";
import { tableRow } from "./table.ts";

const possible = canRun(whyNoPostgres(), "drill of a PostgreSQL that has little to give");
const HELD_MS = FULL ? 60_000 : 1000;
inShort(`connections and a row are held for ${HELD_MS / 1000} s, 60 s with TEST_FULL and for more people`);
const MAX_CONNECTIONS = 30;
/** More than there will be. */
const POOL = 20;
/** What is left of them for the server, beside those that it has. */
const LEFT = 2;
/** The longest that a request of whoever is held up takes, and one of anybody else. */
const HELD_UP_WITHIN_MS = 3000;
const OTHERS_WITHIN_MS = 2000;

const scratch = scratchFolder();
let postgres: OwnPostgres;
let server: Server;
beforeAll(async () => {
  if (!possible) return;
  postgres = await ownPostgres({ settings: { max_connections: String(MAX_CONNECTIONS) } });
  const home = join(scratch.path, "home");
  const variables = { DATABASE_URL: postgres.url };
  await initHome(home, variables);
  const words = ["users", "create", "ada", "--email", "ada@example.org", "--password-stdin"];
  expect((await primer(home, words, variables, ADMIN_PASSWORD).finished).exitCode).toBe(0);
  server = await serve(home, { ...variables, PRIMER_DATABASE__POOL_SIZE: String(POOL) });
}, 60_000);
afterAll(async () => {
  if (!possible) return;
  await server.kill();
  await postgres.remove();
  scratch.remove();
});

const loginOf = (username: string) => post(server.url, "/api/v1/auth/login", { username, password: ADMIN_PASSWORD });

/** Somebody goes on working: logs in, looks at where they are logged in, refreshes, leaves. */
async function work(until: number): Promise<Answer[]> {
  const answers: Answer[] = [];
  do {
    const entered = await login(server.url);
    answers.push(entered);
    if (entered.status !== 200) continue;
    const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });
    answers.push(await send(`${server.url}/api/v1/users/me/sessions`, bearer(entered.body.access_token)));
    const next = await refresh(server.url, entered.body.refresh_token);
    answers.push(next);
    if (next.status !== 200) continue;
    answers.push(await send(`${server.url}/api/v1/auth/logout`, { method: "POST", ...bearer(next.body.access_token) }));
  } while (performance.now() < until);
  return answers;
}

const workers = async (count: number, durationMs: number): Promise<Answer[]> => {
  const until = performance.now() + durationMs;
  return (await Promise.all(Array.from({ length: count }, () => work(until)))).flat();
};

const slowestOf = (answers: readonly Answer[]) => Math.round(Math.max(...answers.map(({ tookMs }) => tookMs)));

function expectUnaffected(answers: readonly Answer[]): void {
  expect(answers.filter(({ status }) => status >= 300).map(({ status, body }) => [status, body])).toEqual([]);
  expect(slowestOf(answers)).toBeLessThan(OTHERS_WITHIN_MS);
  const events = logLines(server.out()).map(({ event }) => event);
  expect(events).not.toContain("request.failed");
  expect(events).not.toContain("breaker.opened");
}

/** Runs `drill` while somebody holds the row of ada's account. */
async function withRowHeld<T>(drill: () => Promise<T>): Promise<T> {
  const holder = connect(postgres.url, { max: 1 });
  const held = await holder.reserve();
  try {
    await held.unsafe("BEGIN");
    await held.unsafe("SELECT 1 FROM users WHERE username = 'ada' FOR UPDATE");
    return await drill();
  } finally {
    await held.unsafe("ROLLBACK");
    held.release();
    await holder.end({ timeout: 1 });
  }
}

/** Runs `drill` while somebody holds every connection that is to be had but two. */
async function withConnectionsHeld<T>(drill: () => Promise<T>): Promise<T> {
  const counter = connect(postgres.url, { max: 1 });
  const [row] = await counter.unsafe(
    "SELECT count(*)::int AS count FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
  );
  await counter.end();
  const holders = connect(postgres.url, { max: MAX_CONNECTIONS - (row?.count ?? 0) - LEFT });
  try {
    await Promise.all(Array.from({ length: holders.options.max }, () => holders.reserve()));
    return await drill();
  } finally {
    await holders.end({ timeout: 1 });
  }
}

/** Ada tries to log in again and again, over so many lines at a time. */
async function adaTries(lines: number): Promise<Answer[]> {
  const until = performance.now() + HELD_MS;
  const tries = async () => {
    const answers: Answer[] = [];
    do answers.push(await loginOf("ada"));
    while (performance.now() < until);
    return answers;
  };
  return (await Promise.all(Array.from({ length: lines }, tries))).flat();
}

function expectHeldUp(answers: readonly Answer[]): void {
  for (const { status, headers, tookMs } of answers) {
    expect(status).toBe(503);
    expect(Number(headers.get("retry-after"))).toBeWithin(1, 6);
    expect(tookMs).toBeLessThan(HELD_UP_WITHIN_MS);
  }
}

// Whoever takes what there is of the database, or holds on to one row of it, holds up nobody else.
describe("PostgreSQL has little to give", () => {
  test.if(possible)("one user's row is held: that user is sent back within 3 s, nobody else waits", async () => {
    const [adas, others] = await withRowHeld(() => Promise.all([adaTries(3), workers(4, HELD_MS)]));
    expectUnaffected(others);
    expectHeldUp(adas);
    tableRow(
      `D7 one user's row held for ${HELD_MS / 1000} s`,
      "that user is answered 503 within 3 s, nobody else is affected",
      `she got ${adas.length} answers in ${slowestOf(adas)} ms at most, others ${others.length} in ${slowestOf(others)} ms at most`,
    );
    expect((await loginOf("ada")).status).toBe(200);
  });

  test.if(possible)("all connections but two are held, and that row: work goes on over those", async () => {
    const others = await withConnectionsHeld(() => workers(FULL ? 12 : 6, HELD_MS));
    expectUnaffected(others);
    tableRow(
      `D7 all but ${LEFT} connections held for ${HELD_MS / 1000} s`,
      "work goes on over those that are left",
      `${others.length} answers in ${slowestOf(others)} ms at most, none refused`,
    );
    const [adas, more] = await withRowHeld(() =>
      withConnectionsHeld(() => Promise.all([adaTries(1), workers(FULL ? 4 : 2, HELD_MS)])),
    );
    expectUnaffected(more);
    expectHeldUp(adas);
    tableRow(
      `D7 both at once for ${HELD_MS / 1000} s`,
      "that user is answered 503 within 3 s, nobody else is affected",
      `she got ${adas.length} answers in ${slowestOf(adas)} ms at most, others ${more.length} in ${slowestOf(more)} ms at most`,
    );
  });
});
