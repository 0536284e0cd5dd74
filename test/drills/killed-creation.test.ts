import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { createPostgresDatabase, TEST_DATABASE } from "../support/database.ts";
import { type Answer, FULL, initHome, inShort, login, type Server, scratchFolder, send, serve } from "./processes.ts";

const KILLS = FULL ? 20 : 1;
/** Roles that are made at the same time, each with a key of its own; the server is killed when some have been answered. */
const ROLES = 100;
const ANSWERED = 10;
inShort(`${KILLS} kill while ${ROLES} things are made, 20 with TEST_FULL`);

const scratch = scratchFolder();
const database = TEST_DATABASE === "postgres" ? await createPostgresDatabase() : undefined;
afterAll(async () => {
  scratch.remove();
  await database?.drop();
});

const makeRole = (server: Server, token: string, name: string): Promise<Answer> =>
  send(`${server.url}/api/v1/roles`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}`, "idempotency-key": `key-${name}` },
    body: JSON.stringify({ name, permissions: ["orders:read"] }),
  });

// Whoever does not know whether their request was done sends it again with the same key: it is done once, and who had an
// answer gets the same one again.
describe("a server killed while it creates", () => {
  test(`${KILLS} times: each request sent again is answered 201, and each thing is there once`, async () => {
    const home = join(scratch.path, "home");
    const variables = database && { DATABASE_URL: database.url };
    await initHome(home, variables);
    let server = await serve(home, variables);
    let [lost, known] = [0, 0];
    for (let round = 0; round < KILLS; round++) {
      let token = (await login(server.url)).body.access_token;
      const names = Array.from({ length: ROLES }, (_, index) => `role-${round}-${index}`);
      const answers = new Map<string, unknown>();
      const enough = Promise.withResolvers<void>();
      const sent = names.map(async (name) => {
        const answer = await makeRole(server, token, name).catch(() => undefined);
        if (answer?.status !== 201) return;
        answers.set(name, answer.body);
        if (answers.size === ANSWERED) enough.resolve();
      });
      await Promise.race([enough.promise, Promise.all(sent)]);
      await server.kill();
      await Promise.all(sent);
      expect(answers.size).toBeGreaterThanOrEqual(ANSWERED);
      lost += ROLES - answers.size;
      known += answers.size;

      server = await serve(home, variables);
      token = (await login(server.url)).body.access_token; // on another port it is another issuer
      for (const name of names) {
        const again = await makeRole(server, token, name);
        expect([name, again.status, again.body.name]).toEqual([name, 201, name]);
        if (answers.has(name)) expect(again.body).toEqual(answers.get(name) as object);
      }
    }
    expect(lost).toBeGreaterThan(0);
    process.stderr.write(`${KILLS} kills: ${known} answers heard, ${lost} not; each was answered when asked again\n`);
    await server.kill();
  });
});
