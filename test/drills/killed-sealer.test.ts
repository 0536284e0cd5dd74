import { afterAll, beforeAll, expect, test } from "bun:test";
import { createPostgresDatabase, TEST_DATABASE } from "../support/database.ts";
import { freePort } from "../support/services.ts";
import { ADMIN_PASSWORD, FULL, initHome, inShort, post, primer, scratchFolder, waitFor } from "./processes.ts";

const KILLS = FULL ? 10 : 2;
inShort(`the process that seals is killed ${KILLS} times, 10 with TEST_FULL`);
/** What is sealed within five seconds, and what a process takes to begin. */
const SEALED_WITHIN_MS = 5000;
/** On a server two processes seal by turns. */
const NODES = TEST_DATABASE === "postgres" ? 2 : 1;

const scratch = scratchFolder();
let variables: Record<string, string> = {};
let drop = async () => {};
beforeAll(async () => {
  if (TEST_DATABASE === "postgres") {
    const made = await createPostgresDatabase();
    variables = { DATABASE_URL: made.url };
    drop = made.drop;
  }
  await initHome(scratch.path, TEST_DATABASE === "postgres" ? variables : undefined);
});
afterAll(async () => {
  await drop();
  scratch.remove();
});

async function startNode() {
  const port = String(await freePort());
  const child = primer(scratch.path, ["serve", "--with-worker", "--port", port], variables);
  const url = await child.until((out) => /"event":"server.started","url":"([^"]+)"/.exec(out)?.[1]);
  await waitFor("readiness", async () => (await fetch(`${url}/readyz`)).status === 200);
  return { ...child, url };
}

async function verify() {
  const { exitCode, out } = await primer(scratch.path, ["audit", "verify", "--json"], variables).finished;
  return { exitCode, ...JSON.parse(out) };
}

// U6: whoever seals may die at any moment; what was acknowledged is in the log, and in the chain soon after.
test(`the process that seals is killed ${KILLS} times under load: the next goes on, and everything holds`, async () => {
  const nodes = await Promise.all(Array.from({ length: NODES }, startNode));
  let acknowledged = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    const victim = nodes.shift();
    if (!victim) throw new Error("No node");
    const targets = [victim, ...nodes].map(({ url }) => url);
    let going = true;
    const writers = Array.from({ length: 8 }, async (_, index) => {
      while (going) {
        const url = targets[index % targets.length] ?? "";
        const body = { username: "admin", password: index % 2 === 0 ? ADMIN_PASSWORD : "wrong wrong wrong" };
        const answer = await post(url, "/api/v1/auth/login", body).catch(() => undefined);
        if (answer && answer.status < 500) acknowledged += answer.status === 429 ? 0 : 1;
      }
    });
    await Bun.sleep(1500 + kill * 300); // at another point of its round each time
    await victim.kill();
    going = false;
    await Promise.all(writers);
    nodes.push(await startNode());
    const took = await waitFor(
      "everything is sealed",
      async () => (await verify()).unsealed.rows === 0,
      SEALED_WITHIN_MS + 10_000,
    );
    expect(took).toBeLessThan(SEALED_WITHIN_MS + 5000); // a check that takes its time is in it
  }
  const report = await verify();
  expect(report).toMatchObject({ exitCode: 0, ok: true, fault: null });
  expect(acknowledged).toBeGreaterThan(0);
  expect(report.rows).toBeGreaterThanOrEqual(acknowledged);
  for (const node of nodes) node.signal("SIGTERM");
  await Promise.all(nodes.map(({ finished }) => finished));
});
