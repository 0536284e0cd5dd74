import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { openPostgresAt } from "../support/database.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import { canRun, initHome, login, type Server, scratchFolder, serve, waitFor } from "./processes.ts";

const possible = canRun(whyNoPostgres(), "drill of a feed of changes that hangs");
const REVOKED_WITHIN_MS = 1500; // a second, and what two processes on a busy machine take

const scratch = scratchFolder();
let postgres: OwnPostgres;
let nodes: Server[] = [];
let variables: Record<string, string>;
const home = join(scratch.path, "home");
beforeAll(async () => {
  if (!possible) return;
  postgres = await ownPostgres();
  variables = { DATABASE_URL: postgres.url, PRIMER_SERVER__PUBLIC_URL: "http://primer.test" };
  await initHome(home, variables);
  nodes = [await serve(home, variables), await serve(home, variables)];
}, 60_000);
afterAll(async () => {
  if (!possible) return;
  await Promise.all(nodes.map((node) => node.kill()));
  await postgres.remove();
  scratch.remove();
});

const statusOn = async (node: Server | undefined, token: string) =>
  (await fetch(`${node?.url}/api/v1/auth/verify`, { headers: { authorization: `Bearer ${token}` } })).status;

async function loggedIn(): Promise<string> {
  const { access_token } = (await login(nodes[0]?.url ?? "")).body;
  for (const node of nodes) expect(await statusOn(node, access_token)).toBe(200);
  return access_token;
}

async function logOut(token: string): Promise<void> {
  const headers = { authorization: `Bearer ${token}` };
  const { status } = await fetch(`${nodes[0]?.url}/api/v1/auth/logout`, { method: "POST", headers });
  expect(status).toBe(204);
}

/** The processes of PostgreSQL that tell primer of changes. */
async function listeners(): Promise<number[]> {
  const db = await openPostgresAt(postgres.url);
  const rows = await db.query<{ pid: number }>("SELECT pid FROM pg_stat_activity WHERE query ILIKE 'listen %'");
  await db.close();
  return rows.map(({ pid }) => pid);
}

// A logout is a logout on every node, also while nothing tells the nodes of it.
describe("the feed of changes", () => {
  test.if(possible)("hangs without a sign: a logout counts elsewhere within a second all the same", async () => {
    const token = await loggedIn();
    const frozen = await listeners();
    expect(frozen.length).toBeGreaterThanOrEqual(nodes.length);
    for (const pid of frozen) process.kill(pid, "SIGSTOP");
    try {
      await logOut(token);
      const took = await waitFor("refusal", async () => (await statusOn(nodes[1], token)) === 401, 5000);
      process.stderr.write(`measured: with a frozen feed a logout counted elsewhere after ${Math.round(took)} ms\n`);
      expect(took).toBeLessThan(REVOKED_WITHIN_MS);
      // Sessions go on being served, from their rows; and another feed is opened.
      expect(await statusOn(nodes[1], await loggedIn())).toBe(200);
      await waitFor("word of it in the log", () => nodes[1]?.out().includes("changes.not_heard") ?? false, 10_000);
    } finally {
      for (const pid of frozen) process.kill(pid, "SIGCONT");
    }
    await waitFor("changes being heard of again", () => nodes[1]?.out().includes("changes.heard") ?? false, 10_000);
  });

  test.if(possible)("is cut: the same, and it comes back by itself", async () => {
    const token = await loggedIn();
    for (const pid of await listeners()) process.kill(pid, "SIGTERM");
    await logOut(token);
    const took = await waitFor("refusal", async () => (await statusOn(nodes[1], token)) === 401, 5000);
    expect(took).toBeLessThan(REVOKED_WITHIN_MS);
    await waitFor("both nodes listening again", async () => (await listeners()).length >= nodes.length);
  });

  test.if(possible)("works: a logout counts elsewhere at once", async () => {
    const token = await loggedIn();
    await logOut(token);
    const took = await waitFor("refusal", async () => (await statusOn(nodes[1], token)) === 401, 5000);
    process.stderr.write(`measured: a logout counted on another node after ${Math.round(took)} ms\n`);
    expect(took).toBeLessThan(REVOKED_WITHIN_MS);
    // And it stays one: nothing of it is kept in a process alone.
    await nodes[1]?.kill();
    nodes[1] = await serve(home, variables);
    expect(await statusOn(nodes[1], token)).toBe(401);
  });
});
