/** Many users and sessions cost nobody who logs in or refreshes any time, and neither does their end. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { loadavg } from "node:os";
import { join } from "node:path";
import { loadSettings } from "../../config/load.ts";
import { readSecrets, type SecretKey } from "../../config/secrets.ts";
import type { Database, Row } from "../../db/database.ts";
import { openKeyRing } from "../../server/features/keys/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { openPostgresAt } from "../support/database.ts";
import { addOver, fill, type Size, TABLES } from "./fill.ts";
import { type Kind, percentile, type Report, type Session, startLoad } from "./load.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import { canRun, FULL, initHome, inShort, primer, type Server, scratchFolder, serve } from "./processes.ts";
import { tableRow } from "./table.ts";

inShort(
  "20,000 users and 50,000 sessions, of which 15,000 rows expire, 1,000,000 and 10,000,000 with TEST_FULL; no time is judged, but which indexes are used, how many rows are read and deleted at a time",
);
const possible = canRun(whyNoPostgres(), "drill of a million users");

const FEW: Size = { users: 1000, sessions: 1000 };
const MANY: Size = FULL ? { users: 1_000_000, sessions: 10_000_000 } : { users: 20_000, sessions: 50_000 };
/** Of how many users and sessions there are requests; each session is one that was not touched for long. */
const ASKING = FULL ? 20_000 : 1000;
const RATES = { login: 5, refresh: 40 };
const ROUNDS = 7;
const ROUND_MS = FULL ? 20_000 : 2000;
const WARM_UP_MS = 10_000;
const SLOWER_AT_MOST = 1.15;

/** Each session has its refresh tokens besides. */
const EXPIRED = FULL ? { sessions: 4_000_000, logins: 2_000_000 } : { sessions: 6000, logins: 3000 };
/** What would go in a day or two. */
const KEPT = { sessions: EXPIRED.sessions / 100, logins: EXPIRED.logins / 100 };
const EXPIRED_ROWS = 2 * EXPIRED.sessions + EXPIRED.logins;
const WITH_CLEAN_UP = { login: 10, refresh: 40, verify: 100 };
/** Of so many sessions, which all processes remember. */
const VERIFIED = FULL ? 5000 : 100;
const BEFORE_MS = FULL ? 120_000 : 1500;
const P99_SLOWER_AT_MOST = 1.2;
/** As worker/schedules/clean-up.ts bounds it. */
const LARGEST_BATCH = 5000;
const HOURS_MS = 3 * 3_600_000;

interface Installation {
  readonly home: string;
  readonly variables: Record<string, string>;
  readonly db: Database;
  readonly key: SecretKey;
  server: Server;
  sessions: Session[];
  usernames: string[];
}

const scratch = scratchFolder();
let postgres: OwnPostgres;
let many: Installation;
/** What that is held against. */
let few: Installation | undefined;
beforeAll(async () => {
  if (!possible) return;
  // As one that is meant for so many would be set; else filling it takes twice as long.
  postgres = await ownPostgres({ settings: FULL ? { shared_buffers: "1GB", max_wal_size: "8GB" } : {} });
  many = await install("many", MANY);
  if (FULL) few = await install("few", FEW);
}, HOURS_MS);
afterAll(async () => {
  if (!possible) return;
  for (const one of [many, few]) {
    await one?.server.kill();
    await one?.db.close();
  }
  await postgres.remove();
  scratch.remove();
});

/** An installation in a database of its own, filled and served. The elliptic key hides the least of what the database takes. */
async function install(name: string, size: Size): Promise<Installation> {
  const cluster = await openPostgresAt(postgres.url);
  await cluster.query(`CREATE DATABASE ${name}`);
  await cluster.close();
  const home = join(scratch.path, name);
  const variables = { DATABASE_URL: postgres.url.replace(/\w+$/, name) };
  await initHome(home, variables);
  const db = await openPostgresAt(variables.DATABASE_URL);
  const secrets = readSecrets(loadSettings(home, variables).variables);
  const key = (await openKeyRing(db.orm, secrets, systemClock)).refresh();
  const asking = Math.min(ASKING, size.sessions);
  const sessions = await fill(db, size, asking, key);
  const apart = Math.floor(size.users / Math.min(asking, size.users));
  const usernames = Array.from({ length: Math.floor(size.users / apart) }, (_, index) => `user${1 + index * apart}`);
  return { home, variables, db, key, server: await serve(home, variables), sessions, usernames };
}

/** A load on an installation, of users and sessions that were asked for the longest time ago. */
function startRound(on: Installation, perSecond: Partial<Record<Kind, number>>, durationMs: number) {
  const { server, usernames } = on;
  const { stop, report } = startLoad({ url: server.url, durationMs, usernames, sessions: on.sessions, perSecond });
  const answered = report.then((seen) => {
    on.sessions = seen.sessions;
    const logins = seen.kinds.login.scheduled;
    on.usernames = [...usernames.slice(logins), ...usernames.slice(0, logins)];
    expectAnswered(seen);
    return seen;
  });
  return { stop, answered };
}

const round = (on: Installation, perSecond: Partial<Record<Kind, number>>, durationMs: number): Promise<Report> =>
  startRound(on, perSecond, durationMs).answered;

function expectAnswered({ kinds }: Report): void {
  for (const [kind, seen] of Object.entries(kinds)) {
    const others = Object.keys(seen.latencies).filter((status) => status !== "200");
    expect([kind, others, seen.failures]).toEqual([kind, [], []]);
  }
}

const times = ({ kinds }: Report, kind: Kind) => kinds[kind].latencies[200] ?? [];
const median = (values: readonly number[]) => percentile(values, 50);
const shown = (values: readonly number[]) =>
  `${percentile(values, 50).toFixed(1)}/${percentile(values, 99).toFixed(1)}`;

/** What PostgreSQL has counted of a table that was filled. */
interface TableUse extends Row {
  readonly name: string;
  readonly scans: number;
  /** Rows that were read, by whatever way. */
  readonly read: number;
}

/** Once the server is stopped, whose connections keep their counts to themselves for a while. */
async function tableUse({ server, db }: Installation): Promise<TableUse[]> {
  server.signal("SIGTERM");
  await server.finished;
  return db.query<TableUse>(
    `SELECT relname AS name, seq_scan::int AS scans, (seq_tup_read + coalesce(idx_tup_fetch, 0))::float8 AS read
     FROM pg_stat_user_tables WHERE relname IN (${TABLES.map((name) => `'${name}'`).join(", ")}) ORDER BY relname`,
  );
}

// Whoever logs in or refreshes waits as long where there are a thousand times, or ten thousand times, as many.
test.if(possible)(
  "login and refresh read by index, and as few rows as ever",
  async () => {
    const before = await tableUse(many);
    many.server = await serve(many.home, many.variables);
    const { kinds } = await round(many, RATES, ROUND_MS);
    const after = await tableUse(many);
    many.server = await serve(many.home, many.variables);

    const requests = kinds.login.scheduled + kinds.refresh.scheduled;
    const grown = after.map(({ name, scans, read }, index) => {
      const was = before[index];
      return { name, scans: scans - (was?.scans ?? 0), readEach: (read - (was?.read ?? 0)) / requests };
    });
    expect(grown.map(({ name }) => name)).toEqual([...TABLES].sort());
    expect(grown.filter(({ scans }) => scans > 0)).toEqual([]);
    const most = Math.max(...grown.map(({ readEach }) => readEach));
    expect(most).toBeGreaterThan(0); // it was counted
    expect(most).toBeLessThan(10);
    tableRow(
      `what login and refresh read at ${MANY.users} users and ${MANY.sessions} sessions`,
      "only by index; fewer than 10 rows of any table for each request",
      grown.map(({ name, readEach }) => `${name} ${readEach.toFixed(2)}`).join(", "),
    );
  },
  HOURS_MS,
);

test.if(possible && FULL)(
  `login and refresh take as long at ${MANY.users} users and ${MANY.sessions} sessions as at ${FEW.users}`,
  async () => {
    if (!few) throw new Error("There is nothing to hold it against");
    for (const one of [few, many]) await round(one, RATES, WARM_UP_MS);
    const pairs: { few: Report; many: Report }[] = [];
    // One after the other: what else the machine is doing meets both.
    for (let turn = 0; turn < ROUNDS; turn++) {
      pairs.push({ few: await round(few, RATES, ROUND_MS), many: await round(many, RATES, ROUND_MS) });
    }
    const judged = (["login", "refresh"] as const).map((kind) => {
      const ratios = pairs.map((pair) => median(times(pair.many, kind)) / median(times(pair.few, kind)));
      const alone = pairs.map((pair) => median(times(pair.few, kind)));
      const all = (which: "few" | "many") => shown(pairs.flatMap((pair) => times(pair[which], kind)));
      const text = [
        `${kind} ${all("few")} and ${all("many")} ms`,
        `ratio of medians ${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
        `few alone vary by ${((Math.max(...alone) / Math.min(...alone) - 1) * 100).toFixed(0)} %`,
      ].join(", ");
      return { ratio: median(ratios), text };
    });
    tableRow(
      `latency (p50/p99) at ${FEW.users} users and sessions, and at ${MANY.users} and ${MANY.sessions}`,
      `median at most ${Math.round((SLOWER_AT_MOST - 1) * 100)} % longer, of ${ROUNDS} rounds in turn`,
      `${judged.map(({ text }) => text).join("; ")}; load average ${loadavg()[0]?.toFixed(1)}`,
    );
    for (const { ratio } of judged) expect(ratio).toBeLessThan(SLOWER_AT_MOST);
  },
  HOURS_MS,
);

/** Writes down how many rows each statement deletes, where that is not in the way of what is measured. */
const noteBatches = (db: Database) =>
  db.query(`
    CREATE TABLE drill_batches (rows int NOT NULL);
    CREATE FUNCTION drill_note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO drill_batches SELECT count(*) FROM gone; RETURN NULL; END $$;
    CREATE TRIGGER drill_note AFTER DELETE ON sessions REFERENCING OLD TABLE AS gone
      FOR EACH STATEMENT EXECUTE FUNCTION drill_note();
    CREATE TRIGGER drill_note AFTER DELETE ON login_records REFERENCING OLD TABLE AS gone
      FOR EACH STATEMENT EXECUTE FUNCTION drill_note();`);

interface Rows extends Row {
  readonly sessions: number;
  readonly families: number;
  readonly logins: number;
}

/** Those made before a time. Reading all of them takes a while. */
async function rowsBefore(db: Database, time: Date): Promise<Rows> {
  return db.longTransaction(async (connection) => {
    const [row] = await connection.query<Rows>(
      `SELECT (SELECT count(*)::int FROM sessions WHERE created_at < $1) AS sessions,
         (SELECT count(*)::int FROM refresh_families WHERE created_at < $1) AS families,
         (SELECT count(*)::int FROM login_records WHERE created_at < $1) AS logins`,
      [time.toISOString()],
    );
    return row as Rows; // what is counted is one row, whatever there is
  });
}

const DAY_MS = 24 * 3_600_000;
const daysAgo = (days: number) => new Date(Date.now() - days * DAY_MS);

// What is over goes while others log in, and they do not wait for it.
test.if(possible)(
  `${EXPIRED_ROWS} expired rows are cleaned up: all of them and no other`,
  async () => {
    const { db, key, home, variables } = many;
    await addOver(db, MANY, { ...EXPIRED, days: 30, loginDays: 365, spreadDays: 20 }, key);
    await addOver(db, MANY, { ...KEPT, days: 27, loginDays: 364, spreadDays: 0.5 }, key);
    if (!FULL) await noteBatches(db);
    const filledUntil = new Date();
    const filled = await rowsBefore(db, filledUntil);
    // Those that were filled in have no access tokens yet.
    many.sessions = many.sessions.slice(0, VERIFIED);
    await round(many, { refresh: 100 }, VERIFIED * 10 + 500);
    const before = await round(many, WITH_CLEAN_UP, BEFORE_MS);

    const load = startRound(many, WITH_CLEAN_UP, HOURS_MS);
    const began = performance.now();
    const cleaned = await primer(home, ["worker", "--run-once", "clean-up", "--json"], variables).finished;
    const tookMs = performance.now() - began;
    if (!FULL) await Bun.sleep(1000); // there is something to see also where that took no time
    load.stop();
    const meanwhile = await load.answered;

    if (cleaned.exitCode !== 0) throw new Error(`The clean-up ended with ${cleaned.exitCode}: ${cleaned.notes}`);
    expect(JSON.parse(cleaned.out).details).toMatchObject(EXPIRED);
    expect(await rowsBefore(db, filledUntil)).toEqual({
      sessions: filled.sessions - EXPIRED.sessions,
      families: filled.families - EXPIRED.sessions,
      logins: filled.logins - EXPIRED.logins,
    });
    expect(await rowsBefore(db, daysAgo(32))).toMatchObject({ sessions: 0, families: 0, logins: KEPT.logins });
    expect(await rowsBefore(db, daysAgo(365))).toMatchObject({ logins: 0 });
    const judged = (["login", "refresh", "verify"] as const).map((kind) => ({
      text: `${kind} ${shown(times(before, kind))}, then ${shown(times(meanwhile, kind))} ms`,
      ratio: percentile(times(meanwhile, kind), 99) / percentile(times(before, kind), 99),
    }));
    tableRow(
      `${EXPIRED_ROWS} expired rows cleaned up under load`,
      `all of them and no other; p99 of login, refresh and verify at most ${Math.round((P99_SLOWER_AT_MOST - 1) * 100)} % longer`,
      `in ${Math.round(tookMs / 1000)} s; p50/p99 ${judged.map(({ text }) => text).join("; ")}; load average ${loadavg()[0]?.toFixed(1)}`,
    );
    if (FULL) for (const { ratio } of judged) expect(ratio).toBeLessThan(P99_SLOWER_AT_MOST);
    else {
      const [batches] = await db.query(`SELECT max(rows) AS largest, count(*)::int AS count FROM drill_batches`);
      expect(batches?.largest).toBeLessThanOrEqual(LARGEST_BATCH);
      expect(batches?.count).toBeGreaterThanOrEqual(Math.ceil((EXPIRED.sessions + EXPIRED.logins) / LARGEST_BATCH));
    }
  },
  HOURS_MS,
);
