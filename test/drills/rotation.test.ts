import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from "jose";
import type { Database } from "../../db/database.ts";
import { openPostgresAt } from "../support/database.ts";
import { whyNoPostgres } from "./own-postgres.ts";
import { canRun, FULL, inShort, login, primer, refresh, type Server, serve, waitFor } from "./processes.ts";
import { tableRow } from "./table.ts";
import { serveTwoNodes, type TwoNodes } from "./two-nodes.ts";

const possible = canRun(whyNoPostgres(), "drill of key rotation under load");
const KILLS = FULL ? 20 : 1;
const LOAD_AROUND_MS = FULL ? 10_000 : 250;
inShort(
  `each rotation under ${LOAD_AROUND_MS / 1000} s of load before and after, ${KILLS} kills; 10 s and 20 kills with TEST_FULL`,
);

let installation: TwoNodes;
let home: string;
let variables: Record<string, string>;
let nodes: Server[];
let db: Database;
beforeAll(async () => {
  if (!possible) return;
  installation = await serveTwoNodes({ PRIMER_TOKENS__ALGORITHM: "ES256" });
  ({ home, variables, nodes } = installation);
  db = await openPostgresAt(installation.postgres.url);
}, 60_000);
afterAll(async () => {
  if (!possible) return;
  await db.close();
  await installation.remove();
});

const urlOf = (index: number) => nodes[index % nodes.length]?.url ?? "";

interface Load {
  readonly refused: string[];
  readonly checked: number;
  /** Every key that a token bore. */
  readonly kids: ReadonlySet<string>;
}

/**
 * Sessions that refresh and show their tokens at both nodes, and services that check them by a key set which they keep
 * for as long as its Cache-Control says, asking again for a kid that they do not know.
 *
 * @param lived whether an access token that was good a moment ago may be refused, as in an emergency
 */
async function underLoad(work: () => Promise<void>, lived = false): Promise<Load> {
  let running = true;
  const refused: string[] = [];
  const kids = new Set<string>();
  let checked = 0;
  const refreshed = [0, 0, 0, 0];
  const remote = nodes.map(({ url }) =>
    createRemoteJWKSet(new URL(`${url}/.well-known/jwks.json`), { cacheMaxAge: 300_000, cooldownDuration: 0 }),
  );
  const note = (what: string) => void refused.push(what);

  async function session(index: number): Promise<void> {
    let { access_token, refresh_token } = (await login(urlOf(index))).body;
    for (let round = 0; running; round++) {
      kids.add(decodeProtectedHeader(access_token).kid ?? "");
      for (const node of [0, 1]) {
        const headers = { authorization: `Bearer ${access_token}` };
        const { status } = await fetch(`${urlOf(node)}/api/v1/auth/verify`, { headers });
        if (status !== 200 && !lived) note(`verify answered ${status} at node ${node}`);
        const keys = remote[node];
        if (keys)
          await jwtVerify(access_token, keys, { audience: "primer" }).catch((error) => lived || note(String(error)));
        checked += 2;
      }
      const answer = await refresh(urlOf(index + round), refresh_token);
      if (answer.status !== 200) return note(`refresh answered ${answer.status} ${answer.body?.error?.code}`);
      ({ access_token, refresh_token } = answer.body);
      refreshed[index] = round + 1;
    }
  }
  /** For some time, and until every session has shown a token of that time. */
  async function goOn(): Promise<void> {
    const before = [...refreshed];
    await Bun.sleep(LOAD_AROUND_MS);
    const hasGoneOn = (times: number, index: number) => times > (before[index] ?? 0) + 1;
    await waitFor("all sessions go on", () => refused.length > 0 || refreshed.every(hasGoneOn));
  }
  async function logins(): Promise<void> {
    for (let round = 0; running; round++) {
      const { status } = await login(urlOf(round));
      if (status !== 200) note(`login answered ${status}`);
      await Bun.sleep(100);
    }
  }
  const clients = refreshed.map((_, index) => session(index));
  clients.push(logins());
  await goOn();
  await work();
  await goOn();
  running = false;
  await Promise.all(clients);
  return { refused, checked, kids };
}

async function rotate(...words: string[]): Promise<void> {
  const { exitCode, notes } = await primer(home, ["rotate-keys", ...words], variables).finished;
  expect([exitCode, notes.match(/^primer: .*/m)?.[0]]).toEqual([0, undefined]);
}

const statusOf = async () => {
  const { out } = await primer(home, ["rotate-keys", "--status", "--json"], variables).finished;
  return JSON.parse(out) as {
    master_key_id: string;
    passwords_by_pepper: Record<string, number>;
  };
};

/** The kid of the signing key in a state. */
async function signingKey(state: "active" | "next"): Promise<string | undefined> {
  const [row] = await db.query<{ kid: string }>("SELECT kid FROM signing_keys WHERE state = $1", [state]);
  return row?.kid;
}

// Keys are changed while everybody goes on: no valid token is refused by anybody, on either node, and nobody logs in anew.
describe("rotation under load on two nodes", () => {
  test.if(possible)("of the signing key at once: no valid token is refused", async () => {
    const before = await signingKey("active");
    const load = await underLoad(() => rotate("--now", "--yes"));
    expect(load.refused).toEqual([]);
    expect(load.checked).toBeGreaterThan(20);
    expect(load.kids.size).toBe(2);
    expect(await signingKey("active")).not.toBe(before);
    tableRow(
      "D18 rotation of the signing key under load, two nodes",
      "no valid token is refused, by a node or by a verifier that keeps the key set",
      `${load.checked} checks, none refused`,
    );
  });

  test.if(possible)("and back: no valid token is refused", async () => {
    const load = await underLoad(() => rotate("--undo"));
    expect(load.refused).toEqual([]);
  });

  test.if(possible)("of refresh key, pepper and master key: nobody is logged out, every login works", async () => {
    const before = await statusOf();
    const load = await underLoad(() => rotate("--what", "refresh,pepper,master"));
    expect(load.refused).toEqual([]);
    const after = await statusOf();
    expect(after.master_key_id).not.toBe(before.master_key_id);
    expect(Object.keys(after.passwords_by_pepper)).not.toEqual(Object.keys(before.passwords_by_pepper));
    tableRow(
      "D20 rotation of refresh key, pepper and master key under load, two nodes",
      "nobody is logged out, every login works",
      `${load.checked} checks, none refused`,
    );
  });

  test.if(possible)(
    "in an emergency: the old key is dead on both nodes within 5 seconds, sessions refresh",
    async () => {
      const old = (await login(urlOf(0))).body;
      let died = 0;
      const load = await underLoad(async () => {
        const began = performance.now();
        await rotate("--emergency", "--yes");
        const dead = async (index: number) => {
          const headers = { authorization: `Bearer ${old.access_token}` };
          return (await fetch(`${urlOf(index)}/api/v1/auth/verify`, { headers })).status === 401;
        };
        await waitFor("the end of the old key", async () => (await dead(0)) && (await dead(1)));
        died = performance.now() - began;
      }, true);
      expect(load.refused).toEqual([]);
      expect(died).toBeLessThan(5000);
      expect((await refresh(urlOf(1), old.refresh_token)).status).toBe(200);
      const { keys } = (await (await fetch(`${urlOf(1)}/.well-known/jwks.json`)).json()) as { keys: { kid: string }[] };
      expect(keys.map(({ kid }) => kid)).toEqual([(await signingKey("active")) ?? ""]);
      tableRow(
        "D19 a signing key that was stolen: rotate-keys --emergency",
        "within 5 s no node signs with it or accepts it, the key set drops it, sessions go on by refresh",
        `${Math.round(died)} ms until no node took it; ${load.checked} checks`,
      );
    },
  );
});

// Cut off at any moment, a rotation is finished by whoever comes next, and nothing is lost in between.
describe("rotation, killed", () => {
  test.if(possible)(`of the master key, ${KILLS} times, then run to its end: everything opens`, async () => {
    const before = (await statusOf()).master_key_id;
    const { refresh_token } = (await login(urlOf(0))).body;
    for (let kill = 0; kill < KILLS; kill++) {
      const child = primer(home, ["rotate-keys", "--what", "master"], variables);
      await Bun.sleep(200 + (2600 * kill) / KILLS);
      await child.kill();
      expect((await login(urlOf(kill))).status).toBe(200);
    }
    await rotate("--what", "master");
    expect((await statusOf()).master_key_id).not.toBe(before);
    expect((await refresh(urlOf(1), refresh_token)).status).toBe(200);
    const ring =
      /^PRIMER_MASTER_KEY=(.*)$/m.exec(readFileSync(join(home, "secrets.env"), "utf8"))?.[1]?.split(",") ?? [];
    expect(ring.length).toBeGreaterThanOrEqual(2);
    // A node that starts with the secrets from before is let in meanwhile: the new key waits for it in the database.
    const late = join(installation.folder, "late");
    await Bun.write(join(late, "primer.toml"), readFileSync(join(home, "primer.toml"), "utf8"));
    const secrets = readFileSync(join(home, "secrets.env"), "utf8").replace(
      /^PRIMER_MASTER_KEY=[^,]*,/m,
      "PRIMER_MASTER_KEY=",
    );
    writeFileSync(join(late, "secrets.env"), secrets, { mode: 0o600 });
    const node = await serve(late, variables);
    expect((await login(node.url)).status).toBe(200);
    tableRow(
      "D20 rotation of the master key, killed",
      "everything opens at any moment; the next run ends it",
      `${KILLS} kills, all logins worked, then a rotation to its end`,
    );
    node.signal("SIGTERM");
    expect((await node.finished).exitCode).toBe(0);
  });

  test.if(possible)("of the signing key once it is staged: the servers finish it by themselves", async () => {
    const before = await signingKey("active");
    const child = primer(home, ["rotate-keys", "--now", "--yes"], variables);
    await waitFor("a staged key", async () => (await signingKey("next")) !== undefined);
    await child.kill();
    await waitFor("the new key", async () => (await signingKey("active")) !== before);
    expect((await login(urlOf(1))).status).toBe(200);
  });
});
