import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { readingsOf } from "../../config/meter.ts";
import { sealedBy, secretKey } from "../../config/secrets.ts";
import { pauseAfterFailure, QUEUES, superviseJobs, type WithoutSecrets } from "../../db/jobs.ts";
import { listOutdatedSeals } from "../../db/queries/jobs.ts";
import { giveUpJob, listJobPage } from "../../server/features/jobs/service.ts";
import { resealJobs, rotateMasterKey } from "../../server/features/keys/service.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { PermanentFailure, RetryLater } from "../../worker/job.ts";
import { MAX_DEATHS } from "../../worker/keep-jobs.ts";
import { openTestApp, type TestApp } from "../support/app.ts";
import { allReach, enqueue, type MailHandler, mail, reaches, stored, until, withWorker } from "./support/jobs.ts";

const HOUR_MS = 3_600_000;
const DAY_SECONDS = 86_400;
const forever = () => new Promise<never>(() => {});
const done: MailHandler = async () => {};

let app: TestApp;
beforeAll(async () => {
  app = await openTestApp({ PRIMER_SERVER__STOP_TIMEOUT: "1s" });
});
afterAll(() => app.close());
beforeEach(() => app.db.query("DELETE FROM jobs.job"));

describe("a job", () => {
  test("is run soon after its transaction has committed, once, and is done", async () => {
    const runs: unknown[] = [];
    const payload = mail();
    await withWorker(
      app,
      async (_, { id, data, attempt, signal }) => {
        runs.push({ id, data, attempt, aborted: signal.aborted });
      },
      async () => {
        const id = await enqueue(app, payload);
        expect(await reaches(app, id, "completed", 2000)).toMatchObject({ deletion_seconds: 7 * DAY_SECONDS });
        expect(runs).toEqual([{ id, data: payload, attempt: 1, aborted: false }]);
      },
      { pace: { poll: 500 } },
    );
    const [duration] = readingsOf(await app.deps.metrics.collect()).filter(
      ({ name }) => name === "primer_job_duration_seconds",
    );
    expect(duration?.points).toEqual([
      expect.objectContaining({ labels: { queue: "send-mail", outcome: "done" }, value: 1 }),
    ]);
  });

  // A mail is sent exactly where what it tells of has happened.
  test("of a transaction that is rolled back is never run", async () => {
    const runs: string[] = [];
    let id = "";
    await withWorker(
      app,
      async (_, job) => void runs.push(job.id),
      async () => {
        const cut = app.db.transaction(async (tx) => {
          id = await app.deps.jobs.enqueue(tx, "send-mail", mail());
          throw new RangeError("cut off");
        });
        await expect(cut).rejects.toBeInstanceOf(RangeError);
        const next = await enqueue(app);
        await reaches(app, next, "completed");
        expect(id).not.toBe("");
        expect(runs).toEqual([next]);
      },
    );
  });

  test("never runs beside more than the concurrency allows, and so many do run", async () => {
    let now = 0;
    let most = 0;
    const handler: MailHandler = async () => {
      most = Math.max(most, ++now);
      await Bun.sleep(20);
      now--;
    };
    const ids = await Promise.all(Array.from({ length: 24 }, () => enqueue(app)));
    await withWorker(app, handler, () => allReach(app, ids, "completed"));
    expect(most).toBe(4);
  });

  // Whatever a handler does, its job ends as the table says, and the others are run all the same.
  test.each<[string, MailHandler, Record<string, unknown>]>([
    [
      "that throws at once",
      () => {
        throw new TypeError("now");
      },
      { state: "retry", output: { code: "JOB_FAILED" } },
    ],
    [
      "that rejects",
      async () => {
        throw Object.assign(new Error("no"), { code: "ECONNREFUSED" });
      },
      { state: "retry", output: { code: "ECONNREFUSED" } },
    ],
    ["that rejects with nothing", () => Promise.reject(), { state: "retry", output: { code: "JOB_FAILED" } }],
    ["that never ends and does not listen", forever, { state: "retry", output: { code: "JOB_DEADLINE" } }],
    [
      "that ends when it is told to",
      (_, { signal }) =>
        new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
      { state: "retry", output: { code: "JOB_DEADLINE" } },
    ],
    [
      "that gives up",
      async () => {
        throw new PermanentFailure("550 no such mailbox ada@example.org");
      },
      {
        state: "failed",
        output: { code: "PERMANENT_FAILURE", reason: "550 no such mailbox a***@example.org" },
        deletion_seconds: 90 * DAY_SECONDS,
      },
    ],
    [
      "that puts it off",
      async () => {
        throw new RetryLater(60_000, "the server is away");
      },
      {
        state: "retry",
        output: { code: "RETRY_LATER", reason: "the server is away" },
        retry_limit: QUEUES["send-mail"].retries + 1,
      },
    ],
  ])("of a handler %s", async (_name, handler, expected) => {
    const bad = await enqueue(app);
    const good = await Promise.all([enqueue(app), enqueue(app), enqueue(app)]);
    await withWorker(
      app,
      (deps, job) => (job.id === bad ? handler(deps, job) : done(deps, job)),
      async () => {
        await allReach(app, good, "completed");
        const ended = await reaches(app, bad, String(expected.state));
        expect(ended).toMatchObject(expected);
        if (expected.state === "retry") expect(ended.due_in).toBeGreaterThan(10);
      },
      { pace: { deadline: 150 } },
    );
  });

  test("is tried again until no try is left, then it is dead, and stays", async () => {
    const id = await enqueue(app);
    await app.db.query("UPDATE jobs.job SET retry_limit = 2 WHERE id = $1", [id]);
    const attempts: number[] = [];
    await withWorker(
      app,
      async (_, { attempt }) => {
        attempts.push(attempt);
        throw new Error("again");
      },
      async () => {
        await until("dead", async () => {
          await app.db.query("UPDATE jobs.job SET start_after = now() WHERE state = 'retry'");
          return (await stored(app, id)).state === "failed";
        });
      },
    );
    expect(attempts).toEqual([1, 2, 3]);
    await withWorker(app, done, async () => reaches(app, await enqueue(app), "completed"));
    expect(await stored(app, id)).toMatchObject({ state: "failed", output: { code: "JOB_FAILED" } });
  });

  // A newer version may have queued what this one does not know: it is there for the newer one.
  test("of a queue that this version does not know is left alone, also where its process has died", async () => {
    await app.db.query("SELECT jobs.create_queue('from-the-future', '{\"policy\": \"standard\"}')");
    await app.db.query(
      "INSERT INTO jobs.job (name, state, started_on) VALUES ('from-the-future', 'created', NULL), ('from-the-future', 'active', now() - interval '1 minute')",
    );
    await withWorker(app, done, async () => reaches(app, await enqueue(app), "completed"));
    const left = await app.db.query("SELECT state::text FROM jobs.job WHERE name = 'from-the-future' ORDER BY 1");
    expect(left).toEqual([{ state: "active" }, { state: "created" }]);
  });
});

describe("pauses between tries", () => {
  const { retries } = QUEUES["send-mail"];
  const pauses = (chance: number) =>
    Array.from({ length: retries }, (_, index) => pauseAfterFailure("send-mail", index + 1, chance));

  test("double up to two hours, and last a day at the least", () => {
    expect(pauses(0).slice(0, 4)).toEqual([15_000, 30_000, 60_000, 120_000]);
    expect(Math.max(...pauses(0))).toBe(2 * HOUR_MS);
    const [shortest, longest] = [0, 1].map((chance) => pauses(chance).reduce((sum, pause) => sum + pause));
    expect(shortest).toBeGreaterThanOrEqual(24 * HOUR_MS);
    expect(longest).toBeLessThan(37 * HOUR_MS);
  });

  test("are those of the rows, and differ between jobs that failed together", async () => {
    const ids = await Promise.all(Array.from({ length: 12 }, () => enqueue(app)));
    await app.db.query("UPDATE jobs.job SET retry_count = 2, started_on = now()");
    const fails: MailHandler = async () => {
      throw new Error("again");
    };
    const rows = await withWorker(app, fails, () => allReach(app, ids, "retry"));
    const due = rows.map(({ due_in }) => due_in);
    // The fourth try has failed: eight times 15 s, and up to half of that more.
    expect(Math.min(...due)).toBeGreaterThan(115);
    expect(Math.max(...due)).toBeLessThanOrEqual(180);
    expect(new Set(due.map(Math.round)).size).toBeGreaterThan(3);
  });
});

describe("secrets in a job", () => {
  const CANARY = "canary-7f3a9c-do-not-show";
  const everywhere = async () =>
    JSON.stringify([
      await app.db.query("SELECT * FROM jobs.job"),
      await app.db.query("SELECT * FROM audit_log"),
      await listJobPage(app.deps, { limit: 200 }),
      app.logLines,
    ]);

  // A field that is named like a secret is only taken sealed: this does not compile otherwise.
  test("cannot be put beside the sealed part by accident", () => {
    const refused: [WithoutSecrets<{ reset_link: string }>] extends [never] ? true : false = true;
    const taken: [WithoutSecrets<{ user_id: string; sealed: { link: string } }>] extends [never] ? true : false = false;
    expect([refused, taken]).toEqual([true, false]);
  });

  // Neither the database nor a log shows what a mail carries, before, while and after it is sent, or when it fails.
  test("are sealed until the handler has them, and erased when the job is done", async () => {
    const id = await enqueue(app, mail({ link: CANARY }));
    expect((await stored(app, id)).data.sealed).toMatch(/^v1\./);
    expect(await everywhere()).not.toContain(CANARY);
    let seen: unknown;
    let failed = false;
    await withWorker(
      app,
      async (_, { data }) => {
        seen = data.sealed;
        if (failed) return;
        failed = true;
        throw new Error(`Could not send ${CANARY}`, { cause: new Error(CANARY) });
      },
      async () => {
        expect((await reaches(app, id, "retry")).data.sealed).toMatch(/^v1\./);
        await app.db.query("UPDATE jobs.job SET start_after = now()");
        expect((await reaches(app, id, "completed")).data.sealed).toBeNull();
      },
    );
    expect(seen).toEqual({ link: CANARY });
    expect(await everywhere()).not.toContain(CANARY);
  });

  const LAPSED =
    "UPDATE jobs.job SET state = 'active', retry_count = retry_limit, started_on = now() - interval '1 hour'";
  test.each<[string, (id: string) => Promise<unknown>]>([
    [
      "by its handler",
      (id) =>
        withWorker(
          app,
          async () => {
            throw new PermanentFailure(CANARY.slice(0, 6));
          },
          () => reaches(app, id, "failed"),
        ),
    ],
    ["by an operator", (id) => giveUpJob(app.deps, id, { actor: { kind: "operator" } })],
    [
      "by the library, whose supervision ends what is overdue",
      async () => {
        await app.db.query(LAPSED);
        await app.db.query("UPDATE jobs.queue SET monitor_claim_on = NULL, monitor_on = NULL");
        await superviseJobs(app.db);
      },
    ],
  ])("are erased when it is given up %s", async (_name, kill) => {
    const id = await enqueue(app, mail({ link: CANARY }));
    await kill(id);
    const dead = await stored(app, id);
    expect(dead).toMatchObject({ state: "failed" });
    expect(dead.data.sealed).toBeNull();
    expect(await everywhere()).not.toContain(CANARY);
  });

  // A sealed value opens only in the row that it was sealed for.
  test("do not open in another job", async () => {
    const [own, other] = [await enqueue(app, mail({ link: CANARY })), await enqueue(app, mail({ link: "other" }))];
    await app.db.query("UPDATE jobs.job SET data = (SELECT data FROM jobs.job WHERE id = $1) WHERE id = $2", [
      own,
      other,
    ]);
    let ran = false;
    await withWorker(
      app,
      async (_, { id }) => {
        ran ||= id === other;
      },
      () => reaches(app, other, "retry"),
    );
    expect(ran).toBe(false);
  });

  test("are sealed anew when the master key is rotated, also those that were queued in that moment", async () => {
    const rotated = await openTestApp();
    try {
      const { deps } = rotated;
      const next = secretKey(systemRandom.bytes(32));
      const waiting = await enqueue(rotated, mail({ link: CANARY }));
      const { data } = await stored(rotated, waiting);
      const others = await Promise.all(Array.from({ length: 250 }, () => enqueue(rotated, mail({ link: CANARY }))));
      expect(others).toHaveLength(250);
      const sealedUnder = async () =>
        new Set(
          (await listOutdatedSeals(deps.db.orm, { keyId: "", limit: 1000 })).map(({ sealed }) => sealedBy(sealed)),
        );
      await rotateMasterKey(deps, next, HOUR_MS, { kind: "operator" });
      expect(await sealedUnder()).toEqual(new Set([next.id]));

      await deps.db.query("UPDATE jobs.job SET data = $1::text::jsonb WHERE id = $2", [JSON.stringify(data), waiting]);
      expect((await sealedUnder()).size).toBe(2);
      await until("the new key", () => deps.secrets.master[0].id === next.id);
      await resealJobs(deps);
      expect(await sealedUnder()).toEqual(new Set([next.id]));
      let seen: unknown;
      await withWorker(
        rotated,
        async (_, job) => {
          if (job.id === waiting) seen = job.data.sealed;
        },
        () => reaches(rotated, waiting, "completed"),
      );
      expect(seen).toEqual({ link: CANARY });
    } finally {
      await rotated.close();
    }
  });
});

describe("a process that died", () => {
  const SILENT = "UPDATE jobs.job SET heartbeat_on = now() - interval '31 seconds' WHERE state = 'active'";
  /** Claims a job as a process would that is killed then. */
  async function claimAndDie(): Promise<string[]> {
    const claims = [
      ...(await app.deps.jobs.claim("send-mail", { limit: 1, suspects: true })),
      ...(await app.deps.jobs.claim("send-mail", { limit: 1, suspects: false })),
    ];
    await app.db.query(SILENT);
    return claims.map(({ id }) => id);
  }

  test("gives its job to another one, with no pause", async () => {
    const id = await enqueue(app);
    expect(await claimAndDie()).toEqual([id]);
    let attempt = 0;
    await withWorker(
      app,
      async (_, job) => {
        attempt = job.attempt;
      },
      () => reaches(app, id, "completed"),
    );
    expect(attempt).toBe(2);
  });

  // A job that kills whatever runs it is given up, and the others are run.
  test("again and again with the same job ends that job", async () => {
    const id = await enqueue(app);
    for (let death = 1; death <= MAX_DEATHS; death++) {
      expect(await claimAndDie()).toEqual([id]);
      const state = death === MAX_DEATHS ? "failed" : "retry";
      // This worker takes it away from the dead one, and has no time to run it itself.
      await withWorker(app, forever, () => reaches(app, id, state), { concurrency: 0 });
      expect(await stored(app, id)).toMatchObject({ output: { code: "WORKER_DIED", deaths: death } });
    }
    await withWorker(app, done, async () => reaches(app, await enqueue(app), "completed"));
    expect(await claimAndDie()).toEqual([]);
  });

  // Of jobs that were running when a process died any may be the culprit: the others never run beside it again.
  test("makes suspects of its jobs, which are run one at a time", async () => {
    const suspects = await Promise.all([enqueue(app), enqueue(app), enqueue(app)]);
    await app.deps.jobs.claim("send-mail", { limit: 3, suspects: false });
    await app.db.query(SILENT);
    let now = 0;
    let most = 0;
    const handler: MailHandler = async (_, { id }) => {
      if (!suspects.includes(id)) return;
      most = Math.max(most, ++now);
      await Bun.sleep(50);
      now--;
    };
    await withWorker(app, handler, () => allReach(app, suspects, "completed"));
    expect(most).toBe(1);
  });

  // What a process does after it was taken for dead does not count: the job is another one's.
  test("but lives on cannot end the job that was given to another one", async () => {
    const id = await enqueue(app);
    const { promise: finish, resolve } = Promise.withResolvers<void>();
    let told = false;
    await withWorker(
      app,
      async (_, { signal }) => {
        signal.addEventListener("abort", () => {
          told = true;
        });
        await finish;
      },
      async () => {
        await reaches(app, id, "active");
        await app.db.query("UPDATE jobs.job SET retry_count = retry_count + 1 WHERE id = $1", [id]);
        await until("told", () => told);
        resolve();
        await until("said", () => app.logLines.some((line) => line.includes('"job.lost"') && line.includes(id)));
      },
    );
    expect(await stored(app, id)).toMatchObject({ state: "active", retry_count: 1 });
  });
});

// Who cannot tell the database that a job still runs has lost it: another one may run it by now.
test("a job is interrupted once the database could not be told of it for too long, and is given back when it can", async () => {
  const id = await enqueue(app);
  let away = false;
  let told: unknown;
  const orm = new Proxy(app.db.orm, {
    get(target, name) {
      if (name === "update" && away) throw Object.assign(new Error("away"), { code: "ECONNREFUSED" });
      const value = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const cut = { ...app, deps: { ...app.deps, db: { ...app.db, orm } } } as unknown as TestApp;
  let runs = 0;
  const handler: MailHandler = async (_, { signal }) => {
    if (++runs > 1) return;
    away = true;
    signal.addEventListener("abort", () => {
      told = signal.reason.why;
      away = false;
    });
    await forever();
  };
  await withWorker(cut, handler, () => reaches(app, id, "completed"), { pace: { silence: 150 } });
  expect([told, runs, (await stored(app, id)).retry_count]).toEqual(["silent", 2, 0]);
});

describe("stopping", () => {
  test("takes nothing new, lets what runs finish, and gives nothing back", async () => {
    const id = await enqueue(app);
    const { promise: finish, resolve } = Promise.withResolvers<void>();
    const runs: string[] = [];
    await withWorker(
      app,
      async (_, job) => {
        runs.push(job.id);
        await finish;
      },
      async (worker) => {
        await reaches(app, id, "active");
        const stopped = worker.stop();
        const next = await enqueue(app);
        setTimeout(resolve, 200);
        await stopped;
        expect(await stored(app, id)).toMatchObject({ state: "completed" });
        // Claimed in that very moment it would be given back at once.
        expect(await stored(app, next)).toMatchObject({
          state: expect.stringMatching(/^(created|retry)$/),
          retry_count: 0,
        });
        expect(runs).toEqual([id]);
      },
    );
  });

  // Whatever a job does, a process ends in time, and the job is another one's at once, without a try used up.
  test("gives back what does not finish within server.stop_timeout", async () => {
    const id = await enqueue(app);
    await withWorker(app, forever, async (worker) => {
      await reaches(app, id, "active");
      const began = performance.now();
      await worker.stop();
      expect(performance.now() - began).toBeLessThan(1200);
      expect(await stored(app, id)).toMatchObject({ state: "retry", retry_count: 0, output: null, priority: 0 });
    });
    let attempt = 0;
    await withWorker(
      app,
      async (_, job) => {
        attempt = job.attempt;
      },
      () => reaches(app, id, "completed", 1000),
    );
    expect(attempt).toBe(1);
  });

  test("does not wait for the supervision, which waits for another process here", async () => {
    const { promise: held, resolve: holds } = Promise.withResolvers<void>();
    const { promise: over, resolve: release } = Promise.withResolvers<void>();
    const other = app.db.exclusively("primer job supervision", async () => {
      holds();
      await over;
    });
    await held;
    try {
      await withWorker(app, done, async (worker) => {
        await reaches(app, await enqueue(app), "completed");
        const began = performance.now();
        await worker.stop();
        expect(performance.now() - began).toBeLessThan(1200);
      });
    } finally {
      release();
      await other;
    }
  });
});

// An idle worker costs next to nothing: one statement that finds nothing, twice a second.
test("while idle it asks little", async () => {
  let asked = 0;
  const counting = <T extends object>(of: T, names: readonly string[]): T =>
    new Proxy(of, {
      get(target, name) {
        const value = Reflect.get(target, name);
        if (typeof value !== "function") return value;
        return (...given: unknown[]) => {
          if (names.includes(String(name))) asked++;
          return value.apply(target, given);
        };
      },
    });
  const orm = counting(app.db.orm, ["select", "update", "insert", "delete", "execute", "transaction"]);
  const idle = { ...app, deps: { ...app.deps, db: { ...counting(app.db, ["query", "exclusively"]), orm } } };
  await withWorker(
    idle as unknown as TestApp,
    done,
    async () => {
      await Bun.sleep(300); // the beginning
      asked = 0;
      await Bun.sleep(2200);
    },
    { pace: { poll: 500, beat: 10_000 } },
  );
  process.stdout.write(`an idle worker: ${asked} statements in 2.2 s\n`);
  expect(asked).toBeGreaterThan(2);
  expect(asked).toBeLessThan(8);
});
