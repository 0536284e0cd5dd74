import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { eq } from "drizzle-orm";
import type { Database } from "../../db/database.ts";
import { insertUser } from "../../db/queries/users.ts";
import { auditLog } from "../../db/schema/audit.ts";
import { users } from "../../db/schema/users.ts";
import { type AuditEvent, audit } from "../../server/features/audit/service.ts";
import { heldClock } from "../../server/ports/clock.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { openTestDatabase } from "../support/database.ts";
import { NOW, userRow } from "./rows.ts";

let db: Database;
beforeAll(async () => {
  db = await openTestDatabase();
});
afterAll(() => db.close());

const deps = { clock: heldClock(NOW), random: systemRandom };
const eventOf = (id: string): AuditEvent => ({
  action: "user.created",
  outcome: "success",
  actor: { kind: "operator" },
  subject: { kind: "user", id },
  caller: { requestId: "request-1", ip: "192.0.2.1", userAgent: "test" },
  details: { roles: ["user"] },
});
const recordsOf = (id: string) => db.orm.select().from(auditLog).where(eq(auditLog.subjectId, id));

// An action and its record are there together or not at all.
describe("audit", () => {
  test("is there once the action has committed, with who, whom, when and from where", async () => {
    const row = userRow({});
    await db.transaction(async (tx) => {
      await insertUser(tx, row);
      await audit(tx, deps, eventOf(row.id));
    });
    expect(await recordsOf(row.id)).toEqual([
      {
        id: expect.any(String),
        time: NOW,
        action: "user.created",
        outcome: "success",
        actorKind: "operator",
        actorId: null,
        subjectKind: "user",
        subjectId: row.id,
        ip: "192.0.2.1",
        userAgent: "test",
        requestId: "request-1",
        details: { roles: ["user"] },
        number: expect.any(Number),
        callerOf: row.id,
        callerSalt: expect.any(String),
      },
    ]);
  });

  test("is not there where the action was rolled back", async () => {
    const row = userRow({});
    const cut = db.transaction(async (tx) => {
      await insertUser(tx, row);
      await audit(tx, deps, eventOf(row.id));
      throw new RangeError("cut off");
    });
    await expect(cut).rejects.toBeInstanceOf(RangeError);
    expect(await recordsOf(row.id)).toEqual([]);
    expect(await db.orm.select().from(users).where(eq(users.id, row.id))).toEqual([]);
  });

  test("takes the action down with it where it cannot be written", async () => {
    const row = userRow({});
    const unwritable = { ...eventOf(row.id), outcome: "perhaps" as "success" };
    const work = db.transaction(async (tx) => {
      await insertUser(tx, row);
      await audit(tx, deps, unwritable);
    });
    await expect(work).rejects.toBeInstanceOf(Error);
    expect(await db.orm.select().from(users).where(eq(users.id, row.id))).toEqual([]);
  });
});
