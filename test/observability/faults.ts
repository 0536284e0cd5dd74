import { newId } from "../db/rows.ts";
import { openPostgresAt } from "../support/database.ts";
import { queueOn } from "../worker/support/jobs.ts";

const BATCH = 100;

/** Queues so many jobs that no worker can do anything with. */
export async function queueJobs(url: string, count: number): Promise<void> {
  const db = await openPostgresAt(url);
  const queue = await queueOn(db);
  try {
    const payload = { template: "password_changed", user_id: newId(), request_id: null } as const;
    for (let queued = 0; queued < count; queued += BATCH) {
      await db.transaction(async (tx) => {
        for (let made = 0; made < BATCH; made++) await queue.enqueue(tx, "send-mail", payload);
      });
    }
  } finally {
    await queue.close();
    await db.close();
  }
}
