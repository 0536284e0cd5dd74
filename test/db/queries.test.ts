import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { eq, inArray } from "drizzle-orm";
import type { Database } from "../../db/database.ts";
import {
  advanceRefreshFamily,
  findRefreshFamily,
  lockRefreshFamily,
  revokeSessions,
} from "../../db/queries/sessions.ts";
import { countActiveHolders, insertUser, replaceUserRoles } from "../../db/queries/users.ts";
import { refreshFamilies, sessions } from "../../db/schema/sessions.ts";
import { users } from "../../db/schema/users.ts";
import { AppError } from "../../server/errors.ts";
import { changeUser, setRoles } from "../../server/features/users/service.ts";
import { openTestApp, type TestApp } from "../support/app.ts";
import { insertSessionRows, later, NOW, sessionRows, userRow } from "./rows.ts";

let app: TestApp;
let db: Database;
beforeAll(async () => {
  app = await openTestApp();
  db = app.db;
});
afterAll(() => app.close());

async function newSession(userId?: string) {
  const user = userRow(userId ? { id: userId } : {});
  if (!userId) await insertUser(db.orm, user);
  const { session, family } = sessionRows(user.id);
  await db.transaction((tx) => insertSessionRows(tx, session, family));
  return { session, family, userId: user.id };
}

const sessionOf = async (id: string) => (await db.orm.select().from(sessions).where(eq(sessions.id, id)))[0];
const familyOf = async (id: string) =>
  (await db.orm.select().from(refreshFamilies).where(eq(refreshFamilies.id, id)))[0];

const nextOf = (name: string) => ({
  keyId: "key",
  secretHash: `hash of ${name}`,
  rotatedAt: later(1000),
  idleExpiresAt: later(3_601_000),
});

/** Whether this one has moved the family on. */
async function advance(...given: Parameters<typeof advanceRefreshFamily>): Promise<boolean> {
  const [moved] = await Promise.all(advanceRefreshFamily(...given));
  return moved.length === 1;
}

// An ended session stays ended, as of when and why it ended first.
describe("revokeSessions", () => {
  // Somebody may have more sessions than a statement takes parameters (65,535), and must be logged out all the same.
  test("ends however many there are", async () => {
    const user = userRow({});
    await insertUser(db.orm, user);
    const { session, family } = sessionRows(user.id);
    await insertSessionRows(db.orm, session, family);
    await db.query(
      `INSERT INTO sessions (id, user_id, client_id, amr, auth_time, created_at, last_seen_at, expires_at)
       SELECT gen_random_uuid(), user_id, client_id, amr, auth_time, created_at, last_seen_at, expires_at
       FROM sessions, generate_series(1, 66000) WHERE id = $1`,
      [session.id],
    );
    // This is about their number; telling everybody of each would take longer than a statement may on a busy machine.
    await db.query("ALTER TABLE sessions DISABLE TRIGGER sessions_tell_change");
    const ended = await db.transaction((tx) => revokeSessions(tx, { userId: user.id }, "user_disabled", later(5)));
    await db.query("ALTER TABLE sessions ENABLE TRIGGER sessions_tell_change");
    expect(ended).toHaveLength(66_001);
  });

  test("one by id: the session and its refresh family", async () => {
    const { session, family, userId } = await newSession();
    const other = await newSession(userId);
    const ended = await db.transaction((tx) => revokeSessions(tx, { id: session.id }, "logout", later(5)));
    expect(ended).toEqual([session.id]);
    expect(await sessionOf(session.id)).toMatchObject({ revokedAt: later(5), revokedReason: "logout" });
    expect((await familyOf(family.id))?.revokedAt).toEqual(later(5));
    expect((await sessionOf(other.session.id))?.revokedAt).toBeNull();
    expect((await familyOf(other.family.id))?.revokedAt).toBeNull();
  });

  test("all of a user's, and nobody else's", async () => {
    const first = await newSession();
    const second = await newSession(first.userId);
    const stranger = await newSession();
    const ended = await revokeSessions(db.orm, { userId: first.userId }, "password_changed", later(5));
    expect(ended.sort()).toEqual([first.session.id, second.session.id].sort());
    expect((await sessionOf(stranger.session.id))?.revokedAt).toBeNull();
    expect((await findRefreshFamily(db.orm, second.family.id))?.session.revokedReason).toBe("password_changed");
  });

  test("a second time: nothing is changed, nothing is answered", async () => {
    const { session, family } = await newSession();
    await revokeSessions(db.orm, { id: session.id }, "logout", later(5));
    expect(await revokeSessions(db.orm, { id: session.id }, "user_disabled", later(99))).toEqual([]);
    expect(await sessionOf(session.id)).toMatchObject({ revokedAt: later(5), revokedReason: "logout" });
    expect((await familyOf(family.id))?.revokedAt).toEqual(later(5));
  });
});

// Of any number of uses of one refresh token at once, exactly one gets the next generation.
describe("advanceRefreshFamily", () => {
  test("20 at once: exactly one moves it on, by one generation", async () => {
    const { family, session } = await newSession();
    const names = Array.from({ length: 20 }, (_, index) => `caller ${index}`);
    const moved = await Promise.all(names.map((name) => db.transaction((tx) => advance(tx, family, nextOf(name)))));
    expect(moved.filter(Boolean)).toHaveLength(1);
    const winner = names[moved.indexOf(true)];
    expect(await familyOf(family.id)).toMatchObject({ generation: 2, secretHash: `hash of ${winner}` });
    expect((await sessionOf(session.id))?.lastSeenAt).toEqual(later(1000));
  });

  test("not from a generation that is over, nor once revoked", async () => {
    const { family, session } = await newSession();
    expect(await advance(db.orm, { ...family, generation: 2 }, nextOf("early"))).toBe(false);
    expect(await advance(db.orm, family, nextOf("first"))).toBe(true);
    expect(await advance(db.orm, family, nextOf("late"))).toBe(false);
    await revokeSessions(db.orm, { id: session.id }, "logout", later(2000));
    expect(await advance(db.orm, { ...family, generation: 2 }, nextOf("revoked"))).toBe(false);
    expect(await familyOf(family.id)).toMatchObject({ generation: 2, secretHash: "hash of first" });
  });

  // Revoking a session wins over a refresh in flight, and neither of them fails because of the other.
  test("against a revocation at the same moment, 40 times", async () => {
    const made = await Promise.all(Array.from({ length: 40 }, () => newSession()));
    const outcomes = await Promise.allSettled(
      made.flatMap(({ session, family }) => [
        db.transaction((tx) => revokeSessions(tx, { id: session.id }, "logout", later(5))),
        db.transaction(async (tx) => {
          await lockRefreshFamily(tx, family.id);
          return advance(tx, family, nextOf("racer"));
        }),
      ]),
    );
    const failures = outcomes.flatMap((outcome) =>
      outcome.status === "rejected" ? [outcome.reason?.cause?.code] : [],
    );
    expect(failures).toEqual([]);
    const ids = made.map(({ session }) => session.id);
    const left = await db.orm.select().from(sessions).where(inArray(sessions.id, ids));
    expect(left.every((session) => session.revokedAt !== null)).toBe(true);
    const families = await db.orm.select().from(refreshFamilies).where(inArray(refreshFamilies.sessionId, ids));
    expect(families.every((family) => family.revokedAt !== null)).toBe(true);
  });
});

describe("the last administrator", () => {
  const byOperator = { actor: { kind: "operator" } } as const;
  const administrators = async () => db.transaction((tx) => countActiveHolders(tx, "admin"));
  let made: string[] = [];

  async function newAdministrators(count: number): Promise<string[]> {
    made = [];
    for (let index = 0; index < count; index++) {
      const user = userRow({});
      await insertUser(db.orm, user);
      await replaceUserRoles(db.orm, user.id, ["admin"], NOW);
      made.push(user.id);
    }
    return made;
  }

  afterEach(async () => {
    await db.orm.delete(users).where(inArray(users.id, made));
  });

  test("only active holders count", async () => {
    const [first = "", second = ""] = await newAdministrators(3);
    await db.orm.update(users).set({ status: "disabled" }).where(eq(users.id, first));
    await db.orm.update(users).set({ status: "pending" }).where(eq(users.id, second));
    expect(await administrators()).toBe(1);
    expect(await db.transaction((tx) => countActiveHolders(tx, "nobody"))).toBe(0);
  });

  const demote = (id: string) => setRoles(app.deps, id, { roles: ["user"] }, byOperator);
  const disable = (id: string) => changeUser(app.deps, id, { status: "disabled" }, byOperator);

  // However two administrators lose their rights at the same moment, one of them keeps them.
  test.each<[string, (id: string) => Promise<unknown>, (id: string) => Promise<unknown>]>([
    ["both demoted", demote, demote],
    ["both disabled", disable, disable],
    ["one demoted, the other disabled", demote, disable],
  ])("%s at once leaves one", async (_name, toFirst, toSecond) => {
    for (let round = 0; round < 5; round++) {
      const [first = "", second = ""] = await newAdministrators(2);
      const outcomes = await Promise.allSettled([toFirst(first), toSecond(second)]);
      const refusals = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason] : []));
      expect(refusals).toHaveLength(1);
      expect(refusals[0]).toBeInstanceOf(AppError);
      expect(refusals[0]).toMatchObject({ errorCode: "CONFLICT", details: { reason: "last_administrator" } });
      expect(await administrators()).toBe(1);
      await db.orm.delete(users).where(inArray(users.id, made));
    }
  });

  test("ten demoted at once leave one", async () => {
    const ids = await newAdministrators(10);
    const outcomes = await Promise.allSettled(ids.map(demote));
    expect(outcomes.filter((outcome) => outcome.status === "fulfilled")).toHaveLength(9);
    expect(await administrators()).toBe(1);
  });
});

// Whoever had to wait for a session's lock decides by what the others left behind, not by what was there before.
test("a refresh that waited for another one sees the generation that one has made", async () => {
  const { family } = await newSession();
  const locked = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  const first = db.transaction(async (tx) => {
    await lockRefreshFamily(tx, family.id);
    locked.resolve();
    await release.promise;
    await advance(tx, family, nextOf("the first"));
  });
  await locked.promise;
  const second = db.transaction((tx) => lockRefreshFamily(tx, family.id));
  await Bun.sleep(100); // on PostgreSQL the second one waits for the lock by now
  release.resolve();
  await first;
  expect((await second)?.family.generation).toBe(2);
});
