import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import type { Database } from "../../db/database.ts";
import type { JobQueue } from "../../db/jobs.ts";
import { openPostgresAt } from "../support/database.ts";
import { queueOn } from "../worker/support/jobs.ts";
import { type SmtpHost, startSmtp } from "../worker/support/smtp.ts";
import { addUsers } from "./load.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import { type Child, canRun, FULL, initHome, inShort, primer, scratchFolder, waitFor } from "./processes.ts";
import { tableRow } from "./table.ts";

const possible = canRun(whyNoPostgres(), "drill of mails whose workers are killed");
const MAILS = 1000;
const KILLS = 60;
const KILL_EVERY_MS = 2000;
/** How long the mail server thinks about each mail, which it keeps though whoever sent it is gone by then. */
const THINKS_MS = 100;
/** A job of a worker that died is taken over after its silence, which is as long as it is in production. */
const DELIVERED_WITHIN_MS = 120_000;
inShort(`no mails are sent while workers are killed; ${MAILS} and ${KILLS} kills with TEST_FULL`);

const scratch = scratchFolder();
const home = join(scratch.path, "home");
let postgres: OwnPostgres;
let smtp: SmtpHost;
let variables: Record<string, string>;
let db: Database;
let queue: JobQueue;
beforeAll(async () => {
  if (!possible) return;
  [postgres, smtp] = await Promise.all([
    ownPostgres(),
    startSmtp({ onMessage: () => Bun.sleep(THINKS_MS).then(() => undefined) }),
  ]);
  variables = { DATABASE_URL: postgres.url, SMTP_URL: `smtp://127.0.0.1:${smtp.port}` };
  await initHome(home, variables);
  db = await openPostgresAt(postgres.url);
  queue = await queueOn(db);
}, 60_000);
afterAll(async () => {
  if (possible) {
    await queue.close();
    await db.close();
    await smtp.close();
    await postgres.remove();
  }
  scratch.remove();
});

async function startWorker(): Promise<Child> {
  const child = primer(home, ["worker"], variables);
  await child.until((out) => out.includes('"worker.started"'));
  return child;
}

// A mail comes twice only where a worker died between the mail server's yes and its own note of it: at most once for each
// death, and with the same Message-ID, by which mail programs show it once.
test.if(possible && FULL)(`${MAILS} mails by two workers, of which one is killed ${KILLS} times`, async () => {
  await addUsers(db, MAILS);
  const users = await db.query<{ id: string; email: string }>("SELECT id, email FROM users WHERE username <> 'admin'");
  const send = (some: typeof users) =>
    db.transaction(async (tx) => {
      const payload = { template: "password_changed", request_id: null } as const;
      for (const { id } of some) await queue.enqueue(tx, "send-mail", { ...payload, user_id: id });
    });
  const workers = [await startWorker(), await startWorker()];
  for (let kill = 0; kill < KILLS; kill++) {
    // All the time there is something to send when one is killed.
    const share = Math.ceil(MAILS / KILLS);
    await send(users.slice(kill * share, (kill + 1) * share));
    await Bun.sleep(kill % 2 === 0 ? 150 : KILL_EVERY_MS);
    await workers[kill % 2]?.kill();
    workers[kill % 2] = await startWorker();
  }
  const addresses = () => new Set(smtp.received.flatMap(({ to }) => to));
  const restMs = await waitFor("every mail", () => addresses().size === MAILS, DELIVERED_WITHIN_MS);
  expect(users.filter(({ email }) => !addresses().has(email))).toEqual([]);
  const ids = new Map<string, Set<string | undefined>>();
  for (const { to, mail } of smtp.received) {
    const address = String(to[0]);
    ids.set(address, (ids.get(address) ?? new Set()).add(mail.messageId));
  }
  expect([...ids.values()].filter((messages) => messages.size !== 1)).toEqual([]);
  const twice = smtp.received.length - MAILS;
  tableRow(
    `D15 ${MAILS} mails, two workers, ${KILLS} kills`,
    "all delivered; duplicates at most the kills, each with its Message-ID",
    `all delivered, ${twice} twice; the last ${Math.round(restMs / 1000)} s after the last kill`,
  );
  expect(twice).toBeLessThanOrEqual(KILLS);
  for (const worker of workers) worker.signal("SIGTERM");
  expect((await Promise.all(workers.map(({ finished }) => finished))).map(({ exitCode }) => exitCode)).toEqual([0, 0]);
});
