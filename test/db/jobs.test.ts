import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { secretKey } from "../../config/secrets.ts";
import type { Database } from "../../db/database.ts";
import { type JobPayloads, type JobQueue, openJobQueue, superviseJobs } from "../../db/jobs.ts";
import { isMigrated, migrate } from "../../db/migrate.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { openTestDatabase } from "../support/database.ts";
import { newId } from "./rows.ts";

const DEADLINE_MS = 10_000;
const YEAR_MS = 365 * 86_400_000;

const KEY = secretKey(new Uint8Array(32).map((_, index) => index * 7));
const SEALING = { ring: () => [KEY] as const, bytes: systemRandom.bytes, id: newId };

let db: Database;
let jobs: JobQueue;
beforeAll(async () => {
  db = await openTestDatabase();
  jobs = await openJobQueue(db, SEALING);
});
afterAll(async () => {
  await jobs.close();
  await db.close();
});

type Mail = JobPayloads["send-mail"];
const mail = (request_id: string | null): Mail => ({ template: "password_changed", user_id: newId(), request_id });

interface JobRow extends Record<string, unknown> {
  readonly name: string;
  readonly state: string;
  readonly data: Mail;
  readonly created_on: Date;
  readonly keep_until: Date;
  readonly retry_limit: number;
}

const findJob = (id: string) =>
  db.query<JobRow>("SELECT name, state, data, created_on, keep_until, retry_limit FROM jobs.job WHERE id = $1", [id]);

/** Fails where the work is stuck, as it would be if it waited for the connection that it holds itself. */
async function inTime<T>(work: Promise<T>): Promise<T> {
  const late = Bun.sleep(DEADLINE_MS).then(() => {
    throw new Error(`Stuck for ${DEADLINE_MS} ms`);
  });
  return Promise.race([work, late]);
}

// A mail is promised exactly where the change that causes it has happened.
describe("enqueue", () => {
  test("the job is there once its transaction has committed, with its payload and request id", async () => {
    const payload = mail("request-7");
    const id = await inTime(db.transaction((tx) => jobs.enqueue(tx, "send-mail", payload)));
    expect(await findJob(id)).toMatchObject([{ name: "send-mail", state: "created", data: payload }]);
  });

  test("the job is not there where its transaction was rolled back", async () => {
    let id = "";
    const cut = db.transaction(async (tx) => {
      id = await jobs.enqueue(tx, "send-mail", mail(null));
      throw new RangeError("cut off");
    });
    await expect(inTime(cut)).rejects.toBeInstanceOf(RangeError);
    expect(id).not.toBe("");
    expect(await findJob(id)).toEqual([]);
  });

  // Jobs queued before their consumer exists are kept until it does.
  test("the job is kept for years, and tried more than once", async () => {
    const id = await inTime(db.transaction((tx) => jobs.enqueue(tx, "send-mail", mail(null))));
    const [row] = await findJob(id);
    const keptMs = new Date(row?.keep_until ?? 0).getTime() - new Date(row?.created_on ?? 0).getTime();
    expect(keptMs).toBeGreaterThan(9 * YEAR_MS);
    expect(row?.retry_limit).toBeGreaterThan(1);
  });

  // On the embedded database a look-up outside the transaction would wait for the transaction for ever.
  test("the very first one works inside a transaction", async () => {
    const fresh = await openJobQueue(db, SEALING);
    try {
      const id = await inTime(
        db.transaction(async (tx) => {
          await tx.execute(sql`SELECT 1`);
          return fresh.enqueue(tx, "send-mail", mail(null));
        }),
      );
      expect(await findJob(id)).toHaveLength(1);
    } finally {
      await fresh.close();
    }
  });

  test("several in one transaction, several transactions at once, and other queries meanwhile", async () => {
    const others = Array.from({ length: 30 }, () => db.query<{ one: number }>("SELECT 1 AS one"));
    const enqueued = Array.from({ length: 12 }, () =>
      db.transaction(async (tx) => [
        await jobs.enqueue(tx, "send-mail", mail("first")),
        await jobs.enqueue(tx, "send-mail", mail("second")),
      ]),
    );
    const [ids, answers] = await inTime(Promise.all([Promise.all(enqueued), Promise.all(others)]));
    expect(answers.every((rows) => rows[0]?.one === 1)).toBe(true);
    const found = await Promise.all(ids.flat().map(findJob));
    expect(found.filter((rows) => rows.length === 1)).toHaveLength(24);
  });

  test("a second migration leaves the queued jobs alone", async () => {
    const id = await inTime(db.transaction((tx) => jobs.enqueue(tx, "send-mail", mail("kept"))));
    expect(await migrate(db, () => new Date())).toEqual([]);
    expect(await findJob(id)).toHaveLength(1);
  });
});

// An installation from before jobs were run has the library's tables, and gets what is added to them.
test("a migration adds what an older version did not have, and leaves the queued jobs alone", async () => {
  const id = await inTime(db.transaction((tx) => jobs.enqueue(tx, "send-mail", mail("kept"))));
  await db.query("DROP TRIGGER erase_secrets ON jobs.job; DROP INDEX jobs.job_id, jobs.job_unfinished");
  expect(await isMigrated(db)).toBe(false);
  expect(await migrate(db, () => new Date())).toEqual(["job queue tables"]);
  expect(await isMigrated(db)).toBe(true);
  expect(await findJob(id)).toHaveLength(1);
});

// A worker that dies takes no job with it: another one's supervision gives the job back.
test("a job whose worker has died is tried again", async () => {
  const id = await db.transaction((tx) => jobs.enqueue(tx, "send-mail", mail(null)));
  await db.query("UPDATE jobs.job SET state = 'active', started_on = now() - interval '1 hour' WHERE id = $1", [id]);
  await superviseJobs(db);
  expect(await findJob(id)).toMatchObject([{ state: "retry" }]);
});
