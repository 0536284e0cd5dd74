import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { openPostgresAt } from "../support/database.ts";
import { whyNoPostgres } from "./own-postgres.ts";
import { canRun, login, primer, type Server, serve, waitFor } from "./processes.ts";
import { tableRow } from "./table.ts";
import { serveTwoNodes, type TwoNodes } from "./two-nodes.ts";

const possible = canRun(whyNoPostgres(), "drill of a feed of changes that hangs");
const PICKED_UP_WITHIN_MS = 1500;
const REVOKED_WITHIN_MS = 1500; // a second, and what two processes on a busy machine take

let installation: TwoNodes;
beforeAll(async () => {
  if (possible) installation = await serveTwoNodes({ PRIMER_TOKENS__ALGORITHM: "ES256" });
}, 60_000);
afterAll(async () => {
  if (possible) await installation.remove();
});

const statusOn = async (node: Server | undefined, token: string) =>
  (await fetch(`${node?.url}/api/v1/auth/verify`, { headers: { authorization: `Bearer ${token}` } })).status;

async function loggedIn(): Promise<string> {
  const { access_token } = (await login(installation.nodes[0]?.url ?? "")).body;
  for (const node of installation.nodes) expect(await statusOn(node, access_token)).toBe(200);
  return access_token;
}

async function logOut(token: string): Promise<void> {
  const headers = { authorization: `Bearer ${token}` };
  const { status } = await fetch(`${installation.nodes[0]?.url}/api/v1/auth/logout`, { method: "POST", headers });
  expect(status).toBe(204);
}

/** The processes of PostgreSQL that tell primer of changes. */
async function listeners(): Promise<number[]> {
  const db = await openPostgresAt(installation.postgres.url);
  const rows = await db.query<{ pid: number }>("SELECT pid FROM pg_stat_activity WHERE query ILIKE 'listen %'");
  await db.close();
  return rows.map(({ pid }) => pid);
}

/** How long another node takes to publish a key that was staged just now. */
async function keyPickedUpAfter(): Promise<number> {
  const kidsOn = async (node: Server | undefined) => {
    const { keys } = (await (await fetch(`${node?.url}/.well-known/jwks.json`)).json()) as { keys: { kid: string }[] };
    return keys.length;
  };
  const { home, variables, nodes } = installation;
  const before = await kidsOn(nodes[1]);
  const db = await openPostgresAt(installation.postgres.url);
  const staged = primer(home, ["rotate-keys"], variables);
  await waitFor("a staged key", async () => {
    const rows = await db.query("SELECT 1 FROM signing_keys WHERE state = 'next'");
    return rows.length === 1;
  });
  const took = await waitFor("the key on another node", async () => (await kidsOn(nodes[1])) === before + 1, 5000);
  await staged.finished;
  await primer(home, ["rotate-keys", "--undo"], variables).finished;
  await waitFor("its end", async () => (await kidsOn(nodes[1])) === before, 5000);
  await db.close();
  return took;
}

const row = (state: string, logoutMs: number, keyMs: number) =>
  tableRow(
    `Two nodes whose feed of changes ${state}`,
    `a logout counts on the other node within a second (${REVOKED_WITHIN_MS} ms on a busy machine), a new key within ${PICKED_UP_WITHIN_MS} ms`,
    `a logout after ${Math.round(logoutMs)} ms, a key after ${Math.round(keyMs)} ms`,
  );

// A logout is a logout on every node, also while nothing tells the nodes of it.
describe("the feed of changes", () => {
  test.if(possible)("hangs without a sign: a logout counts elsewhere within a second all the same", async () => {
    const token = await loggedIn();
    const frozen = await listeners();
    expect(frozen.length).toBeGreaterThanOrEqual(installation.nodes.length);
    for (const pid of frozen) process.kill(pid, "SIGSTOP");
    try {
      await logOut(token);
      const took = await waitFor("refusal", async () => (await statusOn(installation.nodes[1], token)) === 401, 5000);
      expect(took).toBeLessThan(REVOKED_WITHIN_MS);
      // Sessions go on being served, from their rows; and another feed is opened.
      expect(await statusOn(installation.nodes[1], await loggedIn())).toBe(200);
      const keys = await keyPickedUpAfter();
      row("hangs", took, keys);
      expect(keys).toBeLessThan(PICKED_UP_WITHIN_MS);
      await waitFor(
        "word of it in the log",
        () => installation.nodes[1]?.out().includes("changes.not_heard") ?? false,
        10_000,
      );
    } finally {
      for (const pid of frozen) process.kill(pid, "SIGCONT");
    }
    await waitFor(
      "changes being heard of again",
      () => installation.nodes[1]?.out().includes("changes.heard") ?? false,
      10_000,
    );
  });

  test.if(possible)("is cut: the same, and it comes back by itself", async () => {
    const token = await loggedIn();
    for (const pid of await listeners()) process.kill(pid, "SIGTERM");
    await logOut(token);
    const took = await waitFor("refusal", async () => (await statusOn(installation.nodes[1], token)) === 401, 5000);
    expect(took).toBeLessThan(REVOKED_WITHIN_MS);
    await waitFor("both nodes listening again", async () => (await listeners()).length >= installation.nodes.length);
  });

  test.if(possible)("works: a logout counts elsewhere at once", async () => {
    const token = await loggedIn();
    await logOut(token);
    const took = await waitFor("refusal", async () => (await statusOn(installation.nodes[1], token)) === 401, 5000);
    expect(took).toBeLessThan(REVOKED_WITHIN_MS);
    const keys = await keyPickedUpAfter();
    row("works", took, keys);
    expect(keys).toBeLessThan(PICKED_UP_WITHIN_MS);
    // And it stays one: nothing of it is kept in a process alone.
    await installation.nodes[1]?.kill();
    installation.nodes[1] = await serve(installation.home, installation.variables);
    expect(await statusOn(installation.nodes[1], token)).toBe(401);
  });
});
