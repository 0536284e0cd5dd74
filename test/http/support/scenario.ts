import { expect } from "bun:test";
import type { ErrorCode } from "../../../server/errors.ts";
import type { TestAnswer, TestApp } from "../../support/app.ts";

/** The tables in which a request of this API may leave something behind. */
export const TABLES = ["sessions", "refresh_families", "login_records", "audit_log", "credentials", "users"] as const;
export type Table = (typeof TABLES)[number];
export type RowCounts = Readonly<Record<Table, number>>;

/** One line of a scenario table. */
export interface Scenario {
  readonly name: string;
  readonly method?: string;
  readonly path?: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly token?: string;
  readonly status: number;
  readonly code?: ErrorCode;
  /** What the answer must not contain anywhere. */
  readonly notInAnswer?: readonly string[];
  /** How many rows the request adds; a table that is not named gains none. */
  readonly adds?: Partial<RowCounts>;
}

export async function countRows(app: Pick<TestApp, "db">): Promise<RowCounts> {
  const columns = TABLES.map((table) => `(SELECT count(*)::int FROM ${table}) AS ${table}`);
  const [row] = await app.db.query<Record<Table, number>>(`SELECT ${columns.join(", ")}`);
  if (!row) throw new Error("No counts");
  return row;
}

/** Sends a scenario's request and checks all of its columns. */
export async function play(
  app: TestApp,
  scenario: Scenario,
  fallback: { method: string; path: string },
): Promise<TestAnswer> {
  const before = await countRows(app);
  const { body, headers, token } = scenario;
  const answer = await app.request(scenario.method ?? fallback.method, scenario.path ?? fallback.path, {
    ...(body === undefined ? {} : { body }),
    ...(headers ? { headers: { ...headers } } : {}),
    ...(token === undefined ? {} : { token }),
  });
  expect({ status: answer.status, code: answer.body?.error?.code }).toEqual({
    status: scenario.status,
    code: scenario.code,
  });
  const shown = `${answer.text}\n${JSON.stringify([...answer.headers])}`;
  for (const secret of scenario.notInAnswer ?? []) expect(shown).not.toContain(secret);
  const after = await countRows(app);
  const added = TABLES.map((table) => [table, after[table] - before[table]]).filter(([, count]) => count !== 0);
  expect(Object.fromEntries(added)).toEqual({ ...scenario.adds });
  return answer;
}

/** Puts a hash where the password's hash of a user is, as an import or a mishap would. */
export async function storeHash(app: TestApp, userId: string, hash: string): Promise<void> {
  await app.db.query("UPDATE credentials SET secret = $1, pepper_id = NULL WHERE user_id = $2", [hash, userId]);
}

export async function storedHash(app: TestApp, userId: string): Promise<string | undefined> {
  const rows = await app.db.query<{ secret: string }>("SELECT secret FROM credentials WHERE user_id = $1", [userId]);
  return rows[0]?.secret;
}

export async function setStatus(app: TestApp, userId: string, status: string): Promise<void> {
  await app.db.query("UPDATE users SET status = $1 WHERE id = $2", [status, userId]);
}
