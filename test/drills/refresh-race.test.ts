import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { openPostgresAt } from "../support/database.ts";
import { whyNoPostgres } from "./own-postgres.ts";
import { canRun, FULL, inShort, login, refresh } from "./processes.ts";
import { tableRow } from "./table.ts";
import { serveTwoNodes, type TwoNodes } from "./two-nodes.ts";

const possible = canRun(whyNoPostgres(), "drill of refreshes that race on two nodes");
const ROUNDS = FULL ? 50 : 2;
inShort(`${ROUNDS} rounds of 50 refreshes at once, 50 with TEST_FULL`);

let installation: TwoNodes;
beforeAll(async () => {
  if (possible) installation = await serveTwoNodes({ PRIMER_TOKENS__ALGORITHM: "ES256" });
}, 60_000);
afterAll(async () => {
  if (possible) await installation.remove();
});

const urlOf = (index: number) => installation.nodes[index % 2]?.url ?? "";

// Two processes, no memory in common: whoever comes at the same moment shares one lineage.
describe("50 refreshes of one token at once over two processes", () => {
  test.if(possible)(`${ROUNDS} times: everybody is answered, and the token has moved on once`, async () => {
    const db = await openPostgresAt(installation.postgres.url);
    const { session_id, ...first } = (await login(urlOf(0))).body;
    let token = first.refresh_token;
    for (let round = 1; round <= ROUNDS; round++) {
      const answers = await Promise.all(Array.from({ length: 50 }, (_, index) => refresh(urlOf(index), token)));
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
      const rows = await db.query("SELECT generation FROM refresh_families WHERE session_id = $1", [session_id]);
      expect(rows).toEqual([{ generation: round + 1 }]);
      for (const [index, { body }] of answers.entries()) {
        const headers = { authorization: `Bearer ${body.access_token}` };
        if (index % 10 === 0)
          expect((await fetch(`${urlOf(index + 1)}/api/v1/auth/verify`, { headers })).status).toBe(200);
      }
      token = answers[round % 50]?.body.refresh_token;
    }
    await db.close();
    tableRow(
      "50 refreshes of one token at once, two nodes",
      "each is answered, and the session has one successor",
      `${ROUNDS} times, ${50 * ROUNDS} answers of 200, ${ROUNDS} successors`,
    );
  });
});
