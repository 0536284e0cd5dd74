import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { openPglite } from "../../db/pglite.ts";
import {
  FULL,
  initHome,
  inShort,
  login,
  refresh,
  residentMiB,
  type Server,
  scratchFolder,
  serve,
} from "./processes.ts";

const KILLS = FULL ? 20 : 1;
const CLIENTS = 4;
const READY_WITHIN_MS = 3000;
inShort(`${KILLS} kills, 20 with TEST_FULL`);

const scratch = scratchFolder();
afterAll(() => scratch.remove());

/** A session as its client knows it: the newest refresh token that it was given. */
interface Known {
  readonly id: string;
  token: string;
  refreshes: number;
}

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
    let slowest = 0;
    let memory = 0;
    for (let round = 0; round < KILLS; round++) {
      const known: Known[] = [];
      const clients = Promise.all(Array.from({ length: CLIENTS }, () => clientOf(server, known)));
      await Bun.sleep(500 + Math.random() * 500);
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
    }
    await server.kill();
    const db = await openPglite(home);
    const [row] = await db.query<{ count: number }>("SELECT count(*)::int AS count FROM sessions");
    await db.close();
    expect(row?.count).toBeGreaterThanOrEqual(sessions);
    process.stderr.write(
      `measured: ${sessions} sessions kept, ready again in ${Math.round(slowest)} ms at most, ${memory} MiB under load\n`,
    );
  });
});
