import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { openPglite } from "../../db/pglite.ts";
import {
  expectAuditWhole,
  FULL,
  initHome,
  inShort,
  login,
  refresh,
  residentMiB,
  type Server,
  scratchFolder,
  serve,
  waitFor,
} from "./processes.ts";
import { tableRow } from "./table.ts";

const KILLS = FULL ? 20 : 1;
const CLIENTS = 4;
/** Logins and refreshes that are acknowledged before each kill. */
const WRITES = FULL ? 500 : 40;
const READY_WITHIN_MS = FULL ? 3000 : 20_000;
inShort(
  `${KILLS} kill, after ${WRITES} acknowledged writes; 20 with TEST_FULL, each after 500; ready within 20 s, 3 s there`,
);

const scratch = scratchFolder();
afterAll(() => scratch.remove());

/** A session as its client knows it: the newest refresh token that it was given. */
interface Known {
  readonly id: string;
  token: string;
  refreshes: number;
}

const acknowledged = (known: readonly Known[]) => known.reduce((total, { refreshes }) => total + 1 + refreshes, 0);

/** Logs in and refreshes without pause, until the server is gone. */
async function clientOf(server: Server, known: Known[]): Promise<void> {
  try {
    for (;;) {
      const answer = await login(server.url);
      expect(answer.status).toBe(200);
      const session = { id: answer.body.session_id, token: answer.body.refresh_token, refreshes: 0 };
      known.push(session);
      for (let times = 0; times < 3; times++) {
        const next = await refresh(server.url, session.token);
        expect(next.status).toBe(200);
        session.token = next.body.refresh_token;
        session.refreshes++;
      }
    }
  } catch (error) {
    if (server.running() && !(error instanceof TypeError) && (error as { code?: string }).code === undefined)
      throw error;
  }
}

// However the server dies, whoever was told that they are logged in still is: the session is there, and the newest
// refresh token works, even where the answer to a refresh was lost on the way.
describe("a server killed under load", () => {
  test(`${KILLS} times: no acknowledged login or refresh is lost, and it is ready again within 3 s`, async () => {
    const home = join(scratch.path, "home");
    await initHome(home);
    let server = await serve(home);
    let sessions = 0;
    let writes = 0;
    let slowest = 0;
    let memory = 0;
    for (let round = 0; round < KILLS; round++) {
      const known: Known[] = [];
      const clients = Promise.all(Array.from({ length: CLIENTS }, () => clientOf(server, known)));
      await waitFor("writes", () => acknowledged(known) >= WRITES, 120_000);
      await Bun.sleep(Math.random() * 200);
      memory = Math.max(memory, await residentMiB(server.pid));
      await server.kill();
      await clients;

      server = await serve(home);
      expect(server.readyAfterMs).toBeLessThan(READY_WITHIN_MS);
      slowest = Math.max(slowest, server.readyAfterMs);
      const retried = await Promise.all(known.map((session) => refresh(server.url, session.token)));
      expect(retried.map(({ status, body }) => [status, body.session_id])).toEqual(known.map(({ id }) => [200, id]));
      expect(known.some((session) => session.refreshes > 0)).toBe(true);
      sessions += known.length;
      writes += acknowledged(known);
    }
    await server.kill();
    await expectAuditWhole(home);
    const db = await openPglite(home);
    const [row] = await db.query<{ count: number }>("SELECT count(*)::int AS count FROM sessions");
    await db.close();
    expect(row?.count).toBeGreaterThanOrEqual(sessions);
    tableRow(
      "D1 the server killed under load, embedded database",
      "no acknowledged login or refresh is lost, a refresh whose answer was lost can be sent again, ready again within 3 s",
      `${KILLS} kills, 0 of ${writes} acknowledged writes lost in ${sessions} sessions, ready again in ${Math.round(slowest)} ms at most, ${memory} MiB under load`,
    );
  });
});
