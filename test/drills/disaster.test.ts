import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { seedMany } from "../backup/support/seed.ts";
import { openPostgresAt } from "../support/database.ts";
import { addUsers, percentile, startLoad } from "./load.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import {
  ADMIN_PASSWORD,
  type Child,
  canRun,
  expectAuditWhole,
  FULL,
  initHome,
  inShort,
  post,
  primer,
  refresh,
  scratchFolder,
  serve,
} from "./processes.ts";
import { tableRow } from "./table.ts";

const possible = canRun(whyNoPostgres(), "drill of a disaster");
const USERS = FULL ? 1_000_000 : 1000;
const PER_SECOND = FULL ? { login: 10, refresh: 50, verify: 100 } : { login: 2, refresh: 10, verify: 20 };
const BACK_WITHIN_MS = 10 * 60_000;
inShort(`${USERS} users are restored on a clean machine, a million with TEST_FULL`);

const scratch = scratchFolder();
const home = join(scratch.path, "home");
const file = join(scratch.path, "primer.backup");
const passphrase = join(scratch.path, "passphrase");
const servers: OwnPostgres[] = [];
const started: Child[] = [];
beforeAll(() => writeFileSync(passphrase, "a passphrase of enough length"));
afterAll(async () => {
  for (const child of started) await child.kill();
  for (const server of servers) await server.remove();
  scratch.remove();
});

async function cleanPostgres(): Promise<{ server: OwnPostgres; variables: Record<string, string> }> {
  const server = await ownPostgres();
  servers.push(server);
  return { server, variables: { DATABASE_URL: server.url } };
}

const logInAs = (url: string, username: string) =>
  post(url, "/api/v1/auth/login", { username, password: ADMIN_PASSWORD });

// Everything is lost but the backup, which was taken under load, and the secrets, which are kept elsewhere. On a clean
// machine everybody is there who was there when it began, and logs in; no token of before comes back to life.
test.if(possible)(`a backup of ${USERS} users under load, everything destroyed, restored`, async () => {
  const before = await cleanPostgres();
  await initHome(home, before.variables);
  const db = await openPostgresAt(before.server.url);
  const usernames = await addUsers(db, 50);
  await seedMany(db, USERS);
  await db.close();
  const server = await serve(home, before.variables);
  started.push(server);
  const tokens = [];
  for (const name of usernames) tokens.push((await logInAs(server.url, name)).body);
  const [unused, ...sessions] = tokens;
  const load = startLoad({ url: server.url, usernames, sessions, perSecond: PER_SECOND, durationMs: 1_800_000 });
  const words = ["--passphrase-file", passphrase, "--json"];
  const taken = await primer(home, ["backup", file, ...words], before.variables).finished;
  expect([taken.exitCode, taken.exitCode === 0 ? "" : taken.notes]).toEqual([0, ""]);
  load.stop();
  const seen = await load.report;
  for (const { latencies, failures, withoutRetryAfter } of Object.values(seen.kinds)) {
    expect([failures, withoutRetryAfter]).toEqual([[], 0]);
    expect(Object.keys(latencies).filter((status) => status !== "200" && status !== "503")).toEqual([]);
  }
  const secrets = join(scratch.path, "secrets.env");
  writeFileSync(secrets, readFileSync(join(home, "secrets.env")), { mode: 0o600 });
  await server.kill();
  await before.server.remove();

  const clean = await cleanPostgres();
  const newHome = join(scratch.path, "new home");
  const began = performance.now();
  const restored = await primer(
    newHome,
    ["restore", file, "--secrets", secrets, "--database-url", clean.server.url, "--yes", ...words],
    clean.variables,
  ).finished;
  expect([restored.exitCode, restored.exitCode === 0 ? "" : restored.notes]).toEqual([0, ""]);
  const after = await serve(newHome, clean.variables);
  started.push(after);
  expect((await logInAs(after.url, "admin")).status).toBe(200);
  const backMs = performance.now() - began;
  for (const name of usernames) expect([name, (await logInAs(after.url, name)).status]).toEqual([name, 200]);
  for (const { refresh_token } of [unused, ...seen.sessions]) {
    expect((await refresh(after.url, refresh_token)).status).toBe(401);
  }
  const restoredDb = await openPostgresAt(clean.server.url);
  const [row] = await restoredDb.query<{ users: number }>("SELECT count(*)::int AS users FROM users");
  await restoredDb.close();
  expect(row?.users).toBe(USERS + usernames.length + 1);
  after.signal("SIGTERM");
  await after.finished;
  await expectAuditWhole(newHome, clean.variables);

  const { rows, bytes, seconds } = JSON.parse(taken.out);
  const refused = Object.values(seen.kinds).reduce((sum, kind) => sum + (kind.latencies[503]?.length ?? 0), 0);
  const slowest = (kind: "refresh" | "login") => percentile(seen.kinds[kind].latencies[200] ?? [], 99).toFixed(0);
  tableRow(
    `D23 ${USERS} users backed up under load and restored on a clean machine`,
    `everybody logs in within ${BACK_WITHIN_MS / 60_000} min; no token of before lives`,
    `${rows} rows in ${seconds} s, ${(bytes / 2 ** 20).toFixed(0)} MiB, p99 of refresh ${slowest("refresh")} ms and login ${slowest("login")} ms meanwhile, ${refused} answered 503; back in ${(backMs / 1000).toFixed(0)} s`,
  );
  expect(backMs).toBeLessThan(BACK_WITHIN_MS);
});
