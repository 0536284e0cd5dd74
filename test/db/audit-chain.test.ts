import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { createLog } from "../../config/log.ts";
import type { Connection, Database } from "../../db/database.ts";
import { CREATE_RECORDS, migrate, recordOf, statementsOf } from "../../db/migrate.ts";
import { MIGRATIONS } from "../../db/migrations/index.ts";
import { openPgliteInMemory } from "../../db/pglite.ts";
import { findChainHead } from "../../db/queries/audit-chain.ts";
import { continueAuditNumbers } from "../../db/queries/audit-months.ts";
import {
  audit,
  type ChainReport,
  chainReaderOn,
  createSealer,
  dropAuditMonths,
  forgetFirst,
  makeAuditMonths,
  SEALING_LOCK,
  verifyChain,
} from "../../server/features/audit/service.ts";
import { heldClock } from "../../server/ports/clock.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { createPostgresDatabase, openPostgresAt, TEST_DATABASE, type TestDatabase } from "../support/database.ts";
import { takeTestDatabase } from "../support/pooled-database.ts";
import { newId } from "./rows.ts";

const MONTHS = [
  "2026-01-31T23:59:59.999Z",
  "2026-02-01T00:00:00.000Z",
  "2026-02-14T12:00:00.000Z",
  "2026-03-01T12:00:00Z",
];
const ON_SERVER = TEST_DATABASE === "postgres";
if (!ON_SERVER) process.stderr.write("not on the embedded database, which has one connection: rows that commit late\n");
const PARALLEL = ON_SERVER ? 50 : 10;

let db: TestDatabase;
/** Both sides of a link say the same, and the link does not. */
const CHANGE_TIME = `WITH moved AS (UPDATE audit_seals SET time = time + interval '1 millisecond' WHERE event_id = $1)
  UPDATE audit_log SET time = time + interval '1 millisecond' WHERE id = $1`;
/** Moved by hand: the sealer asks it how much time has gone by. */
let elapsed = 0;
/** A new one for each test. */
function onOwnDatabase(): void {
  beforeEach(async () => {
    elapsed = 0;
    db = await takeTestDatabase();
  });
  afterEach(() => db.close());
}
/** One with four rows, all of them sealed, that nobody changes. */
let sealed: TestDatabase;
beforeAll(async () => {
  sealed = await takeTestDatabase();
  for (const at of MONTHS) await write(at, newId(), sealed);
  await sealAll(createSealer(sealed, () => elapsed));
});
afterAll(() => sealed.close());

const event = (actorId: string, details = {}) => ({
  action: "login" as const,
  outcome: "success" as const,
  actor: { kind: "user" as const, id: actorId },
  subject: { kind: "session", id: newId() },
  caller: { requestId: "request-1", ip: "192.0.2.1", userAgent: "test" },
  details,
});

const write = (at: string, actorId = newId(), on: Database = db) =>
  on.transaction((tx) => audit(tx, { clock: heldClock(new Date(at)), random: systemRandom }, event(actorId)));

/** As far as the log hears of it. */
const erase = (id: string, at = "2026-03-01T12:00:00.000Z") =>
  db.transaction(async (tx) => {
    const deps = { clock: heldClock(new Date(at)), random: systemRandom };
    const by = { outcome: "success", actor: { kind: "system" } } as const;
    await audit(tx, deps, { action: "user.erased", subject: { kind: "user", id }, ...by });
    await forgetFirst(tx, id);
  });

async function sealAll(sealer = createSealer(db, () => elapsed)): Promise<number> {
  for (let total = 0; ; ) {
    const { sealed, more } = await sealer.seal();
    total += sealed;
    if (!more) return total;
  }
}

const verify = (on: Database = db): Promise<ChainReport> => verifyChain(chainReaderOn(on), () => {});

class Undone extends Error {}

/** What a check says of what only somebody can do who has taken the database over; then it is as it was. */
async function verifyTampered(statement: string, values: readonly unknown[] = [], on = db): Promise<ChainReport> {
  let report: ChainReport | undefined;
  const work = on.longTransaction(async (connection) => {
    await connection.query("SET LOCAL session_replication_role = replica");
    await connection.query(statement, values);
    report = await verifyChain(chainReaderOn(connection), () => {});
    throw new Undone();
  });
  await expect(work).rejects.toBeInstanceOf(Undone);
  if (!report) throw new Error("Nothing was verified");
  return report;
}

const countOf = async (table: string, on: Connection = db) =>
  (await on.query<{ count: number }>(`SELECT count(*)::int AS count FROM ${table}`))[0]?.count;

describe("the chain of the audit log", () => {
  onOwnDatabase();

  test("holds whatever was written, over months, in as many batches as it takes", async () => {
    for (const at of MONTHS) await write(at);
    await db.query(
      `INSERT INTO audit_log (id, time, action, outcome, actor_kind)
       SELECT gen_random_uuid(), '2026-02-20', 'login', 'success', 'system' FROM generate_series(1, 2500)`,
    );
    expect(await sealAll()).toBe(2504);
    expect(await verify()).toMatchObject({
      ok: true,
      rows: 2504,
      months: 3,
      unsealed: { rows: 0, oldest: null },
      head: { seq: 2504, hash: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
    expect(await sealAll()).toBe(0);
  });

  // What was not sealed when a process died is sealed by the next, and is told of until then.
  test("says what is not sealed yet, and goes on from where it ended", async () => {
    await write("2026-03-01T12:00:00.000Z");
    await sealAll();
    await write("2026-03-01T12:00:01.000Z");
    await write("2026-03-01T12:00:02.000Z");
    const before = await verify();
    expect(before).toMatchObject({ ok: true, rows: 1, unsealed: { rows: 2, oldest: "2026-03-01T12:00:01.000Z" } });
    expect(await sealAll()).toBe(2);
    expect(await verify()).toMatchObject({ ok: true, rows: 3, unsealed: { rows: 0 } });
  });

  // A row that is put in later, with a number from before, is not taken for one that waits to be sealed.
  test("shows a row that was put in between", async () => {
    const sealer = createSealer(db, () => elapsed);
    const known = async () => (await findChainHead(db))?.sealed_through ?? 0;
    // Whether a number can still come is known once everything has ended that runs on this server.
    while ((await known()) < 2) {
      await write("2026-03-01T12:00:00.000Z");
      await sealAll(sealer);
      elapsed += 10_001;
    }
    const id = newId();
    const report = await verifyTampered(
      "INSERT INTO audit_log (id, time, action, outcome, actor_kind, number) VALUES ($1, '2026-03-01', 'login', 'success', 'system', 1)",
      [id],
    );
    expect(report.fault).toMatchObject({ kind: "inserted", seq: null, event_id: id });
  });

  // A number that nobody was given keeps nothing after it from being sealed, and is told.
  test.each(["9000000000000000000", "9223372036854775807", "1000000"])(
    "goes on past a row with number %s",
    async (number) => {
      const sealer = createSealer(db, () => elapsed);
      const id = newId();
      await db.query(
        `INSERT INTO audit_log (id, time, action, outcome, actor_kind, number)
       VALUES ('${id}', '2026-03-01', 'login', 'success', 'system', ${number})`,
      );
      for (let round = 0; round < 6; round++) {
        await write("2026-03-01T12:00:00.000Z");
        expect(await sealAll(sealer)).toBe(1);
        elapsed += 10_001;
      }
      expect((await verify()).fault).toMatchObject({ kind: "inserted", event_id: id });
    },
  );

  /** Some rows with numbers that were given out before, as whoever commits late has them. */
  const writeNumbers = (numbers: string) =>
    db.query(
      `INSERT INTO audit_log (id, time, action, outcome, actor_kind, number)
       SELECT gen_random_uuid(), '2026-03-01', 'login', 'success', 'system', number FROM ${numbers} AS number`,
    );

  // While a number is missed, which a long transaction may have, no row that was seen is read again and again for it.
  test("looks at each row once, whatever is still missed", async () => {
    let looked = 0;
    const counting: Connection = {
      async query(statement, values) {
        const rows = await db.query<never>(statement, values);
        looked += JSON.parse((rows[0] as { found?: string } | undefined)?.found ?? "{}").numbers?.length ?? 0;
        return rows;
      },
    };
    const sealer = createSealer(counting, () => elapsed);
    await db.query("SELECT setval('audit_log_number_seq', 6000)");
    for (let round = 0; round < 5; round++) {
      await writeNumbers(`generate_series(${round * 1200 + 2}, ${round * 1200 + 1200})`);
      expect(await sealAll(sealer)).toBe(1199);
    }
    expect(looked).toBe(5 * 1199);
    await writeNumbers("generate_series(1, 4801, 1200)");
    expect(await sealAll(sealer)).toBe(5);
    expect(looked).toBe(6000);
    expect((await verify()).ok).toBe(true);
  });

  // More may be missed than places are kept in mind: none is forgotten for that.
  test("seals what comes late also where very much is missed", async () => {
    const sealer = createSealer(db, () => elapsed);
    await db.query("SELECT setval('audit_log_number_seq', 5000)");
    await writeNumbers("generate_series(2, 5000, 2)");
    expect(await sealAll(sealer)).toBe(2500);
    await writeNumbers("generate_series(1, 2501, 2)");
    expect(await sealAll(sealer)).toBe(1251);
    await writeNumbers("generate_series(2503, 4999, 2)");
    expect(await sealAll(sealer)).toBe(1249);
    await write("2026-03-01T12:00:00.000Z");
    expect(await sealAll(sealer)).toBe(1);
    expect(await verify()).toMatchObject({ ok: true, rows: 5001, unsealed: { rows: 0 } });
  });

  // Whatever commits last is sealed, however early it was written.
  test.if(ON_SERVER)("seals a row that commits after later ones", async () => {
    const { promise: mayCommit, resolve: commit } = Promise.withResolvers<void>();
    const { promise: written, resolve: isWritten } = Promise.withResolvers<void>();
    const sealer = createSealer(db, () => elapsed);
    await write("2026-03-01T12:00:00.000Z");
    const late = db.transaction(async (tx) => {
      await audit(tx, { clock: heldClock(new Date("2026-03-01T12:00:01.000Z")), random: systemRandom }, event(newId()));
      isWritten();
      await mayCommit;
    });
    await written;
    for (let round = 0; round < 4; round++) {
      await write("2026-03-01T12:00:02.000Z");
      await sealAll(sealer);
      elapsed += 60_000;
    }
    commit();
    await late;
    expect(await sealAll(sealer)).toBe(1);
    expect(await verify()).toMatchObject({ ok: true, rows: 6, unsealed: { rows: 0 } });
  });

  // A number is had before a transaction has an id: the row is sealed although nothing shows that it will come.
  test.if(ON_SERVER)("seals a row of a transaction that began to write after its number was passed", async () => {
    const { promise: mayWrite, resolve: letWrite } = Promise.withResolvers<void>();
    const { promise: mayCommit, resolve: letCommit } = Promise.withResolvers<void>();
    const { promise: numbered, resolve: isNumbered } = Promise.withResolvers<void>();
    const { promise: written, resolve: isWritten } = Promise.withResolvers<void>();
    const sealer = createSealer(db, () => elapsed);
    await write("2026-03-01T12:00:00.000Z");
    const late = db.longTransaction(async (connection) => {
      const [row] = await connection.query<{ number: string; id: string | null }>(
        "SELECT nextval('audit_log_number_seq')::text AS number, pg_current_xact_id_if_assigned()::text AS id",
      );
      expect(row?.id).toBeNull();
      isNumbered();
      await mayWrite;
      await connection.query(
        "INSERT INTO audit_log (id, time, action, outcome, actor_kind, number) VALUES ($1, '2026-03-01', 'login', 'success', 'system', $2::bigint)",
        [newId(), row?.number],
      );
      isWritten();
      await mayCommit;
    });
    await numbered;
    await write("2026-03-01T12:00:01.000Z");
    await sealAll(sealer);
    letWrite();
    await written;
    for (let round = 0; round < 6; round++) {
      elapsed += 60_000;
      await sealAll(sealer);
    }
    letCommit();
    await late;
    expect(await sealAll(sealer)).toBe(1);
    expect(await verify()).toMatchObject({ ok: true, rows: 3, unsealed: { rows: 0 } });
  });

  // A sealer whose machine is gone keeps the lock from nobody for long.
  test.if(ON_SERVER)("goes on where whoever holds the lock is not heard of any more", async () => {
    const { promise: held, resolve: isHeld } = Promise.withResolvers<unknown>();
    const { promise: end, resolve: letEnd } = Promise.withResolvers<void>();
    const work = async (connection: Connection) => {
      const names = ["idle", "interval", "count"].map((name) => `current_setting('tcp_keepalives_${name}')::int`);
      isHeld(await connection.query(`SELECT ARRAY[${names.join(", ")}] AS settings`));
      await end;
    };
    const silent = db.exclusively(SEALING_LOCK, work, { idleMs: 300 });
    expect(await held).toEqual([{ settings: [10, 5, 3] }]);
    expect(await db.exclusively(SEALING_LOCK, async () => "it goes on")).toBe("it goes on");
    letEnd();
    await silent.catch(() => {});
  });

  test(`holds under ${PARALLEL} writers at the same time, while it is being made`, async () => {
    const sealer = createSealer(db, () => (elapsed += 5000));
    let writing = true;
    const sealing = (async () => {
      while (writing) await sealer.seal();
    })();
    const writer = async (index: number) => {
      for (let count = 0; count < 10; count++) {
        const at = new Date(Date.parse("2026-02-28T23:59:59.990Z") + ((index * 7 + count) % 20)).toISOString();
        if (count % 5 === 4) {
          await db
            .transaction(async (tx) => {
              await audit(tx, { clock: heldClock(new Date(at)), random: systemRandom }, event(newId()));
              throw new RangeError("undone");
            })
            .catch(() => {});
        } else await write(at);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, (_, index) => writer(index)));
    writing = false;
    await sealing;
    await sealAll(sealer);
    expect(await verify()).toMatchObject({ ok: true, rows: PARALLEL * 8, months: 2, unsealed: { rows: 0 } });
  });
});

// Whoever has taken the database over can change any byte of it; the check names the row that they changed.
describe("the chain shows", () => {
  let second = "";
  beforeAll(async () => {
    const [row] = await sealed.query<{ id: string }>("SELECT event_id AS id FROM audit_seals WHERE seq = 2");
    second = row?.id ?? "";
  });

  test.each<[string, string, Partial<NonNullable<ChainReport["fault"]>>]>([
    ["an action", "UPDATE audit_log SET action = 'logjn' WHERE id = $1", { kind: "changed", seq: 2 }],
    ["a time, by a millisecond, with its link", CHANGE_TIME, { kind: "changed", seq: 2 }],
    ["an address", "UPDATE audit_log SET ip = '192.0.2.2' WHERE id = $1", { kind: "changed", seq: 2 }],
    ["an actor", "UPDATE audit_log SET actor_id = 'x' WHERE id = $1", { kind: "changed", seq: 2 }],
    ["details", `UPDATE audit_log SET details = '{"a": 1}' WHERE id = $1`, { kind: "changed", seq: 2 }],
    ["whose the address is", "UPDATE audit_log SET caller_of = 'x' WHERE id = $1", { kind: "changed", seq: 2 }],
    ["a number", "UPDATE audit_log SET number = 0 WHERE id = $1", { kind: "changed", seq: 2 }],
    ["a salt", "UPDATE audit_log SET caller_salt = gen_random_uuid() WHERE id = $1", { kind: "changed", seq: 2 }],
    ["a hash", "UPDATE audit_seals SET hash = sha256(hash) WHERE event_id = $1", { kind: "changed", seq: 2 }],
    ["a digest", "UPDATE audit_seals SET caller_digest = hash WHERE event_id = $1", { kind: "changed", seq: 2 }],
    [
      "a row that is gone, and its link too",
      `WITH gone AS (DELETE FROM audit_seals WHERE event_id = $1) DELETE FROM audit_log WHERE id = $1`,
      { kind: "removed", seq: 2 },
    ],
    ["a row that is gone", "DELETE FROM audit_log WHERE id = $1", { kind: "removed", seq: 2 }],
    ["a link that is gone", "DELETE FROM audit_seals WHERE event_id = $1", { kind: "removed", seq: 2 }],
    ["a place taken twice", "UPDATE audit_seals SET seq = 1 WHERE event_id = $1", { kind: "inserted", seq: 1 }],
  ])("%s, and names the row", async (_what, statement, fault) => {
    const report = await verifyTampered(statement, [second], sealed);
    expect(report).toMatchObject({ ok: false, rows: 1, fault });
    if (report.fault?.event_id) expect(report.fault.event_id).toBe(second);
    expect(await verify(sealed)).toMatchObject({ ok: true, rows: 4 });
  });
});

// A chain that was made anew, whole, is told by a line that was kept elsewhere.
test("the chain holds an end that was kept, and no other", async () => {
  const links = await sealed.query<{ seq: number; hash: string }>(
    "SELECT seq::int, encode(hash, 'hex') AS hash FROM audit_seals ORDER BY seq",
  );
  const expecting = (expected: { seq: number; hash: string }) =>
    verifyChain(chainReaderOn(sealed), () => {}, { expected });
  for (const link of links) expect(await expecting(link)).toMatchObject({ ok: true });
  const [first, second] = links;
  const hash = first?.hash ?? "";
  expect((await expecting({ seq: second?.seq ?? 0, hash })).fault).toMatchObject({ kind: "changed", seq: 2 });
  expect((await expecting({ seq: 5, hash })).fault).toMatchObject({ kind: "removed", seq: 5 });
});

// The database itself refuses what nobody should do, whoever is connected and however.
describe("the audit log is added to, and never changed", () => {
  test.each([
    "UPDATE audit_log SET outcome = 'failure'",
    "UPDATE audit_log SET ip = NULL, user_agent = NULL, caller_salt = NULL",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "UPDATE audit_seals SET hash = ''",
    "DELETE FROM audit_seals",
    "TRUNCATE audit_seals",
  ])("%s", async (statement) => {
    const code = await sealed.query(statement).then(
      () => undefined,
      (error: { code?: string }) => error.code,
    );
    expect(code).toBe("42501");
    expect(await verify(sealed)).toMatchObject({ ok: true, rows: 4 });
  });
});

// Who is erased leaves no address behind, and the chain shows as much as before.
describe("erasure", () => {
  onOwnDatabase();

  test.each([false, true])("takes address and agent, whether they were sealed before (%p)", async (sealedBefore) => {
    const [gone, stays] = [{ id: newId() }, { id: newId() }];
    for (const { id } of [gone, stays]) await write("2026-03-01T12:00:00.000Z", id);
    if (sealedBefore) await sealAll();
    await erase(gone.id);
    const rows = await db.query(
      "SELECT ip, user_agent, caller_salt IS NULL AS unsalted FROM audit_log WHERE action = 'login' ORDER BY actor_id = $1 DESC",
      [gone.id],
    );
    expect(rows).toEqual([
      { ip: null, user_agent: null, unsalted: true },
      { ip: "192.0.2.1", user_agent: "test", unsalted: false },
    ]);
    await sealAll();
    expect(await verify()).toMatchObject({ ok: true, rows: 3, erased: sealedBefore ? 1 : 0 });
  });
});

// Whoever takes address and agent of somebody who lives is found out, also by those who may call the function for it.
test("address and agent that went without an erasure are missed", async () => {
  const report = await verifyTampered(
    "UPDATE audit_log SET ip = NULL, user_agent = NULL, caller_salt = NULL WHERE number = 2",
    [],
    sealed,
  );
  expect(report).toMatchObject({ rows: 1, fault: { kind: "changed", seq: 2 } });
});

describe("months", () => {
  onOwnDatabase();

  const log = createLog(
    () => "error",
    { write: () => {} },
    () => new Date(),
  );
  const drop = (endingBefore: string) =>
    dropAuditMonths(db, {
      endingBefore: new Date(endingBefore),
      now: new Date(endingBefore),
      random: systemRandom,
      log,
      signal: new AbortController().signal,
    });

  // A row is never lost for want of a partition, and the chain holds over what was dropped.
  test("get their partitions later too, go as a whole, and are known by their anchors", async () => {
    for (const at of [...MONTHS, MONTHS[0] ?? ""]) await write(at);
    expect(await countOf("audit_log_rest")).toBe(5);
    await sealAll();
    expect(await makeAuditMonths(db)).toBe(6);
    expect([await countOf("audit_log_rest"), await countOf("audit_seals_rest"), await countOf("audit_log")]).toEqual([
      0, 0, 5,
    ]);
    expect(await verify()).toMatchObject({ ok: true, rows: 5, months: 3 });

    expect(await drop("2026-01-31T23:00:00.000Z")).toBe(0);
    expect(await drop("2026-02-01T00:00:00.000Z")).toBe(2);
    // The last row of January came after those of February, so there are two stretches of it.
    expect(await countOf("audit_anchors")).toBe(2);
    expect(await verify()).toMatchObject({ ok: true, rows: 3, months: 2, dropped: { rows: 2, months: 1 } });
    // That they were dropped is in the log, with where the chain goes on.
    const anchors = await db.query("SELECT last_seq::int, encode(last_hash, 'hex') AS last_hash FROM audit_anchors");
    const [dropped] = await db.query("SELECT details FROM audit_log WHERE action = 'audit.month_dropped'");
    expect(dropped?.details).toMatchObject({ month: "2026-01", stretches: anchors });

    await write("2026-03-02T12:00:00.000Z");
    await sealAll();
    // With February goes the event of January's end; those of February and March know of January's too.
    expect(await drop("2026-05-01T00:00:00.000Z")).toBe(5);
    expect(await verify()).toMatchObject({ ok: true, rows: 0, dropped: { rows: 7, months: 3 }, head: { seq: 7 } });
    await write("2026-03-02T12:00:00.000Z");
    expect(await sealAll()).toBe(3);
    expect(await verify()).toMatchObject({ ok: true, rows: 3, head: { seq: 10 } });
  });

  // Whoever writes to the rest is not kept from it while it is emptied: that is done once its months are over.
  test("that are not over yet stay where they are written to", async () => {
    await db.query(
      `DO $$ BEGIN EXECUTE to_char(now() AT TIME ZONE 'UTC', '"DROP TABLE audit_log_y"YYYY"m"MM'); END $$`,
    );
    await write(MONTHS[0] ?? "");
    await write(new Date().toISOString());
    await sealAll();
    expect(await makeAuditMonths(db)).toBe(0);
    expect([await countOf("audit_log_rest"), await countOf("audit_seals_rest")]).toEqual([2, 1]);
    expect(await verify()).toMatchObject({ ok: true, rows: 2 });
  });

  // An erasure that was dropped with its month explains what went with it in the first week of the next, and no more.
  test.each([
    ["2026-03-07T05:00:00.000Z", true],
    ["2026-03-09T05:00:00.000Z", false],
  ])("of which the erasures are gone still explain what was forgotten at %s: %p", async (at, ok) => {
    const id = newId();
    await write("2026-02-28T23:00:00.000Z", id);
    await write(at, id);
    await sealAll();
    await erase(id, "2026-02-28T23:30:00.000Z");
    await sealAll();
    await makeAuditMonths(db);
    expect(await verify()).toMatchObject({ ok: true, erased: 2 });
    expect(await drop("2026-03-01T00:00:00.000Z")).toBe(2);
    expect((await verify()).ok).toBe(ok);
  });

  test("stay while they are not sealed to their end", async () => {
    await write("2026-01-15T12:00:00.000Z");
    await sealAll();
    await write("2026-01-16T12:00:00.000Z");
    await makeAuditMonths(db);
    expect(await drop("2026-06-01T00:00:00.000Z")).toBe(0);
    expect(await countOf("audit_log")).toBe(2);
  });

  // Whoever removes rows and says that they were dropped by age is found out, also where others were.
  test.each([false, true])("of which an anchor was forged are missed (after others: %p)", async (afterOthers) => {
    for (const at of MONTHS) await write(at);
    await sealAll();
    await makeAuditMonths(db);
    if (afterOthers) await drop("2026-02-01T00:00:00.000Z");
    const anchor = `INSERT INTO audit_anchors SELECT seq, seq, '2026-02-01', 1, hash, sealed_through, now() FROM audit_seals WHERE seq = 2`;
    expect((await verifyTampered(anchor)).fault).toMatchObject({ kind: "inserted", seq: 2 });
    const report = await verifyTampered(`${anchor};
      WITH gone AS (DELETE FROM audit_seals WHERE seq = 2 RETURNING event_id)
      DELETE FROM audit_log WHERE id = (SELECT event_id FROM gone)`);
    expect(report.fault).toMatchObject({ kind: "removed" });
  });

  // Else what is written after a restore would have numbers that the sealer has passed, and never be sealed.
  test("that are gone leave no number to be given again", async () => {
    await db.query("INSERT INTO audit_anchors VALUES (1, 1, '2026-01-01', 1, '', 5000, now())");
    await continueAuditNumbers(db);
    await write("2026-03-01T12:00:00.000Z");
    expect(await db.query("SELECT number::int FROM audit_log")).toEqual([{ number: 5001 }]);
  });

  test("of which an anchor is gone are missed", async () => {
    for (const at of MONTHS) await write(at);
    await sealAll();
    await makeAuditMonths(db);
    await drop("2026-03-01T00:00:00.000Z");
    const [end] = await db.query<{ hash: string }>(
      "SELECT encode(last_hash, 'hex') AS hash FROM audit_anchors WHERE last_seq = 1",
    );
    const expecting = (hash = "") => verifyChain(chainReaderOn(db), () => {}, { expected: { seq: 1, hash } });
    expect([(await expecting(end?.hash)).ok, (await expecting()).ok]).toEqual([true, false]);
    const report = await verifyTampered("DELETE FROM audit_anchors WHERE first_seq = 1");
    expect(report.fault).toMatchObject({ kind: "removed", seq: 1 });
  });
});

// What was written before there was a chain is in it afterwards, and belongs to whoever it was about.
test("the migration keeps every row that there was, by month", async () => {
  const made = ON_SERVER ? await createPostgresDatabase() : undefined;
  const old = made ? await openPostgresAt(made.url) : await openPgliteInMemory();
  try {
    await old.query(CREATE_RECORDS);
    const at = MIGRATIONS.findIndex(({ name }) => name.endsWith("_audit_chain"));
    for (const migration of MIGRATIONS.slice(0, at)) {
      for (const statement of statementsOf(migration)) await old.query(statement);
      await old.query(recordOf(migration, new Date()));
    }
    const [user, other] = [newId(), newId()];
    await old.query(
      `INSERT INTO audit_log (id, time, action, outcome, actor_kind, actor_id, subject_kind, subject_id, ip, details) VALUES
        ('${newId()}', '2025-12-31T23:59:59.999Z', 'login', 'success', 'user', '${user}', 'session', 'x', '192.0.2.1', '{}'),
        ('${newId()}', '2026-01-01', 'login', 'failure', 'anonymous', NULL, 'user', '${user}', '192.0.2.2', '{"username": "ada"}'),
        ('${newId()}', '2026-01-01', 'refresh.reused', 'failure', 'anonymous', NULL, 'session', 'x', '192.0.2.3', '{"user_id": "${other}"}'),
        ('${newId()}', '2026-01-02', 'key.created', 'success', 'operator', NULL, NULL, NULL, NULL, '{"purpose": "signing"}')`,
    );
    expect(await migrate(old, () => new Date())).toContain(MIGRATIONS[at]?.name ?? "");
    const rows = await old.query(
      `SELECT action, ip, caller_of, details::text AS details, tableoid::regclass::text AS part, number::int AS number
       FROM audit_log ORDER BY number`,
    );
    expect(rows.map((row) => Object.values(row))).toEqual([
      ["login", "192.0.2.1", user, "{}", "audit_log_y2025m12", 1],
      ["login", "192.0.2.2", user, "{}", "audit_log_y2026m01", 2],
      ["refresh.reused", "192.0.2.3", other, `{"user_id": "${other}"}`, "audit_log_y2026m01", 3],
      ["key.created", null, null, `{"purpose": "signing"}`, "audit_log_y2026m01", 4],
    ]);
    expect(await sealAll(createSealer(old, () => elapsed))).toBe(4);
    expect(await verify(old)).toMatchObject({ ok: true, rows: 4, months: 2 });
  } finally {
    await old.close();
    await made?.drop();
  }
});
