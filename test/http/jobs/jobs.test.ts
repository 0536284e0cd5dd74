import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { createMetrics, readingsOf, resourceOf } from "../../../config/meter.ts";
import { measureJobs } from "../../../server/features/jobs/service.ts";
import { enqueue, mail, stored } from "../../worker/support/jobs.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";

const PATH = "/api/v1/jobs";
const UNKNOWN_ID = "019b76da-a800-7000-8000-000000000000";
const CANARY = "canary-51b2e8-do-not-show";

let app: HttpApp;
let admin: string;
beforeAll(async () => {
  app = await openHttpApp();
  await app.createUser({ username: "root", roles: ["admin"] });
  await app.createUser({ username: "ada" });
  await app.db.query("INSERT INTO roles (name, created_at, updated_at) VALUES ('reader', now(), now())");
  await app.db.query("INSERT INTO role_permissions (role, permission) VALUES ('reader', 'jobs:read')");
  await app.createUser({ username: "rita", roles: ["reader"] });
  admin = (await app.login("root")).access_token;
});
afterAll(() => app.close());
beforeEach(() => app.db.query("DELETE FROM jobs.job"));

const get = (query = "") => app.request("GET", `${PATH}${query}`, { token: admin });
const retry = (id: string) => app.request("POST", `${PATH}/${id}/retry`, { token: admin });
/** Puts a job where the worker would have left it. */
const leave = (id: string, set: string) => app.db.query(`UPDATE jobs.job SET ${set} WHERE id = $1`, [id]);
const DEAD = `state = 'failed', completed_on = now(), started_on = now(), retry_count = 20, output = '{"code": "JOB_FAILED"}'`;

describe("GET /jobs", () => {
  // Who looks after the queue sees what goes wrong with which mail, and nothing that a mail carries.
  test("shows each job, and never what it carries", async () => {
    const payload = mail({ link: `https://primer.test/?t=${CANARY}` });
    const id = await enqueue(app, payload);
    await leave(
      id,
      `data = data || '{"body": "${CANARY}"}', state = 'retry', started_on = now(), output = '{"code": "ECONNREFUSED", "detail": "${CANARY}"}'`,
    );
    const answer = await get();
    expect(answer.status).toBe(200);
    expect(answer.text).not.toContain(CANARY);
    expect(answer.text).not.toMatch(/sealed|v1\./);
    expect(answer.body).toEqual({
      data: [
        {
          id,
          queue: "send-mail",
          state: "waiting",
          attempts: 1,
          max_attempts: 21,
          created_at: expect.any(String),
          due_at: expect.any(String),
          started_at: expect.any(String),
          finished_at: null,
          template: "password_changed",
          user_id: payload.user_id,
          request_id: null,
          last_error: { code: "ECONNREFUSED", reason: null },
        },
      ],
      next_cursor: null,
    });
  });

  test("pages, the newest first, by queue and state", async () => {
    const ids: string[] = [];
    for (let count = 0; count < 5; count++) {
      app.clock.advance(10);
      ids.unshift(await enqueue(app));
    }
    await leave(ids[1] ?? "", DEAD);
    await leave(ids[3] ?? "", "state = 'completed', started_on = now(), completed_on = now()");
    const idsOf = async (query: string) => {
      const { body } = await get(query);
      return [body.data.map(({ id }: { id: string }) => id), body.next_cursor];
    };
    expect(await idsOf("")).toEqual([ids, null]);
    expect(await idsOf("?limit=2")).toEqual([ids.slice(0, 2), ids[1]]);
    expect(await idsOf(`?limit=3&cursor=${ids[1]}`)).toEqual([ids.slice(2), null]);
    expect(await idsOf("?state=dead&queue=send-mail")).toEqual([[ids[1]], null]);
    expect(await idsOf("?state=done")).toEqual([[ids[3]], null]);
    expect(await idsOf("?state=waiting")).toEqual([[ids[0], ids[2], ids[4]], null]);
    expect(await idsOf("?state=running")).toEqual([[], null]);
    expect(await idsOf("?queue=other")).toEqual([[], null]);
  });

  test.each([
    "limit=0",
    "limit=201",
    "limit=x",
    "cursor=x",
    "cursor=",
    "cursor=%00",
    "state=failed",
    "queue=",
    "other=1",
  ])("422 ?%s", async (query) => {
    const answer = await get(`?${query}`);
    expect([answer.status, answer.body.error.code]).toEqual([422, "VALIDATION_FAILED"]);
  });
});

describe("POST /jobs/{id}/retry", () => {
  test("makes a dead job due now, with as many tries as a new one, and is recorded", async () => {
    const id = await enqueue(app);
    await leave(id, DEAD);
    const answer = await retry(id);
    expect(answer.status).toBe(200);
    expect(answer.body).toMatchObject({
      id,
      state: "waiting",
      attempts: 21,
      max_attempts: 42,
      finished_at: null,
      last_error: null,
    });
    expect(await stored(app, id)).toMatchObject({ state: "retry", output: null });
    const audited = await app.db.query(
      "SELECT actor_kind, details FROM audit_log WHERE action = 'job.retried' AND subject_id = $1",
      [id],
    );
    expect(audited).toEqual([{ actor_kind: "user", details: { queue: "send-mail" } }]);
  });

  test("makes a job that waits for its next try due now", async () => {
    const id = await enqueue(app);
    await leave(id, "state = 'retry', start_after = now() + interval '2 hours'");
    expect((await retry(id)).status).toBe(200);
    expect((await stored(app, id)).due_in).toBeLessThanOrEqual(0);
  });

  // What was erased does not come back: a job without its link would send a mail without a link.
  test.each([
    ["running", "state = 'active', started_on = now()", false],
    ["done", "state = 'completed', completed_on = now()", false],
    ["secrets_erased", DEAD, true],
  ])("409 where it is %s, and nothing happens", async (reason, set, sealed) => {
    const id = await enqueue(app, mail(sealed ? { link: CANARY } : undefined));
    await leave(id, set);
    const before = await stored(app, id);
    const answer = await retry(id);
    expect([answer.status, answer.body.error.code]).toEqual([409, "CONFLICT"]);
    expect(answer.body.error.details).toEqual({ field: "state", reason });
    expect(await stored(app, id)).toMatchObject({ state: before.state, retry_limit: before.retry_limit });
  });

  // Of two administrators who press the button at once, none gives the job twice as many tries.
  test("of several at once, the job is due once", async () => {
    const id = await enqueue(app);
    await leave(id, DEAD);
    const answers = await Promise.all(Array.from({ length: 5 }, () => retry(id)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(await stored(app, id)).toMatchObject({ state: "retry", retry_limit: 41 });
  });

  test.each([UNKNOWN_ID, "x", "%00", `${UNKNOWN_ID}x`])("404 for %s", async (id) => {
    expect((await retry(id)).body.error.code).toBe("NOT_FOUND");
  });
});

// Who lacks the permission learns which it is and nothing else, and nothing is done.
test("403 without the permission, 401 without a token", async () => {
  const id = await enqueue(app);
  await leave(id, DEAD);
  const [ada, rita] = [await app.login("ada"), await app.login("rita")];
  for (const [permission, method, path] of [
    ["jobs:read", "GET", PATH],
    ["jobs:retry", "POST", `${PATH}/${id}/retry`],
    ["jobs:retry", "POST", `${PATH}/${UNKNOWN_ID}/retry`],
  ] as const) {
    const answer = await app.request(method, path, { token: ada.access_token });
    expect(answer.body.error).toMatchObject({ code: "FORBIDDEN", details: { permission } });
    expect((await app.request(method, path)).body.error.code).toBe("AUTH_TOKEN_MISSING");
    const reader = await app.request(method, path, { token: rita.access_token });
    expect(reader.status).toBe(permission === "jobs:read" ? 200 : 403);
  }
  expect((await stored(app, id)).state).toBe("failed");
});

describe("metrics of the queues", () => {
  const depths = async () => {
    const { body } = await app.request("GET", "/api/v1/monitoring/metrics", { token: admin });
    const points = (name: string) =>
      Object.fromEntries(
        body.metrics
          .find((metric: { name: string }) => metric.name === name)
          .points.map(({ labels, value }: { labels: { state: string }; value: number }) => [labels.state, value]),
      );
    return { depth: points("primer_jobs"), age: points("primer_jobs_oldest_age_seconds") };
  };

  test("show how many jobs wait, run and are dead, and how old the oldest of them is", async () => {
    expect((await depths()).depth).toEqual({ waiting: 0, running: 0, dead: 0 });
    const [old, , dead] = [await enqueue(app), await enqueue(app), await enqueue(app)];
    await leave(old, "state = 'retry', created_on = now() - interval '1 hour'");
    await leave(dead, DEAD);
    const { depth, age } = await depths();
    expect(depth).toEqual({ waiting: 2, running: 0, dead: 1 });
    expect(Math.round(age.waiting / 10)).toBe(360);
    expect(age.running).toBe(0);
  });

  test("are left out while the database does not answer, and the others are there", async () => {
    const metrics = createMetrics({ resource: resourceOf("development") });
    const replica = {
      select: () => {
        throw new Error("away");
      },
    };
    measureJobs({ db: { ...app.db, replica } as unknown as typeof app.db, metrics });
    metrics.count("primer_tokens_verified_total", { issuer: "own", outcome: "accepted" });
    const points = new Map(readingsOf(await metrics.collect()).map((metric) => [metric.name, metric.points.length]));
    expect([points.get("primer_jobs"), points.get("primer_tokens_verified_total")]).toEqual([0, 1]);
  });
});
