import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify } from "jose";
import { seal, sealedBy, secretKey, unseal } from "../../../config/secrets.ts";
import { listKeyStages, listSealed } from "../../../db/queries/keys.ts";
import {
  advanceKeys,
  rotateMasterKey,
  type Staged,
  stageKey,
  undoRotation,
} from "../../../server/features/keys/service.ts";
import { systemRandom } from "../../../server/ports/random.ts";
import { openTestApp, type TestApp } from "../../support/app.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const PUBLISH_AHEAD = 24 * HOUR;
const OPERATOR = { kind: "operator" } as const;
const STEP = 12 * MINUTE;

type Node = Pick<TestApp, "deps" | "request">;

/** Making an RSA key takes seconds, and these tests make many: what they say holds for every algorithm. */
const FAST = { PRIMER_TOKENS__ALGORITHM: "ES256" };

let app: TestApp;
let nodes: readonly [Node, Node];
beforeEach(async () => {
  app = await openTestApp(FAST);
  await app.createUser({ username: "ada" });
  nodes = [app, await app.otherNode()];
});
afterEach(() => app.close());

/** What the keeper of each node does now and then. */
async function look(): Promise<void> {
  await advanceKeys(app.deps);
  for (const { deps } of nodes) await deps.keys.reload();
}

const stagesOf = async (purpose: string) =>
  (await listKeyStages(app.db.orm)).filter((key) => key.purpose === purpose).map(({ state }) => state);
const activeOf = async (purpose: string) =>
  (await listKeyStages(app.db.orm)).find((key) => key.purpose === purpose && key.state === "active")?.keyId;
const jwksOf = (node: Node) => node.request("GET", "/.well-known/jwks.json");
const kidOf = (token: string) => decodeProtectedHeader(token).kid;
const refreshOn = (node: Node, refresh_token: string) =>
  node.request("POST", "/api/v1/auth/refresh", { body: { refresh_token } });
const verifyOn = async (node: Node, token: string) =>
  (await node.request("GET", "/api/v1/auth/verify", { token })).status;

/** A service that checks tokens by itself and keeps the key set for as long as it likes. */
function verifier(keepsForMs: number) {
  let keys: ReturnType<typeof createLocalJWKSet> | undefined;
  let fetchedAt = 0;
  return async (token: string): Promise<void> => {
    const now = app.clock.now().getTime();
    if (!keys || now - fetchedAt >= keepsForMs) {
      keys = createLocalJWKSet((await jwksOf(nodes[1])).body);
      fetchedAt = now;
    }
    await jwtVerify(token, keys, { currentDate: app.clock.now(), audience: "primer", typ: "at+jwt" });
  };
}

describe("a rotation by stages", () => {
  // Whoever keeps the key set for less than it is published ahead never meets a key that they do not know.
  test("over more than a day, verifiers that keep the key set for 0 s, 10 min and 12 h refuse no good token", async () => {
    const verifiers = [0, 10 * MINUTE, 12 * HOUR].map(verifier);
    let { refresh_token, access_token } = await app.login("ada");
    const kids = new Set<string | undefined>();
    let recent: string[] = [];
    await stageKey(app.deps, "signing", "staged", OPERATOR);
    await look();
    for (let at = 0; at < 26 * HOUR; at += STEP) {
      app.clock.advance(STEP);
      await look();
      const answer = await refreshOn(nodes[(at / STEP) % 2 === 0 ? 0 : 1], refresh_token);
      expect(answer.status).toBe(200);
      ({ refresh_token, access_token } = answer.body);
      kids.add(kidOf(access_token));
      recent = [...recent, access_token].slice(-2); // those of the last 15 minutes: all still good
      for (const token of recent) {
        for (const check of verifiers) await check(token);
        for (const node of nodes) expect(await verifyOn(node, token)).toBe(200);
      }
    }
    expect(kids.size).toBe(2);
    expect(await stagesOf("signing")).toEqual(["retired", "active"]);
    expect((await jwksOf(app)).body.keys).toHaveLength(1);
  });

  test("the next key is published at once and signs nothing until its time", async () => {
    const before = (await app.login("ada")).access_token;
    const etag = (await jwksOf(app)).headers.get("etag");
    await stageKey(app.deps, "signing", "staged", OPERATOR);
    await look();
    const published = await jwksOf(nodes[1]);
    expect(published.body.keys).toHaveLength(2);
    expect(published.headers.get("etag")).not.toBe(etag);
    app.clock.advance(PUBLISH_AHEAD - 1);
    await look();
    expect(kidOf((await app.login("ada")).access_token)).toBe(kidOf(before));
    app.clock.advance(1);
    await look();
    expect(kidOf((await app.login("ada")).access_token)).not.toBe(kidOf(before));
  });

  // 15 min of the token, 30 s of skew, 5 min of the key set's max-age and a margin.
  test("the old key is accepted for as long as a token of it can be good, and then it is wiped", async () => {
    const [{ keyId: old } = { keyId: "" }] = await listKeyStages(app.db.orm);
    await stageKey(app.deps, "signing", "staged", OPERATOR);
    app.clock.advance(PUBLISH_AHEAD - 1);
    const last = (await app.login("ada")).access_token;
    app.clock.advance(1);
    await look();
    app.clock.advance(15 * MINUTE - 2000);
    await look();
    expect(kidOf(last)).toBe(old);
    expect(await verifyOn(nodes[1], last)).toBe(200);
    // To the end of the time that clocks may differ by, and then for as long as somebody may keep the key set.
    app.clock.advance(2000 + 28_000);
    await look();
    expect(await verifyOn(nodes[1], last)).toBe(200);
    app.clock.advance(1000 + 5 * MINUTE);
    await look();
    expect(await stagesOf("signing")).toEqual(["retiring", "active"]);
    expect((await jwksOf(nodes[1])).body.keys.map(({ kid }: { kid: string }) => kid)).toContain(old);
    app.clock.advance(5 * MINUTE);
    await look();
    expect(await stagesOf("signing")).toEqual(["retired", "active"]);
    const [row] = await app.db.query("SELECT sealed_private_key AS sealed FROM signing_keys WHERE kid = $1", [old]);
    expect(row).toEqual({ sealed: "" });
  });

  test("once staged, a second one is the same; and it is taken back without a trace in the key set", async () => {
    const first = await stageKey(app.deps, "signing", "staged", OPERATOR);
    app.clock.advance(HOUR);
    expect(await stageKey(app.deps, "signing", "staged", OPERATOR)).toEqual(first);
    expect(await stagesOf("signing")).toEqual(["active", "next"]);
    const active = await activeOf("signing");
    expect(await undoRotation(app.deps, "signing", OPERATOR)).toBe(active ?? "");
    await look();
    expect((await jwksOf(app)).body.keys).toHaveLength(1);
    app.clock.advance(2 * PUBLISH_AHEAD);
    await look();
    expect(await activeOf("signing")).toBe(active);
  });

  // Several nodes look at the same moment; one of them takes the step.
  test("20 at once advance it once", async () => {
    await stageKey(app.deps, "signing", "staged", OPERATOR);
    app.clock.advance(PUBLISH_AHEAD);
    const changed = await Promise.all(
      Array.from({ length: 20 }, (_, index) => advanceKeys(nodes[index % 2 === 0 ? 0 : 1].deps)),
    );
    expect(changed.filter(Boolean)).toHaveLength(1);
    expect(await stagesOf("signing")).toEqual(["retiring", "active"]);
    const audited = await app.db.query("SELECT action FROM audit_log WHERE action LIKE 'key.%' ORDER BY id");
    expect(audited.map(({ action }) => action)).toEqual([
      "key.created",
      "key.created",
      "key.created",
      "key.retiring",
      "key.activated",
    ]);
  });
});

describe("a rotation at once", () => {
  test("waits until every node has the key, then signs with it; the old one stays good", async () => {
    const before = (await app.login("ada")).access_token;
    const at = await stageKey(app.deps, "signing", "now", OPERATOR);
    expect(at.getTime() - app.clock.now().getTime()).toBe(2000);
    for (const { deps } of nodes) await deps.keys.reload();
    app.clock.advance(2000);
    await advanceKeys(app.deps);
    await nodes[0].deps.keys.reload(); // the other node has not heard of it yet
    const after = (await app.login("ada")).access_token;
    expect(kidOf(after)).not.toBe(kidOf(before));
    expect(await verifyOn(nodes[1], after)).toBe(200);
    expect(await verifyOn(nodes[0], before)).toBe(200);
  });

  test("hastens a key that is staged already", async () => {
    await stageKey(app.deps, "signing", "staged", OPERATOR);
    const staged = (await listKeyStages(app.db.orm)).find(({ state }) => state === "next")?.keyId;
    await stageKey(app.deps, "signing", "now", OPERATOR);
    app.clock.advance(2000);
    await look();
    expect(await activeOf("signing")).toBe(staged);
  });

  test("is taken back: the key before signs again, and what was signed meanwhile stays good", async () => {
    const before = await activeOf("signing");
    await stageKey(app.deps, "signing", "now", OPERATOR);
    app.clock.advance(2000);
    await look();
    const meanwhile = (await app.login("ada")).access_token;
    await undoRotation(app.deps, "signing", OPERATOR);
    await look();
    expect(await activeOf("signing")).toBe(before);
    expect(await verifyOn(nodes[1], meanwhile)).toBe(200);
    expect(kidOf((await app.login("ada")).access_token)).toBe(before);
  });
});

describe("a rotation in an emergency", () => {
  // What the old key has signed, and whatever somebody signs with it from now on, is worth nothing at once.
  test("the old keys die on every node, also one that was staged; sessions go on by refresh", async () => {
    const { access_token, refresh_token } = await app.login("ada");
    await stageKey(app.deps, "signing", "staged", OPERATOR);
    await stageKey(app.deps, "signing", "emergency", OPERATOR);
    app.clock.advance(2000);
    await look();
    expect(await stagesOf("signing")).toEqual(["retired", "retired", "active"]);
    for (const node of nodes) {
      expect(await verifyOn(node, access_token)).toBe(401);
      expect((await jwksOf(node)).body.keys.map(({ kid }: { kid: string }) => kid)).toEqual([
        await activeOf("signing"),
      ]);
    }
    const next = await refreshOn(nodes[1], refresh_token);
    expect(next.status).toBe(200);
    expect(await verifyOn(nodes[0], next.body.access_token)).toBe(200);
    await expect(undoRotation(app.deps, "signing", OPERATOR)).rejects.toMatchObject({ exitCode: 1 });
  });
});

describe("the refresh key", () => {
  test("nobody is logged out, a generation keeps its key, and a grace goes over the change", async () => {
    const [first, second] = [await app.login("ada"), await app.login("ada")];
    await stageKey(app.deps, "refresh", "staged", OPERATOR);
    for (const { deps } of nodes) await deps.keys.reload();
    app.clock.advance(2000);
    await advanceKeys(app.deps);
    await nodes[0].deps.keys.reload();
    const rotated = await refreshOn(nodes[0], first.refresh_token);
    expect(kidOf(rotated.body.refresh_token)).not.toBe(kidOf(first.refresh_token));
    // The other node makes the current tokens again without having heard of the change.
    const repeat = await refreshOn(nodes[1], first.refresh_token);
    expect(kidOf(repeat.body.refresh_token)).toBe(kidOf(rotated.body.refresh_token));
    await look();
    app.clock.advance(HOUR);
    expect((await refreshOn(nodes[1], rotated.body.refresh_token)).status).toBe(200);
    expect((await refreshOn(nodes[1], second.refresh_token)).status).toBe(200);
    const reused = await refreshOn(nodes[0], first.refresh_token);
    expect(reused.body.error.code).toBe("AUTH_REFRESH_REUSED");
  });

  test("the old one counts until the last session that knows it is over", async () => {
    const DAY = 24 * HOUR;
    await app.login("ada");
    await stageKey(app.deps, "refresh", "staged", OPERATOR);
    app.clock.advance(2000);
    await look();
    app.clock.advance(30 * DAY);
    await look();
    expect(await stagesOf("refresh")).toEqual(["retiring", "active"]);
    app.clock.advance(MINUTE);
    await look();
    expect(await stagesOf("refresh")).toEqual(["retired", "active"]);
  });

  test("in an emergency everybody logs in again", async () => {
    const { refresh_token } = await app.login("ada");
    await stageKey(app.deps, "refresh", "emergency", OPERATOR);
    app.clock.advance(2000);
    await look();
    expect((await refreshOn(nodes[1], refresh_token)).body.error.code).toBe("AUTH_TOKEN_INVALID");
    expect((await refreshOn(nodes[1], (await app.login("ada")).refresh_token)).status).toBe(200);
  });
});

describe("the pepper", () => {
  const pepperOf = async () =>
    (await app.db.query<{ pepper_id: string }>("SELECT pepper_id FROM credentials"))[0]?.pepper_id;
  const rotate = async () => {
    await stageKey(app.deps, "pepper", "staged", OPERATOR);
    app.clock.advance(2000);
    await look();
  };

  test("each password moves to the new one at its next login, on any node; twice, and back", async () => {
    const peppers = new Set([await pepperOf()]);
    for (let round = 0; round < 2; round++) {
      await rotate();
      await app.login("ada");
      expect(peppers.has(await pepperOf())).toBe(false);
      peppers.add(await pepperOf());
    }
    const second = [...peppers][1];
    expect(await undoRotation(app.deps, "pepper", OPERATOR)).toBe(second ?? "");
    await look();
    await app.login("ada");
    expect(await pepperOf()).toBe(second);
  });

  test("the first one is taken back to that of the file", async () => {
    const first = await pepperOf();
    await rotate();
    await app.login("ada");
    await undoRotation(app.deps, "pepper", OPERATOR);
    await look();
    await app.login("ada");
    expect(await pepperOf()).toBe(first);
  });
});

describe("the master key", () => {
  const next = secretKey(systemRandom.bytes(32));
  const sealedUnder = async () => new Set((await listSealed(app.db.orm)).map(({ sealed }) => sealedBy(sealed)));

  test("everything is sealed anew, and running nodes go on without a word", async () => {
    await stageKey(app.deps, "pepper", "staged", OPERATOR);
    app.clock.advance(2000);
    await look();
    const { access_token, refresh_token } = await app.login("ada");
    expect(await rotateMasterKey(app.deps, next, 24 * HOUR, OPERATOR)).toBe(3);
    expect(await sealedUnder()).toEqual(new Set([next.id]));
    for (const node of nodes) {
      await node.deps.keys.reload();
      expect(node.deps.secrets.master[0].id).toBe(next.id);
      expect(await verifyOn(node, access_token)).toBe(200);
    }
    expect((await refreshOn(nodes[1], refresh_token)).status).toBe(200);
    await app.login("ada");
    expect(await rotateMasterKey(app.deps, next, 24 * HOUR, OPERATOR)).toBe(0);
  });

  // Cut off between handing the new key over and sealing with it, nothing is lost, and the next run finishes.
  test("cut off half-way: both keys open, and the second run finishes", async () => {
    const dying = {
      ...app.deps,
      secrets: app.deps.secrets,
      clock: { ...app.clock, sleep: () => Promise.reject(new Error("killed")) },
    };
    await expect(rotateMasterKey(dying, next, 24 * HOUR, OPERATOR)).rejects.toThrow("killed");
    await look();
    expect(app.deps.secrets.master[0].id).not.toBe(next.id);
    await app.login("ada");
    await rotateMasterKey(app.deps, next, 24 * HOUR, OPERATOR);
    await look();
    expect(await sealedUnder()).toEqual(new Set([next.id]));
    await app.login("ada");
  });

  // Of two at once one counts, and nothing is ever sealed under a key that nobody can open any more.
  test("two at once, to different keys: one of them fails, and everything opens with the other", async () => {
    const other = secretKey(systemRandom.bytes(32));
    const slow = {
      ...app.deps,
      secrets: app.deps.secrets,
      clock: {
        ...app.clock,
        sleep: async () => void (await rotateMasterKey(app.deps, other, 24 * HOUR, OPERATOR)),
      },
    };
    await expect(rotateMasterKey(slow, next, 24 * HOUR, OPERATOR)).rejects.toMatchObject({ exitCode: 1 });
    expect(await sealedUnder()).toEqual(new Set([other.id]));
    await app.deps.keys.reload();
    expect(app.deps.secrets.master[0].id).toBe(other.id);
    await app.login("ada");
  });

  test("a key that is made by a process which has not heard of it yet is sealed under it all the same", async () => {
    const stale = { ...app.deps, secrets: app.deps.secrets };
    await rotateMasterKey(app.deps, next, 24 * HOUR, OPERATOR);
    await stageKey(stale, "pepper", "staged", OPERATOR);
    await stageKey(stale, "signing", "staged", OPERATOR);
    expect(await sealedUnder()).toEqual(new Set([next.id]));
  });

  // A node that cannot open the keys any more says that it cannot tell, and not that a token is wrong.
  test("503 for a kid that nobody knows while the keys cannot be opened", async () => {
    const { refresh_token } = await app.login("ada");
    const [, payload, signature] = (await app.login("ada")).access_token.split(".");
    const header = Buffer.from(JSON.stringify({ alg: "RS256", typ: "at+jwt", kid: "of-nobody" })).toString("base64url");
    const foreign = [header, payload, signature].join(".");
    await app.db.query("UPDATE installation SET master_key_id = 'AAAAAAAAAAAAAAAA'");
    app.clock.advance(60_000);
    const answer = await app.request("GET", "/api/v1/auth/verify", { token: foreign });
    expect([answer.status, answer.body.error.code]).toEqual([503, "SERVICE_UNAVAILABLE"]);
    expect((await refreshOn(app, refresh_token)).status).toBe(200);
  });

  test("it waits for other nodes for its time only; a process that has it keeps it", async () => {
    await rotateMasterKey(app.deps, next, 24 * HOUR, OPERATOR);
    await look();
    app.clock.advance(24 * HOUR);
    await look();
    const handedOver = await app.db.query("SELECT sealed_key AS sealed FROM secret_keys WHERE purpose = 'master'");
    expect(handedOver).toEqual([{ sealed: "" }]);
    await app.deps.keys.reload();
    await app.login("ada");
  });

  // A sealed value opens in its own row alone.
  test("a value moved to another row does not open", () => {
    const ring = [next] as const;
    const sealed = seal(ring, Buffer.from("seed"), "row-a", systemRandom.bytes);
    expect(unseal(ring, sealed, "row-a").toString()).toBe("seed");
    expect(() => unseal(ring, sealed, "row-b")).toThrow();
  });
});

// A setting is enough: nobody has to think of it.
test("a scheduled rotation begins in time for the new key to take over when the old one is as old as was asked", async () => {
  const scheduled = await openTestApp({ ...FAST, PRIMER_KEYS__ROTATE_EVERY: "90d" });
  try {
    const advance = async (ms: number) => {
      scheduled.clock.advance(ms);
      await advanceKeys(scheduled.deps);
      return (await listKeyStages(scheduled.db.orm))
        .filter(({ purpose }) => purpose === "signing")
        .map(({ state }) => state);
    };
    expect(await advance(89 * 24 * HOUR - 1)).toEqual(["active"]);
    expect(await advance(1)).toEqual(["active", "next"]);
    expect(await advance(24 * HOUR - 1)).toEqual(["active", "next"]);
    expect(await advance(1)).toEqual(["retiring", "active"]);
    expect(await advance(HOUR)).toEqual(["retired", "active"]);
  } finally {
    await scheduled.close();
  }
});

// The algorithm is a property of the key: it changes with the next one, and tokens of both are good meanwhile.
test.each(["RS256", "PS256", "ES256", "EdDSA"] as const)("a change to %s", async (algorithm) => {
  const before = (await app.login("ada")).access_token;
  const { settings } = app.deps;
  const changed = { ...settings, tokens: { ...settings.tokens, algorithm }, keys: { ...settings.keys, bits: 3072 } };
  await stageKey(
    { ...app.deps, secrets: app.deps.secrets, settings: changed },
    "signing" satisfies Staged,
    "now",
    OPERATOR,
  );
  app.clock.advance(2000);
  await look();
  const after = (await app.login("ada")).access_token;
  expect(decodeProtectedHeader(after).alg).toBe(algorithm);
  for (const token of [before, after]) {
    for (const node of nodes) expect(await verifyOn(node, token)).toBe(200);
    await verifier(0)(token);
  }
});
