import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import type { Database } from "../../db/database.ts";
import { isConnectionError, violatedUniqueness } from "../../db/errors.ts";
import { insertUser } from "../../db/queries/users.ts";
import { openTestDatabase } from "../support/database.ts";
import { userRow } from "./rows.ts";

const withCode = (code: unknown, more: object = {}) => Object.assign(new Error("made up"), { code, ...more });
const wrapped = (cause: unknown, times = 1): unknown =>
  times === 0 ? cause : wrapped(new Error("wrapped", { cause }), times - 1);

// A database that cannot serve answers 503, so that clients come again; a wrong statement is our fault and is a 500.
describe("isConnectionError", () => {
  test.each<[string, unknown, boolean]>([
    ["nothing listens", withCode("ECONNREFUSED"), true],
    ["the connection broke", withCode("ECONNRESET"), true],
    ["the driver lost it", withCode("CONNECTION_CLOSED"), true],
    ["the driver took too long", withCode("CONNECT_TIMEOUT"), true],
    ["the driver was ended", withCode("CONNECTION_ENDED"), true],
    ["the name does not resolve", withCode("ENOTFOUND"), true],
    ["connection failure", withCode("08006"), true],
    ["the disk is full", withCode("53100"), true],
    ["too many connections", withCode("53300"), true],
    ["the server goes down", withCode("57P01"), true],
    ["the server crashed", withCode("57P02"), true],
    ["the server starts up", withCode("57P03"), true],
    ["the statement took too long", withCode("57014"), true],
    ["input or output failed", withCode("58030"), true],
    ["a lock was not to be had in time", withCode("55P03"), true],
    ["the server is read-only", withCode("25006"), true],
    ["the certificate is of an unknown CA", withCode("UNABLE_TO_VERIFY_LEAF_SIGNATURE"), true],
    ["the certificate has its own signature", withCode("DEPTH_ZERO_SELF_SIGNED_CERT"), true],
    ["the certificate has expired", withCode("CERT_HAS_EXPIRED"), true],
    ["the certificate is for another name", withCode("ERR_TLS_CERT_ALTNAME_INVALID"), true],
    ["wrapped by the query builder", wrapped(withCode("57P01")), true],
    ["wrapped three times", wrapped(withCode("57P01"), 3), true],
    ["a unique violation", withCode("23505"), false],
    ["a syntax error", withCode("42601"), false],
    ["a missing table", withCode("42P01"), false],
    ["no code", new Error("made up"), false],
    ["a code that is no text", withCode(53_100), false],
    ["no error at all", undefined, false],
    ["only an object with such a code", { code: "ECONNREFUSED" }, false],
  ])("%s", (_name, error, expected) => {
    expect(isConnectionError(error)).toBe(expected);
  });

  test("an error that is its own cause comes to an end", () => {
    const circle = new Error("made up");
    circle.cause = circle;
    expect(isConnectionError(circle)).toBe(false);
    expect(violatedUniqueness(circle)).toBeUndefined();
  });
});

// Both drivers name the constraint, each in its own way.
describe("violatedUniqueness", () => {
  test.each<[string, unknown, string | undefined]>([
    ["as PGlite says it", withCode("23505", { constraint: "users_email_key" }), "users_email_key"],
    ["as postgres says it", withCode("23505", { constraint_name: "users_email_key" }), "users_email_key"],
    ["wrapped by the query builder", wrapped(withCode("23505", { constraint: "k" }), 2), "k"],
    ["a check", withCode("23514", { constraint: "users_status_known" }), undefined],
    ["a foreign key", withCode("23503", { constraint: "k" }), undefined],
    ["nothing of the kind", new Error("made up"), undefined],
  ])("%s", (_name, error, expected) => {
    expect(violatedUniqueness(error)).toBe(expected);
  });
});

describe("on the real database", () => {
  let db: Database;
  beforeAll(async () => {
    db = await openTestDatabase();
  });
  afterAll(() => db.close());

  const thrownBy = (work: PromiseLike<unknown>) =>
    Promise.resolve(work).then(
      () => undefined,
      (error: unknown) => error,
    );

  test("a taken name is told as such, and not as trouble with the connection", async () => {
    const row = userRow({});
    await insertUser(db.orm, row);
    const error = await thrownBy(insertUser(db.orm, { ...userRow({}), username: row.username }));
    expect(violatedUniqueness(error)).toBe("users_username_key");
    expect(isConnectionError(error)).toBe(false);
  });

  test("a wrong statement is not trouble with the connection", async () => {
    const error = await thrownBy(db.orm.execute(sql`SELECT nothing FROM nowhere`));
    expect(error).toBeInstanceOf(Error);
    expect(isConnectionError(error)).toBe(false);
  });

  test("a database that was closed cannot serve", async () => {
    const closed = await openTestDatabase();
    await closed.close();
    expect(isConnectionError(await thrownBy(closed.orm.execute(sql`SELECT 1`)))).toBe(true);
  });
});
