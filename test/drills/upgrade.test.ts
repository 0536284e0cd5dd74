import { afterAll, beforeAll, expect, test } from "bun:test";
import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import connect from "postgres";
import { seedMany } from "../backup/support/seed.ts";
import { openPostgresAt } from "../support/database.ts";
import { freePort } from "../support/services.ts";
import { addUsers, percentile, type Report, startLoad } from "./load.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import {
  ADMIN_PASSWORD,
  type Child,
  canRun,
  FULL,
  initHome,
  inShort,
  login,
  post,
  primer,
  refresh,
  root,
  scratchFolder,
  serve,
  start,
} from "./processes.ts";
import { tableRow } from "./table.ts";

const possible = canRun(whyNoPostgres(), "drill of an upgrade");
const USERS = FULL ? 1_000_000 : 2000;
const PER_SECOND = FULL ? { login: 10, refresh: 50, verify: 100 } : { login: 2, refresh: 10, verify: 20 };
const LOAD_AROUND_MS = FULL ? 5000 : 1000;
/** A report that somebody runs on the table that is to be changed: longer than a migration waits for it at a time. */
const REPORT_MS = 3000;
const NO_WRITE_BLOCKED_MS = 500;
inShort(`an upgrade with ${USERS} users, a million with TEST_FULL; there its times are held against the promise`);

/** What a later version adds, in each of the ways that touch a table which is there. */
const EXPANDS = `ALTER TABLE users ADD COLUMN nickname text NOT NULL DEFAULT '';
--> statement-breakpoint
ALTER TABLE sessions ADD COLUMN risk integer;
--> statement-breakpoint
ALTER TABLE sessions ADD CONSTRAINT sessions_risk_known CHECK (risk BETWEEN 0 AND 100) NOT VALID;
--> statement-breakpoint
CREATE TABLE badges (id uuid PRIMARY KEY, user_id uuid REFERENCES users (id) ON DELETE CASCADE);`;
/** And a later one still, when nobody needs what was there before. */
const CONTRACTS = "-- contracts\nALTER TABLE users DROP COLUMN nickname;";

const scratch = scratchFolder();
const home = join(scratch.path, "home");
let postgres: OwnPostgres;
let variables: Record<string, string>;
const started: Child[] = [];
beforeAll(async () => {
  if (!possible) return;
  postgres = await ownPostgres();
  variables = { DATABASE_URL: postgres.url };
  await initHome(home, variables);
}, 60_000);
afterAll(async () => {
  for (const child of started) await child.kill();
  if (possible) await postgres.remove();
  scratch.remove();
});

/** The source of a version that comes after this one: it has these migrations more. @returns its main file */
function laterVersion(name: string, migrations: Readonly<Record<string, string>>): string {
  const folder = join(scratch.path, name);
  for (const part of ["cli", "config", "db", "server", "worker", "package.json"]) {
    cpSync(join(root, part), join(folder, part), { recursive: true });
  }
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  const list = join(folder, "db/migrations/index.ts");
  const rows = Object.entries(migrations).map(([tag, sql]) => JSON.stringify({ name: tag, sql }));
  writeFileSync(list, readFileSync(list, "utf8").replace(/\];\s*$/, `  ${rows.join(",\n  ")},\n];\n`));
  return join(folder, "cli/main.ts");
}

async function migrateWith(main: string): Promise<string[]> {
  const { exitCode, out, notes } = await start([main, "migrate", "--json", "--dir", home], variables).finished;
  if (exitCode !== 0) throw new Error(`migrate ended with ${exitCode}: ${out}${notes}`);
  return JSON.parse(out).applied;
}

/** Reads a table for a while, which nobody can change until that is over. */
async function runReport(): Promise<void> {
  const connection = connect(postgres.url, { max: 1 });
  await connection.unsafe(`BEGIN; SELECT count(*) FROM users; SELECT pg_sleep(${REPORT_MS / 1000}); COMMIT`);
  await connection.end();
}

function expectServed({ kinds }: Report): void {
  for (const [kind, seen] of Object.entries(kinds)) {
    expect([kind, seen.failures, Object.keys(seen.latencies).filter((status) => status !== "200")]).toEqual([
      kind,
      [],
      [],
    ]);
  }
}

// An upgrade migrates first. The version before goes on serving meanwhile and afterwards, nobody waits for a table, and
// it may be gone back to, until a version takes away what it needs: on that it does not start.
test.if(possible)(`an upgrade under load with ${USERS} users, and the way back`, async () => {
  const db = await openPostgresAt(postgres.url);
  const usernames = await addUsers(db, 50);
  await seedMany(db, USERS);
  const now = await serve(home, variables);
  started.push(now);
  const sessions = [];
  for (const username of usernames) {
    const { body } = await post(now.url, "/api/v1/auth/login", { username, password: ADMIN_PASSWORD });
    sessions.push(body);
  }
  const next = laterVersion("next", { "9998_expands": EXPANDS });
  const load = startLoad({ url: now.url, usernames, sessions, perSecond: PER_SECOND, durationMs: 600_000 });
  await Bun.sleep(LOAD_AROUND_MS);
  const report = runReport();
  const began = performance.now();
  const applied = await Promise.all([migrateWith(next), migrateWith(next)]);
  const tookMs = performance.now() - began;
  await report;
  await Bun.sleep(LOAD_AROUND_MS);
  load.stop();
  const seen = await load.report;
  expect(applied.map((names) => names.join()).sort()).toEqual(["", "9998_expands"]);
  expectServed(seen);
  const writes = seen.kinds.refresh.latencies[200] ?? [];
  const longest = Math.max(...writes);
  tableRow(
    `D21 upgrade with ${USERS} users, under load`,
    `0 failed requests; no write blocked for over ${NO_WRITE_BLOCKED_MS} ms; of two that migrate at once one does`,
    `${writes.length} writes: p99 ${percentile(writes, 99).toFixed(0)} ms, longest ${longest.toFixed(0)} ms; migrated in ${Math.round(tookMs)} ms behind a report of ${REPORT_MS} ms`,
  );
  if (FULL) expect(longest).toBeLessThan(NO_WRITE_BLOCKED_MS);

  // Both versions serve beside each other, then the later one is gone back from.
  const after = start([next, "serve", "--dir", home, "--port", String(await freePort())], variables);
  started.push(after);
  const nextUrl = await after.until((out) => /"event":"server.started","url":"([^"]+)"/.exec(out)?.[1]);
  const { body } = await login(nextUrl);
  const renewed = await refresh(now.url, body.refresh_token);
  expect(renewed.status).toBe(200);
  for (const server of [after, now]) {
    server.signal("SIGTERM");
    expect((await server.finished).exitCode).toBe(0);
  }
  const again = await serve(home, variables);
  started.push(again);
  expect((await refresh(again.url, renewed.body.refresh_token)).status).toBe(200);
  for (const words of [["migrate"], ["migrate", "--check"]]) {
    expect((await primer(home, words, variables).finished).exitCode).toBe(1);
  }

  const last = laterVersion("last", { "9998_expands": EXPANDS, "9999_contracts": CONTRACTS });
  expect(await migrateWith(last)).toEqual(["9999_contracts"]);
  again.signal("SIGTERM");
  await again.finished;
  for (const words of [["serve"], ["worker"], ["users", "list"]]) {
    const { exitCode, notes } = await primer(home, words, variables).finished;
    expect([words, exitCode, notes.includes("9999_contracts")]).toEqual([words, 1, true]);
  }
  await db.close();
});
