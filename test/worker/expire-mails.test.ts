import { afterAll, beforeAll, expect, test } from "bun:test";
import { listJobPage } from "../../server/features/jobs/service.ts";
import { queueMail } from "../../server/features/mail/service.ts";
import { expireMails } from "../../worker/expire-mails.ts";
import { startWorker } from "../../worker/run.ts";
import { openTestApp, type TestApp } from "../support/app.ts";

let app: TestApp;
let user_id: string;
beforeAll(async () => {
  app = await openTestApp();
  user_id = (await app.createUser({ username: "ada" })).id;
});
afterAll(() => app.close());

type Template = "password_reset" | "password_changed";
const LINK = "a-token-that-only-the-mail-may-know";

/** Queues a mail that has waited for so many days, and a moment more. */
async function keep(template: Template, days: number): Promise<void> {
  await app.db.query("DELETE FROM mail_counters");
  const sealed = template === "password_reset" ? { sealed: async () => ({ token: LINK }) } : {};
  await app.db.transaction((tx) => queueMail(tx, app.deps, { template, user_id, request_id: null }, sealed));
  await app.db.query(
    `UPDATE jobs.job SET created_on = jobs.job_now() - $1::int * interval '1 day' - interval '1 minute'
     WHERE id = (SELECT id FROM jobs.job ORDER BY id DESC LIMIT 1)`,
    [days],
  );
}

const states = async () => {
  const { data } = await listJobPage({ db: app.db }, { limit: 200 });
  return data.map(({ template, state, last_error }) => [template, state, last_error?.code ?? null]).reverse();
};

// Without a mail server nothing is lost that somebody could still have, and the queue has an end all the same.
test("a mail that has waited for too long is dead, listed with the reason, and its link erased", async () => {
  const kept: [Template, number][] = [
    ["password_reset", 1],
    ["password_reset", 2],
    ["password_changed", 2],
    ["password_changed", 29],
    ["password_changed", 30],
  ];
  for (const [template, days] of kept) {
    app.clock.advance(10);
    await keep(template, days);
  }
  await expireMails(app.deps, new AbortController().signal);
  expect(await states()).toEqual([
    ["password_reset", "waiting", null],
    ["password_reset", "dead", "MAIL_EXPIRED"],
    ["password_changed", "waiting", null],
    ["password_changed", "waiting", null],
    ["password_changed", "dead", "MAIL_EXPIRED"],
  ]);
  const rows = await app.db.query<{ sealed: string | null }>(
    "SELECT data ->> 'sealed' AS sealed FROM jobs.job WHERE data ->> 'template' = 'password_reset' ORDER BY id",
  );
  expect(rows.map(({ sealed }) => sealed !== null)).toEqual([true, false]);
  expect(app.logLines.filter((line) => JSON.parse(line).event === "mail.expired")).toHaveLength(2);
});

test("a worker that sends no mails looks after them too, however many there are", async () => {
  await app.db.query("DELETE FROM jobs.job");
  await keep("password_changed", 31);
  await app.db.query(
    `INSERT INTO jobs.job SELECT (j).* FROM (
       SELECT jsonb_populate_record(job, jsonb_build_object('id', gen_random_uuid())) AS j
       FROM jobs.job, generate_series(1, 1200)) AS copies`,
  );
  const worker = startWorker(app.deps, { handlers: {} });
  try {
    const waiting = async () =>
      (await app.db.query("SELECT id FROM jobs.job WHERE state IN ('created', 'retry')")).length;
    for (const deadline = performance.now() + 10_000; (await waiting()) > 0; await Bun.sleep(20))
      if (performance.now() > deadline) break;
    expect(await waiting()).toBe(0);
  } finally {
    await worker.stop();
  }
});
