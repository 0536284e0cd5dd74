import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { eq } from "drizzle-orm";
import type { PgTable } from "drizzle-orm/pg-core";
import { SETTINGS } from "../../config/schema.ts";
import { insertUser } from "../../db/queries/users.ts";
import { accountBaselines, networkBaselines, signInAnomalies } from "../../db/schema/baselines.ts";
import { heldNames } from "../../db/schema/held-names.ts";
import { idempotencyKeys } from "../../db/schema/idempotency.ts";
import { invitations } from "../../db/schema/invitations.ts";
import { secretKeys, signingKeys } from "../../db/schema/keys.ts";
import { failureCounters, loginRecords } from "../../db/schema/logins.ts";
import { mailCounters } from "../../db/schema/mail.ts";
import { processes } from "../../db/schema/processes.ts";
import { sessions, singleUseTokens } from "../../db/schema/sessions.ts";
import { newBaseline } from "../../server/features/protection/service.ts";
import { ERASED_KEPT_MS } from "../../worker/schedules/clean-up.ts";
import { insertSessionRows, newId, secretKeyRow, sessionRows, signingKeyRow, userRow } from "../db/rows.ts";
import { openTestApp, type TestApp } from "../support/app.ts";
import { TEST_DATABASE } from "../support/database.ts";
import { runSchedule } from "./support/schedules.ts";

const SECOND_MS = 1000;
const DAY_MS = 86_400_000;
const LOCK_AFTER = 7;
const EMBEDDED = TEST_DATABASE === "pglite";
if (!EMBEDDED)
  process.stderr.write("not on PostgreSQL, whose server does it: the clean-up frees the room of what it deleted\n");

let app: TestApp;
let user: { id: string };
beforeAll(async () => {
  app = await openTestApp({
    PRIMER_ACCOUNTS__LOCK_AFTER: String(LOCK_AFTER),
    PRIMER_RETENTION__LOGINS: "60d",
    PRIMER_RETENTION__SESSIONS: "10d",
  });
  user = await app.createUser({ username: "ada" });
});
afterAll(() => app.close());

/** So long ago, to the millisecond. */
const ago = (ms: number) => new Date(app.clock.now().getTime() - ms);
const ahead = (ms: number) => ago(-ms);

/** A kind of row, with how to make one whose time was `at`. Answers a text by which the row can be found. */
interface Kind {
  readonly name: string;
  readonly table: string;
  readonly column: string;
  readonly keptMs: number;
  make(at: Date): Promise<string>;
  /** What the run says that it has deleted. */
  readonly counted: string;
}

async function insert<T extends PgTable>(table: T, row: T["$inferInsert"], key: string): Promise<string> {
  await app.db.orm.insert(table).values(row as never);
  return key;
}

const token = (more: object) => {
  const id = newId();
  const row = { id, purpose: "verify_email", subject: id, tokenHash: id, userId: user.id, createdAt: ago(0), ...more };
  return insert(singleUseTokens, row as typeof singleUseTokens.$inferInsert, id);
};

const session = async (of: object, family: object = {}) => {
  const rows = sessionRows(user.id);
  const live = { expiresAt: ahead(DAY_MS), idleExpiresAt: ahead(DAY_MS) };
  const merged = { ...rows.session, expiresAt: live.expiresAt, ...of };
  await insertSessionRows(app.db.orm, merged, { ...rows.family, idleExpiresAt: live.idleExpiresAt, ...family });
  return rows.session.id;
};

const failures = (at: Date, count: number, subject = `user:${newId()}`) =>
  insert(failureCounters, { subject, failures: count, firstFailureAt: at, lastFailureAt: at }, subject);

const login = { outcome: "failure", reason: "unknown_account" } as const;

const KINDS: readonly Kind[] = [
  {
    name: "answers that were kept for whoever asks again",
    table: "idempotency_keys",
    column: "key_hash",
    keptMs: 3600 * SECOND_MS,
    counted: "idempotency_keys",
    make: (expiresAt) => {
      const keyHash = newId();
      return insert(idempotencyKeys, { callerId: user.id, keyHash, sealed: "sealed", expiresAt }, keyHash);
    },
  },
  {
    name: "tokens that have expired",
    table: "single_use_tokens",
    column: "id",
    keptMs: DAY_MS,
    counted: "tokens",
    make: (expiresAt) => token({ expiresAt }),
  },
  {
    name: "tokens that were used",
    table: "single_use_tokens",
    column: "id",
    keptMs: DAY_MS,
    counted: "tokens",
    make: (expiresAt) => token({ expiresAt, usedAt: ago(DAY_MS) }),
  },
  {
    name: "sessions that were ended",
    table: "sessions",
    column: "id",
    keptMs: 10 * DAY_MS,
    counted: "sessions",
    make: (revokedAt) => session({ revokedAt, revokedReason: "logout" }),
  },
  {
    name: "sessions past their last day",
    table: "sessions",
    column: "id",
    keptMs: 10 * DAY_MS,
    counted: "sessions",
    make: (expiresAt) => session({ expiresAt }),
  },
  {
    name: "sessions that were not refreshed",
    table: "sessions",
    column: "id",
    keptMs: 10 * DAY_MS,
    counted: "sessions",
    make: (idleExpiresAt) => session({}, { idleExpiresAt }),
  },
  {
    name: "login records",
    table: "login_records",
    column: "id",
    keptMs: 60 * DAY_MS,
    counted: "logins",
    make: (createdAt) => {
      const id = newId();
      return insert(loginRecords, { id, ...login, createdAt }, id);
    },
  },
  {
    name: "what is usual of an account",
    table: "account_baselines",
    column: "user_id",
    keptMs: 60 * DAY_MS,
    counted: "baselines",
    make: async (lastHour) => {
      const row = userRow({});
      await insertUser(app.db.orm, row);
      return insert(accountBaselines, { userId: row.id, lastHour, baseline: newBaseline(0) }, row.id);
    },
  },
  {
    name: "what is usual of a network",
    table: "network_baselines",
    column: "network",
    keptMs: 60 * DAY_MS,
    counted: "baselines",
    make: (lastHour) => {
      const network = newId();
      return insert(networkBaselines, { network, lastHour, baseline: newBaseline(0) }, network);
    },
  },
  {
    name: "hours that were unusual",
    table: "sign_in_anomalies",
    column: "id",
    keptMs: 60 * DAY_MS,
    counted: "anomalies",
    make: (hour) => {
      const id = newId();
      return insert(signInAnomalies, { id, network: id, hour, score: 50, signals: [], good: 0, failed: 20 }, id);
    },
  },
  {
    name: "failures of an account",
    table: "failure_counters",
    column: "subject",
    keptMs: 365 * DAY_MS,
    counted: "failures",
    make: (at) => failures(at, LOCK_AFTER - 1),
  },
  {
    name: "failures on a name that nobody has",
    table: "failure_counters",
    column: "subject",
    keptMs: 365 * DAY_MS,
    counted: "failures",
    make: (at) => failures(at, 1, `name:${newId()}`),
  },
  {
    name: "names that are held",
    table: "held_names",
    column: "username",
    keptMs: DAY_MS,
    counted: "held_names",
    make: (heldUntil) => {
      const username = newId();
      return insert(heldNames, { username, holder: "x", heldUntil }, username);
    },
  },
  {
    name: "invitations",
    table: "invitations",
    column: "id",
    keptMs: 30 * DAY_MS,
    counted: "invitations",
    make: (expiresAt) => {
      const id = newId();
      const to = { email: `${id}@example.test`, emailKey: `${id}@example.test`, roles: [], tokenHash: id };
      return insert(invitations, { id, ...to, createdAt: expiresAt, expiresAt }, id);
    },
  },
  {
    name: "what counts mails",
    table: "mail_counters",
    column: "recipient",
    keptMs: 2 * DAY_MS,
    counted: "mail_counters",
    make: (lastAt) => {
      const recipient = `user:${newId()}`;
      return insert(mailCounters, { recipient, template: "x", lastAt }, recipient);
    },
  },
  {
    name: "processes",
    table: "processes",
    column: "id",
    keptMs: DAY_MS,
    counted: "processes",
    make: (seenAt) => {
      const id = newId();
      return insert(processes, { id, kind: "serve", startedAt: seenAt, seenAt }, id);
    },
  },
  {
    name: "what is left of erased users",
    table: "users",
    column: "id",
    keptMs: ERASED_KEPT_MS,
    counted: "erased_users",
    make: async (erasedAt) => {
      const row = userRow({ status: "deactivated", erasedAt });
      await insertUser(app.db.orm, row);
      return row.id;
    },
  },
  {
    name: "retired signing keys",
    table: "signing_keys",
    column: "id",
    keptMs: 365 * DAY_MS,
    counted: "keys",
    make: (retiredAt) => {
      const row = { ...signingKeyRow("retired"), retiredAt };
      return insert(signingKeys, row, row.id);
    },
  },
  {
    name: "retired secret keys",
    table: "secret_keys",
    column: "id",
    keptMs: 365 * DAY_MS,
    counted: "keys",
    make: (retiredAt) => {
      const row = { ...secretKeyRow("refresh", "retiring"), state: "retired" as const, retiredAt };
      return insert(secretKeys, row, row.id);
    },
  },
];

const isThere = async ({ table, column }: Pick<Kind, "table" | "column">, key: string): Promise<boolean> =>
  (await app.db.query(`SELECT 1 FROM ${table} WHERE ${column}::text = $1`, [key])).length > 0;

// What an installation promises to keep is there to the last moment, and what it promises to delete is gone after it.
describe("clean-up", () => {
  test.each(KINDS.map((kind) => [kind.name, kind] as const))(
    "%s: gone at the line, there before it",
    async (_name, kind) => {
      const [past, at, before] = [
        await kind.make(ago(kind.keptMs + 1)),
        await kind.make(ago(kind.keptMs)),
        await kind.make(ago(kind.keptMs - SECOND_MS)),
      ];
      const live = await kind.make(ago(0));
      const { outcome, details } = await runSchedule(app, "clean-up");
      expect([outcome, details[kind.counted]]).toEqual(["done", 2]);
      const found = await Promise.all([past, at, before, live].map((key) => isThere(kind, key)));
      expect(found).toEqual([false, false, true, true]);
    },
  );

  // The lock on an account is not undone by waiting.
  test("a counter that locks stays for ever, as long as it locks", async () => {
    const key = await failures(ago(900 * DAY_MS), LOCK_AFTER);
    const counters = { table: "failure_counters", column: "subject" };
    await runSchedule(app, "clean-up");
    expect(await isThere(counters, key)).toBe(true);
  });

  test("keys that count are there however old", async () => {
    const old = ago(4000 * DAY_MS);
    const row = { ...secretKeyRow("pepper", "retiring"), createdAt: old, retiringAt: old };
    await insert(secretKeys, row, row.id);
    await runSchedule(app, "clean-up");
    expect(await isThere({ table: "secret_keys", column: "id" }, row.id)).toBe(true);
    expect(await app.login("ada")).toBeDefined();
  });

  // A service that verifies by itself learns of ended sessions from their rows, for as long as a token of theirs may live.
  test("rows of ended sessions outlive every token of theirs, whatever is set", () => {
    const { access_ttl, clock_skew } = SETTINGS.tokens;
    const [longest, skew] = [access_ttl.kind.parse("60m") ?? 0, clock_skew.kind.parse("60s") ?? 0];
    expect([access_ttl.kind.parse("61m"), clock_skew.kind.parse("61s")]).toEqual([undefined, undefined]);
    const signedLate = 30_000;
    expect(ERASED_KEPT_MS).toBeGreaterThan(longest + skew + signedLate);
    expect(SETTINGS.retention.sessions.kind.parse("7d")).toBeGreaterThan(longest + skew + signedLate);
    expect(SETTINGS.retention.sessions.kind.parse("6d")).toBeUndefined();
  });

  // A process hears of every session whose token it might still take; of millions that nobody remembers it has nothing to read.
  test("no process is told of sessions that go because they were over for long, but of any other one", async () => {
    const told: (string | undefined)[] = [];
    const feed = app.db.watch({ changed: (change) => void told.push(change?.id), feeding() {} });
    try {
      await feed.settled();
      const over = await session({ expiresAt: ago(11 * DAY_MS) });
      const idle = await session({}, { idleExpiresAt: ago(11 * DAY_MS) });
      const { details } = await runSchedule(app, "clean-up");
      expect(details.sessions).toBe(2);
      const live = await session({});
      await app.db.orm.delete(sessions).where(eq(sessions.id, live)); // whoever does
      await feed.settled(); // they are told in the order in which they went
      expect(told).toContain(live);
      expect([told.includes(over), told.includes(idle)]).toEqual([false, false]);
    } finally {
      await feed.close();
    }
  });

  test("deletes far more than one statement does, and what is locked the next time", async () => {
    const old = ago(61 * DAY_MS);
    const rows = Array.from({ length: 3000 }, () => ({ id: newId(), ...login, createdAt: old }));
    await app.db.orm.insert(loginRecords).values(rows);
    await app.db.transaction(async (tx) => {
      if (app.db.kind === "postgres") {
        await tx
          .select()
          .from(loginRecords)
          .where(eq(loginRecords.id, rows[0]?.id ?? ""))
          .for("update");
        expect((await runSchedule(app, "clean-up")).details.logins).toBe(2999);
      }
    });
    const left = app.db.kind === "postgres" ? 1 : 3000;
    expect((await runSchedule(app, "clean-up")).details.logins).toBe(left);
  });

  // One session that somebody has locked is left for another time, and keeps none of the others.
  if (EMBEDDED)
    console.log("not on the embedded database, which has one transaction at a time: a session that is locked");
  test.if(!EMBEDDED)("goes on behind an idle session that is locked", async () => {
    const idle: string[] = [];
    for (let made = 0; made < 700; made++) idle.push(await session({}, { idleExpiresAt: ago(61 * DAY_MS) }));
    await app.db.transaction(async (tx) => {
      await tx
        .select()
        .from(sessions)
        .where(eq(sessions.id, idle[0] ?? ""))
        .for("update");
      expect((await runSchedule(app, "clean-up")).details.sessions).toBe(699);
    });
    expect((await runSchedule(app, "clean-up")).details.sessions).toBe(1);
  });

  // Nothing else would do that on the embedded database: it would only ever grow.
  test.if(EMBEDDED)("makes the room of what it deleted free again", async () => {
    const fill = async () => {
      const createdAt = ago(61 * DAY_MS);
      await app.db.orm
        .insert(loginRecords)
        .values(Array.from({ length: 3000 }, () => ({ id: newId(), ...login, createdAt })));
      const [row] = await app.db.query<{ size: number }>("SELECT pg_relation_size('login_records')::int AS size");
      await runSchedule(app, "clean-up");
      return row?.size ?? 0;
    };
    const [first, second, third] = [await fill(), await fill(), await fill()];
    expect(first).toBeGreaterThan(100_000);
    expect([second, third]).toEqual([first, first]);
  });
});
