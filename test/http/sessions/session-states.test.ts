import { describe, expect, test } from "bun:test";
import { getTableColumns } from "drizzle-orm";
import { drizzle } from "drizzle-orm/pg-proxy";
import type { ChangeFeed, Tx } from "../../../db/database.ts";
import { sessions } from "../../../db/schema/sessions.ts";
import { users } from "../../../db/schema/users.ts";
import { createSessionStates } from "../../../server/features/sessions/service.ts";
import { newId } from "../../db/rows.ts";

/** A feed of changes whose time the test moves. It tells nothing by itself. */
function heldFeed() {
  let time = 0;
  let provenUntil = Number.NEGATIVE_INFINITY;
  const feed: ChangeFeed = {
    now: () => time,
    age: (since) => time - Math.max(since, provenUntil),
    settled: async () => {},
    close: async () => {},
  };
  return {
    feed,
    advance(ms: number) {
      time += ms;
    },
    beat() {
      provenUntil = time;
    },
  };
}

interface Row {
  readonly id: string;
  readonly userId: string;
  revokedReason: string | null;
}

const TIMES = new Set(["createdAt", "lastSeenAt", "expiresAt", "authTime", "updatedAt"]);

/** The cells of a session and its user, in the order in which they are selected. */
function cellsOf(row: Row): unknown[] {
  const cell = (values: Readonly<Record<string, unknown>>) => (name: string) =>
    values[name] ?? (TIMES.has(name) ? "2026-03-01 12:00:00+00" : null);
  return [
    ...Object.keys(getTableColumns(sessions)).map(cell({ ...row, amr: "{pwd}", clientId: "primer" })),
    ...Object.keys(getTableColumns(users)).map(cell({ id: row.userId, status: "active", username: "ada" })),
    [],
    [],
  ];
}

/** The rows of sessions as a query builder reads them. An answer is held back for as long as a gate is there. */
function heldRows() {
  const rows = new Map<string, Row>();
  let reads = 0;
  let failure: Error | undefined;
  let gate: Promise<void> | undefined;
  let begun = () => {};
  const tx = drizzle(async (_statement, values) => {
    reads++;
    const row = rows.get(String(values[0]));
    const read = row ? [cellsOf(row)] : []; // as it is now, whatever becomes of it while the answer is on its way
    begun();
    await gate;
    if (failure) throw failure;
    return { rows: read };
  }) as unknown as Tx;
  return {
    tx,
    reads: () => reads,
    add(userId = newId()): Row {
      const row: Row = { id: newId(), userId, revokedReason: null };
      rows.set(row.id, row);
      return row;
    },
    /** From now on every read fails like this; with undefined none does. */
    fail(error: Error | undefined) {
      failure = error;
    },
    /** Holds answers back until they are released; `begun` resolves when the next row has been read. */
    hold() {
      const [held, reading] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      gate = held.promise;
      begun = reading.resolve;
      return {
        begun: reading.promise,
        release() {
          gate = undefined;
          held.resolve();
        },
      };
    },
  };
}

function open() {
  const [{ feed, ...time }, rows] = [heldFeed(), heldRows()];
  const told: boolean[] = [];
  const states = createSessionStates(feed, (isStale) => told.push(isStale));
  const reasonOf = async ({ id }: Row) => (await states.find(rows.tx, id))?.session.revokedReason ?? "live";
  return { ...time, ...rows, told, states, reasonOf };
}

describe("what is remembered of sessions", () => {
  // A session that was read counts for at most a second where nothing proves that it has not changed since.
  test("a second without proof", async () => {
    const { add, reasonOf, reads, advance } = open();
    const row = add();
    expect(await reasonOf(row)).toBe("live");
    row.revokedReason = "logout";
    advance(999);
    expect([await reasonOf(row), reads()]).toEqual(["live", 1]);
    advance(1);
    expect([await reasonOf(row), reads()]).toEqual(["logout", 2]);
  });

  test("for as long as there is proof", async () => {
    const { add, reasonOf, reads, advance, beat } = open();
    const row = add();
    for (let second = 0; second < 100; second++) {
      expect(await reasonOf(row)).toBe("live");
      advance(900);
      beat();
    }
    expect(reads()).toBe(1);
  });

  // Only the proof since it was read counts: time that passed while it was read is part of its age.
  test("the age counts from before it was read", async () => {
    const { add, states, tx, reads, hold, advance } = open();
    const { id } = add();
    const { begun, release } = hold();
    const slow = states.find(tx, id);
    await begun;
    advance(1000);
    release();
    await slow;
    await states.find(tx, id);
    expect(reads()).toBe(2);
  });

  // Word of a change that comes while the row is still being read is not overwritten by the row as it was before.
  for (const [name, change] of [
    ["its own", (row: Row) => ({ kind: "session" as const, id: row.id })],
    ["its user's", (row: Row) => ({ kind: "user" as const, id: row.userId })],
    ["a role's", () => ({ kind: "role" as const, id: "admin" })],
    ["anything", () => undefined],
  ] as const) {
    test(`a change (${name}) while it is read`, async () => {
      const { add, states, tx, hold, reasonOf, reads } = open();
      const row = add();
      const { begun, release } = hold();
      const slow = states.find(tx, row.id);
      await begun;
      row.revokedReason = "logout";
      states.forget(change(row));
      release();
      expect((await slow)?.session.revokedReason).toBeNull();
      expect([await reasonOf(row), reads()]).toEqual(["logout", 2]);
    });
  }

  // A slow read of how it was does not take the place of a later one of how it is.
  test("two reads, with a change between them", async () => {
    const { add, states, tx, hold, reasonOf } = open();
    const row = add();
    const first = hold();
    const slow = states.find(tx, row.id);
    await first.begun;
    row.revokedReason = "logout";
    states.forget({ kind: "session", id: row.id });
    const second = hold();
    second.release();
    expect((await states.find(tx, row.id))?.session.revokedReason).toBe("logout");
    first.release();
    expect((await slow)?.session.revokedReason).toBeNull();
    expect(await reasonOf(row)).toBe("logout");
  });

  // What is told of one session, user or role is forgotten at once, and what has nothing to do with it stays.
  test("which sessions a change concerns", async () => {
    const { add, states, reasonOf, reads } = open();
    const [ada, bob] = [newId(), newId()];
    const rows = { adas: add(ada), adasOther: add(ada), bobs: add(bob) };
    const readAgain = async (change: Parameters<typeof states.forget>[0]) => {
      for (const row of Object.values(rows)) await reasonOf(row);
      states.forget(change);
      const again: string[] = [];
      for (const [name, row] of Object.entries(rows)) {
        const before = reads();
        await reasonOf(row);
        if (reads() > before) again.push(name);
      }
      return again;
    };
    expect(await readAgain({ kind: "session", id: rows.adas.id })).toEqual(["adas"]);
    expect(await readAgain({ kind: "user", id: ada })).toEqual(["adas", "adasOther"]);
    expect(await readAgain({ kind: "user", id: newId() })).toEqual([]);
    expect(await readAgain({ kind: "role", id: "admin" })).toEqual(["adas", "adasOther", "bobs"]);
    expect(await readAgain(undefined)).toEqual(["adas", "adasOther", "bobs"]);
    expect(await readAgain({ kind: "key", id: "x" })).toEqual([]);
    expect(await readAgain({ kind: "client", id: "x" })).toEqual([]);
  });

  // What does not exist is not remembered, so asking for made-up ids takes no room, and a new session is there at once.
  test("nothing is remembered of what is not there", async () => {
    const { states, tx, reads } = open();
    const id = newId();
    for (let count = 0; count < 3; count++) expect(await states.find(tx, id)).toBeUndefined();
    expect(reads()).toBe(3);
  });

  // However many there are, only so many are remembered: those asked for last.
  test("at most 10,000", async () => {
    const { add, reasonOf, reads } = open();
    const rows = Array.from({ length: 10_001 }, () => add());
    for (const row of rows) await reasonOf(row);
    expect(reads()).toBe(10_001);
    for (const row of rows.slice(1)) await reasonOf(row);
    expect(reads()).toBe(10_001);
    await reasonOf(rows[0] as Row);
    expect(reads()).toBe(10_002);
  });
});

const AWAY = Object.assign(new Error("made up"), { code: "ECONNREFUSED" });
const STALE_MS = 30_000;

describe("what is remembered while the database is away", () => {
  const opened = () => {
    const parts = open();
    const { states, tx } = parts;
    /** What is said of a session where the past will do for so long, or why nothing is. */
    const known = async ({ id }: Row, staleMs?: number) =>
      states.find(tx, id, staleMs).then(
        (found) => found?.session.revokedReason ?? "live",
        (error) => (error as Error & { cause?: { code?: string } }).cause?.code ?? "failed",
      );
    return { ...parts, known };
  };

  // A session that was seen counts for so long and no longer, and only where it was asked for.
  test("a session that was seen, until its time is over", async () => {
    const { add, known, fail, advance } = opened();
    const row = add();
    await known(row);
    fail(AWAY);
    advance(1000);
    expect(await known(row)).toBe("ECONNREFUSED");
    expect(await known(row, STALE_MS)).toBe("live");
    advance(STALE_MS - 1001);
    expect(await known(row, STALE_MS)).toBe("live");
    advance(1);
    expect(await known(row, STALE_MS)).toBe("ECONNREFUSED");
  });

  // The time counts from the last proof that it had not changed, whenever it was read.
  test("from the last proof on", async () => {
    const { add, known, fail, advance, beat } = opened();
    const row = add();
    await known(row);
    advance(10 * STALE_MS);
    beat();
    fail(AWAY);
    advance(STALE_MS - 1);
    expect(await known(row, STALE_MS)).toBe("live");
    advance(1);
    expect(await known(row, STALE_MS)).toBe("ECONNREFUSED");
  });

  // What is known to have changed is not said any more, however fresh it is.
  for (const [name, change] of [
    ["its own", (row: Row) => ({ kind: "session" as const, id: row.id })],
    ["its user's", (row: Row) => ({ kind: "user" as const, id: row.userId })],
    ["a role's", () => ({ kind: "role" as const, id: "admin" })],
    ["anything", () => undefined],
  ] as const) {
    test(`not after a change (${name})`, async () => {
      const { add, known, fail, states } = opened();
      const row = add();
      await known(row);
      fail(AWAY);
      states.forget(change(row));
      expect(await known(row, STALE_MS)).toBe("ECONNREFUSED");
    });

    test(`not after a change (${name}) that came while the database was asked`, async () => {
      const { add, known, fail, hold, states, advance } = opened();
      const row = add();
      await known(row);
      advance(1000);
      fail(AWAY);
      const { begun, release } = hold();
      const slow = known(row, STALE_MS);
      await begun;
      states.forget(change(row));
      release();
      expect(await slow).toBe("ECONNREFUSED");
    });
  }

  // A session that had ended when it was seen has ended; one that was never seen is not made up.
  test("as it was seen", async () => {
    const { add, known, fail, advance } = opened();
    const [ended, unseen] = [add(), add()];
    ended.revokedReason = "logout";
    await known(ended);
    fail(AWAY);
    advance(1000);
    expect(await known(ended, STALE_MS)).toBe("logout");
    expect(await known(unseen, STALE_MS)).toBe("ECONNREFUSED");
  });

  // A statement that is wrong is our fault, and no reason to believe what may be old.
  test("only where it cannot be reached", async () => {
    const { add, known, fail, advance } = opened();
    const row = add();
    await known(row);
    advance(1000);
    fail(Object.assign(new Error("made up"), { code: "42P01" }));
    expect(await known(row, STALE_MS)).toBe("42P01");
  });

  // A database that hangs is not waited for where the past will do.
  test("one that does not answer is waited for a second", async () => {
    const { add, known, hold, advance } = opened();
    const row = add();
    await known(row);
    advance(1000);
    const { release } = hold();
    const began = performance.now();
    expect(await known(row, STALE_MS)).toBe("live");
    expect(performance.now() - began).toBeWithin(900, 2000);
    release();
  });

  test("it is told when that begins and ends", async () => {
    const { add, known, fail, advance, told } = opened();
    const row = add();
    await known(row);
    fail(AWAY);
    advance(1000);
    await known(row);
    await known(row, STALE_MS);
    fail(undefined);
    await known(row, STALE_MS);
    expect(told).toEqual([false, true, false]);
  });
});
