import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHashPool } from "../../../server/features/passwords/hash-pool.ts";
import { systemClock } from "../../../server/ports/clock.ts";
import { PASSWORD, type TestAnswer, type TestApp } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { replaceDeps, stepsOf } from "../support/observe.ts";
import { seededRandom } from "../support/random.ts";
import { setStatus, storeHash } from "../support/scenario.ts";

const WRONG = "not the right horse battery staple";

/** Every kind of account at which a login can fail, with how it comes to be. `right` also tries the right password. */
const CLASSES: Readonly<Record<string, { make?: (app: TestApp, id: string) => Promise<void>; right?: boolean }>> = {
  unknown: {},
  wrong: { make: async () => {} },
  disabled: { make: (app, id) => setStatus(app, id, "disabled") },
  deactivated: { make: (app, id) => setStatus(app, id, "deactivated") },
  pending: { make: (app, id) => setStatus(app, id, "pending") },
  "no-password": {
    make: async (app, id) => void (await app.db.query("DELETE FROM credentials WHERE user_id = $1", [id])),
    right: true,
  },
  "hash-x": { make: (app, id) => storeHash(app, id, "x"), right: true },
  "hash-cut-off": { make: (app, id) => storeHash(app, id, "$2b$12$bad"), right: true },
  "hash-empty": { make: (app, id) => storeHash(app, id, ""), right: true },
  "hash-argon2-damaged": {
    make: (app, id) => storeHash(app, id, "$argon2id$v=19$m=19456,t=2,p=1$AAAA$A"),
    right: true,
  },
  "pepper-gone": {
    make: async (app, id) =>
      void (await app.db.query("UPDATE credentials SET pepper_id = 'gone' WHERE user_id = $1", [id])),
    right: true,
  },
};

async function makeAccounts(app: TestApp): Promise<void> {
  for (const [name, { make }] of Object.entries(CLASSES)) {
    if (!make) continue;
    const { id } = await app.createUser({ username: name });
    await make(app, id);
  }
}

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
  await makeAccounts(app);
});
afterAll(() => app.close());

const attempt = (username: string, password: string) =>
  app.request("POST", "/api/v1/auth/login", { body: { username, password } });

/** All of an answer that may not differ. */
function shape(answer: TestAnswer) {
  const { timestamp, request_id } = answer.body.error;
  return {
    status: answer.status,
    headers: [...answer.headers].filter(([name]) => name !== "date" && name !== "x-request-id"),
    text: answer.text.replace(timestamp, "TIMESTAMP").replace(request_id, "REQUEST"),
  };
}

describe("a login that fails before the right password", () => {
  // Whoever tries passwords cannot tell an account that exists from one that does not, nor what is the matter with it.
  for (const [name, { right }] of Object.entries(CLASSES)) {
    for (const password of right ? [WRONG, PASSWORD] : [WRONG]) {
      test(`${name} with ${password === PASSWORD ? "the right" : "a wrong"} password answers like any other`, async () => {
        const expected = shape(await attempt("nobody-at-all", WRONG));
        expect(expected).toMatchObject({ status: 401, text: expect.stringContaining("AUTH_INVALID_CREDENTIALS") });
        expect(shape(await attempt(name, password))).toEqual(expected);
        expect(shape(await attempt(`${name}@example.test`, password))).toEqual(expected);
      });
    }
  }

  // Equal time begins with equal work: the same statements in the same order and exactly one hash, whatever failed.
  test("takes the same steps", async () => {
    const expected = ["insert failure_counters", "hash", "begin", "insert login_records", "insert audit_log"];
    for (const name of Object.keys(CLASSES)) {
      const steps = await stepsOf(app.deps, () => attempt(name, WRONG));
      expect({ name, steps }).toEqual({ name, steps: expected });
    }
  });

  // The rest of the time is a floor that is the same for all: the answer waits for it.
  test("waits until the failure floor", async () => {
    const { password } = app.deps.settings;
    const slept: number[] = [];
    const restore = replaceDeps(app.deps, {
      settings: { ...app.deps.settings, password: { ...password, failure_floor: 300 } },
      clock: { ...app.clock, sleep: async (ms) => void slept.push(ms) },
    });
    try {
      for (const name of ["unknown", "wrong", "disabled", "no-password"]) await attempt(name, WRONG);
    } finally {
      restore();
    }
    expect(slept).toEqual([300, 300, 300, 300]);
  });
});

const FULL = Boolean(process.env.TEST_FULL);
if (!FULL) console.log("Left out of the short form: the timing statistics of refused logins (300 requests a class).");

const ROUNDS = 300;
const TIMED = ["unknown", "wrong", "disabled", "imported"] as const;

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/** How likely a value of `a` is above one of `b`: 0.5 where the two cannot be told apart. */
function rankAuc(a: readonly number[], b: readonly number[]): number {
  let above = 0;
  for (const x of a) for (const y of b) above += x > y ? 1 : x === y ? 0.5 : 0;
  return above / (a.length * b.length);
}

/** Milliseconds of each request, by class. Each round asks all classes at once, in another order. */
async function measure(timed: TestApp): Promise<Record<(typeof TIMED)[number], number[]>> {
  const random = seededRandom(17);
  const times = { unknown: [], wrong: [], disabled: [], imported: [] } as Record<(typeof TIMED)[number], number[]>;
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of random.shuffle(TIMED)) {
      const started = performance.now();
      const answer = await timed.request("POST", "/api/v1/auth/login", { body: { username: name, password: WRONG } });
      times[name].push(performance.now() - started);
      expect(answer.status).toBe(401);
    }
  }
  return times;
}

describe("timing", () => {
  // Nobody can measure whether an account exists: medians within max(5 ms, 10 %), ranks as by chance.
  test.if(FULL)(
    "of refused logins tells nothing",
    async () => {
      // The long deadline is for busy machines: a hash that misses it is answered 503, which is another story.
      const floor = { PRIMER_PASSWORD__FAILURE_FLOOR: "300ms", PRIMER_PASSWORD__HASH_TIMEOUT: "30s" };
      const timed = await openHttpApp(floor);
      try {
        await timed.createUser({ username: "wrong" });
        await setStatus(timed, (await timed.createUser({ username: "disabled" })).id, "disabled");
        const { id } = await timed.createUser({ username: "imported" });
        await storeHash(timed, id, await Bun.password.hash(PASSWORD, { algorithm: "bcrypt", cost: 12 }));
        const hashPool = createHashPool(timed.deps.settings.password, systemClock);
        replaceDeps(timed.deps, { clock: systemClock, hashPool });
        const times = await measure(timed);
        const reference = median(times.unknown);
        for (const name of TIMED) {
          const difference = Math.abs(median(times[name]) - reference);
          const auc = rankAuc(times[name], times.unknown);
          console.log(`${name}: median ${median(times[name]).toFixed(1)} ms, rank AUC ${auc.toFixed(3)}`);
          expect(difference).toBeLessThanOrEqual(Math.max(5, reference / 10));
          expect(auc).toBeWithin(0.42, 0.58);
        }
      } finally {
        await timed.close();
      }
    },
    1_800_000,
  );
});
