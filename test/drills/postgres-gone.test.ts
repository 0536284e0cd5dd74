import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import {
  type Answer,
  canRun,
  FULL,
  initHome,
  inShort,
  login,
  logLines,
  refresh,
  type Server,
  scratchFolder,
  serve,
  waitFor,
} from "./processes.ts";

const possible = canRun(whyNoPostgres(), "drill of a PostgreSQL that goes away");
const GONE_MS = FULL ? 30_000 : 3000;
/** Longer than our own deadlines are, so that they are what ends the wait. */
const FROZEN_MS = FULL ? 30_000 : 5000;
inShort(`PostgreSQL is away for ${GONE_MS / 1000} s and frozen for ${FROZEN_MS / 1000} s, 30 s each with TEST_FULL`);
const ANSWERS_WITHIN_MS = 2000;
const BACK_WITHIN_MS = 10_000;

const scratch = scratchFolder();
let postgres: OwnPostgres;
let server: Server;
beforeAll(async () => {
  if (!possible) return;
  postgres = await ownPostgres();
  const variables = { DATABASE_URL: postgres.url };
  await initHome(join(scratch.path, "home"), variables);
  server = await serve(join(scratch.path, "home"), variables);
}, 60_000);
afterAll(async () => {
  if (!possible) return;
  await server.kill();
  await postgres.remove();
  scratch.remove();
});

function expectUnavailable(answer: Answer): void {
  expect([answer.status, answer.body?.error?.code]).toEqual([503, "SERVICE_UNAVAILABLE"]);
  const retryAfter = Number(answer.headers.get("retry-after"));
  expect(retryAfter).toBeGreaterThanOrEqual(1);
  expect(retryAfter).toBeLessThanOrEqual(60);
}

const statusOf = async (path: string) => (await fetch(server.url + path, { signal: AbortSignal.timeout(5000) })).status;

/** Sends logins and refreshes for as long; answers the longest that one took. */
async function unavailableFor(durationMs: number, token: string): Promise<number> {
  const began = performance.now();
  let slowest = 0;
  const client = async (send: () => Promise<Answer>) => {
    do {
      const answer = await send();
      expectUnavailable(answer);
      slowest = Math.max(slowest, answer.tookMs);
      await Bun.sleep(50);
    } while (performance.now() - began < durationMs);
  };
  const senders = [0, 1, 2].flatMap(() => [() => login(server.url), () => refresh(server.url, token)]);
  await Promise.all(senders.map(client));
  return slowest;
}

async function expectProbes(): Promise<void> {
  for (const path of ["/livez", "/api/v1/health", "/.well-known/jwks.json"]) {
    expect([path, await statusOf(path)]).toEqual([path, 200]);
  }
  await waitFor("no readiness", async () => (await statusOf("/readyz")) === 503, ANSWERS_WITHIN_MS);
}

async function expectBack(token: string): Promise<number> {
  const back = await waitFor("a login", async () => (await login(server.url)).status === 200, BACK_WITHIN_MS);
  await waitFor("readiness", async () => (await statusOf("/readyz")) === 200, ANSWERS_WITHIN_MS);
  expect((await refresh(server.url, token)).status).toBe(200);
  expect(server.running()).toBe(true);
  return back;
}

// While the database is away, callers are told so soon and in a way that makes them come back; what needs no database
// goes on; and once it is there again, so is everything else, without a restart.
describe("PostgreSQL goes away", () => {
  test.if(possible)("crashed and started again: 503 within 2 s, back within 10 s", async () => {
    const { refresh_token } = (await login(server.url)).body;
    await postgres.crash();
    const [slowest] = await Promise.all([unavailableFor(GONE_MS, refresh_token), expectProbes()]).finally(
      postgres.start,
    );
    const back = await expectBack(refresh_token);
    process.stderr.write(
      `measured: without PostgreSQL answered in ${Math.round(slowest)} ms at most, back after ${Math.round(back)} ms\n`,
    );
    expect(slowest).toBeLessThan(ANSWERS_WITHIN_MS);
    expect(logLines(server.out()).some((line) => line.event === "request.unavailable")).toBe(true);
    expect(logLines(server.out()).some((line) => line.event === "request.failed")).toBe(false);
  });

  // A server that hangs refuses nothing: only our own deadlines end the wait.
  test.if(possible)("frozen and thawed: 503 within 5 s, back within 10 s", async () => {
    const { refresh_token } = (await login(server.url)).body;
    await postgres.freeze();
    const [slowest] = await Promise.all([unavailableFor(FROZEN_MS, refresh_token), expectProbes()]).finally(
      postgres.thaw,
    );
    const back = await expectBack(refresh_token);
    process.stderr.write(
      `measured: with PostgreSQL frozen answered in ${Math.round(slowest)} ms at most, back after ${Math.round(back)} ms\n`,
    );
    expect(slowest).toBeLessThan(5000);
  });
});
