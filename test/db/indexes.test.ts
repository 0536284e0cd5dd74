import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { drizzle } from "drizzle-orm/pg-proxy";
import type { Database, Tx } from "../../db/database.ts";
import { type AuditFilter, listAudit } from "../../db/queries/audit.ts";
import {
  keepFromErasure,
  listAccountBaselines,
  listLoginsToLearn,
  listNetworkBaselines,
} from "../../db/queries/baselines.ts";
import {
  deleteEndedSessions,
  deleteErasedUsers,
  deleteExpiredSessions,
  deleteExpiredTokens,
  deleteIdleSessions,
  deleteOldAccountBaselines,
  deleteOldAnomalies,
  deleteOldFailures,
  deleteOldLogins,
  deleteOldMailCounters,
  deleteOldNetworkBaselines,
} from "../../db/queries/clean-up.ts";
import { findClient } from "../../db/queries/clients.ts";
import { lookAtRecentLogins } from "../../db/queries/logins.ts";
import {
  advanceRefreshFamily,
  findRefreshFamily,
  findSession,
  listLiveSessionIds,
  listLiveSessions,
  listUnrevokedSessionIds,
  lockRefreshFamily,
  lockSession,
  revokeSessions,
} from "../../db/queries/sessions.ts";
import { findUser, findUserWithPassword, insertUser, listOverdueUsers } from "../../db/queries/users.ts";
import { openTestDatabase } from "../support/database.ts";
import { insertSessionRows, later, NOW, newId, sessionRows, userRow } from "./rows.ts";

let db: Database;
beforeAll(async () => {
  db = await openTestDatabase();
  for (let count = 0; count < 50; count++) {
    const user = userRow({});
    await insertUser(db.orm, user);
    const { session, family } = sessionRows(user.id);
    await insertSessionRows(db.orm, session, family);
  }
});
afterAll(() => db.close());

/** The first statement that a query function sends, without a database. */
async function statementOf(query: (tx: Tx) => Promise<unknown>): Promise<{ text: string; values: unknown[] }> {
  const sent: { text: string; values: unknown[] }[] = [];
  const recorder = drizzle(async (text, values) => {
    sent.push({ text, values });
    return { rows: [] };
  });
  await query(recorder as unknown as Tx);
  const [first] = sent;
  if (!first) throw new Error("The query sent nothing");
  return first;
}

interface PlanNode {
  readonly "Node Type": string;
  readonly "Relation Name"?: string;
  readonly "Index Name"?: string;
  readonly Plans?: readonly PlanNode[];
}

const nodesOf = (node: PlanNode): PlanNode[] => [node, ...(node.Plans ?? []).flatMap(nodesOf)];

/** How the database would run a statement where reading a whole table is the last resort. */
async function planOf({ text, values }: { text: string; values: unknown[] }): Promise<PlanNode[]> {
  return db.exclusively("explain", async (connection) => {
    await connection.query("SET enable_seqscan = off");
    const rows = await connection.query<{ "QUERY PLAN": [{ Plan: PlanNode }] }>(
      `EXPLAIN (FORMAT JSON) ${text}`,
      values,
    );
    await connection.query("RESET enable_seqscan");
    return nodesOf(rows[0]?.["QUERY PLAN"][0].Plan as PlanNode);
  });
}

const id = newId();
const doomed = { from: new Date(0), until: NOW, limit: 100 };
const page = { limit: 50, before: { time: NOW, id } };
/** Months of their own for events, of which there are more than a page. */
let filled: Promise<unknown> | undefined;
const fillLog = () => {
  filled ??= db.query(
    `INSERT INTO audit_log (id, time, action, outcome, actor_kind)
       SELECT gen_random_uuid(), '${NOW.toISOString()}'::timestamptz - n * interval '1 hour', 'login', 'success', 'system'
       FROM generate_series(1, 2000) n;
     SELECT audit_make_partitions(); ANALYZE audit_log`,
  );
  return filled;
};
/** A month of which no event is before {@link NOW}. */
async function laterMonth(): Promise<string> {
  const [row] = await db.query<{ month: string }>("SELECT to_char(now() + interval '2 months', 'YYYY-MM') AS month");
  return row?.month ?? "";
}
/** An index of the partition that rows of no month are in. */
const monthly = (columns: string, end = "_idx") => `audit_log_rest_${columns}${end}`;
const overdue = { until: NOW, limit: 100 };
const family = { id, sessionId: id, generation: 1 };
const next = { keyId: "key", secretHash: "hash", rotatedAt: NOW, idleExpiresAt: NOW };

// Login, refresh and the check of a token stay fast however many accounts and sessions there are.
describe("an index serves", () => {
  test.each<[string, (tx: Tx) => Promise<unknown>, string[]]>([
    [
      "the login by user name",
      (tx) => findUserWithPassword(tx, { kind: "username", key: "ada" }),
      ["users_username_key", "credentials_one_password_key", "user_roles_user_id_role_pk"],
    ],
    [
      "the login by e-mail address",
      (tx) => findUserWithPassword(tx, { kind: "email", key: "ada@example.test" }),
      ["users_email_key", "credentials_one_password_key", "user_roles_user_id_role_pk"],
    ],
    ["a user by name", (tx) => findUser(tx, { username: "ada" }), ["users_username_key"]],
    ["the session of a token", (tx) => findSession(tx, id), ["sessions_pkey", "users_pkey"]],
    [
      "the family of a refresh token",
      (tx) => findRefreshFamily(tx, id),
      ["refresh_families_pkey", "sessions_pkey", "users_pkey"],
    ],
    ["the family that a refresh locks", (tx) => lockRefreshFamily(tx, id), ["refresh_families_pkey", "sessions_pkey"]],
    ["a service client", (tx) => findClient(tx, { id }), ["clients_pkey", "client_secrets_client_id_idx"]],
    ["a service client by name", (tx) => findClient(tx, { name: "x" }), ["clients_name_key"]],
    ["the rotation of a family", (tx) => advanceRefreshFamily(tx, family, next)[0], ["refresh_families_pkey"]],
    ["the end of one session", (tx) => revokeSessions(tx, { id }, "logout", NOW), ["sessions_pkey"]],
    ["the session that a step-up locks", (tx) => lockSession(tx, id), ["sessions_pkey"]],
    ["the end of several sessions", (tx) => revokeSessions(tx, { ids: [id, newId()] }, "x", NOW), ["sessions_pkey"]],
    ["a page of a user's sessions", (tx) => listLiveSessions(tx, id, NOW, { limit: 50 }), ["sessions_user_id_idx"]],
    ["how many sessions a user has", (tx) => listLiveSessionIds(tx, id, NOW), ["sessions_user_id_idx"]],
    ["all sessions", (tx) => listUnrevokedSessionIds(tx, { limit: 1000, after: id }), ["sessions_pkey"]],
    ["the clean-up of tokens", (tx) => deleteExpiredTokens(tx, doomed), ["single_use_tokens_expires_at_idx"]],
    ["that of ended sessions", (tx) => deleteEndedSessions(tx, doomed), ["sessions_revoked_at_idx"]],
    ["that of expired sessions", (tx) => deleteExpiredSessions(tx, doomed), ["sessions_expires_at_idx"]],
    ["that of idle sessions", (tx) => deleteIdleSessions(tx, doomed), ["refresh_families_idle_expires_at_idx"]],
    ["that of login records", (tx) => deleteOldLogins(tx, doomed), ["login_records_created_at_idx"]],
    ["that of failures", (tx) => deleteOldFailures(100)(tx, doomed), ["failure_counters_last_failure_at_idx"]],
    ["that of mail counters", (tx) => deleteOldMailCounters(tx, doomed), ["mail_counters_last_at_idx"]],
    ["that of erased users", (tx) => deleteErasedUsers(tx, doomed), ["users_erased_at_idx"]],
    ["that of accounts' baselines", (tx) => deleteOldAccountBaselines(tx, doomed), ["account_baselines_last_hour_idx"]],
    ["that of networks' baselines", (tx) => deleteOldNetworkBaselines(tx, doomed), ["network_baselines_last_hour_idx"]],
    ["that of unusual hours", (tx) => deleteOldAnomalies(tx, doomed), ["sign_in_anomalies_hour_idx"]],
    [
      "what a sign-in is held against",
      (tx) => lookAtRecentLogins(tx, id, { network: "192.0.2.0/24", userAgent: null, since: NOW, hourAgo: NOW }),
      ["login_records_user_id_idx", "account_baselines_pkey", "network_baselines_pkey"],
    ],
    [
      "the records that are learnt from",
      (tx) => listLoginsToLearn(tx, { time: NOW, loginId: id }, later(1000), 500),
      ["login_records_created_at_idx"],
    ],
    ["the baselines of some accounts", (tx) => listAccountBaselines(tx, [id]), ["account_baselines_pkey"]],
    ["the baselines of some networks", (tx) => listNetworkBaselines(tx, ["x"]), ["network_baselines_pkey"]],
    ["the users that are kept from erasure", (tx) => keepFromErasure(tx, [id]), ["users_pkey"]],
    ["accounts that nobody verified", (tx) => listOverdueUsers(tx, "pending", overdue), ["users_pending_idx"]],
    ["deactivated accounts", (tx) => listOverdueUsers(tx, "deactivated", overdue), ["users_deactivated_idx"]],
    ["events by their action", (tx) => listAudit(tx, { action: "login" }, page), [monthly("action_time_id")]],
    ["events of an actor", (tx) => listAudit(tx, { actorId: id }, page), [monthly("actor_id_time_id")]],
    ["events of no actor", (tx) => listAudit(tx, { actorKind: "system" }, page), [monthly("actor_kind_time_id")]],
    ["events on a subject", (tx) => listAudit(tx, { subjectId: id }, page), [monthly("subject_id_time_id")]],
    ["events of all kinds", (tx) => listAudit(tx, {}, page), [monthly("pkey", "")]],
    ["the end of a user's sessions", (tx) => revokeSessions(tx, { userId: id }, "x", NOW), ["sessions_user_id_idx"]],
  ])("%s", async (_name, query, indexes) => {
    const nodes = await planOf(await statementOf(query));
    const wholeTables = nodes.filter((node) => node["Node Type"] === "Seq Scan").map((node) => node["Relation Name"]);
    expect(wholeTables).toEqual([]);
    const used = nodes.map((node) => node["Index Name"]);
    for (const index of indexes) expect(used).toContain(index);
  });

  // Whoever asks for a page gets it without everything that fits being sorted, and of the months that it can be in.
  test.each<[string, AuditFilter]>([
    ["an action", { action: "login" }],
    ["an actor", { actorId: id }],
    ["no actor", { actorKind: "system" }],
    ["a subject", { subjectId: id }],
    ["everything", {}],
  ])("the order of events: %s", async (_name, filter) => {
    await fillLog();
    const nodes = await planOf(await statementOf((tx) => listAudit(tx, filter, page)));
    const types = new Set(nodes.map((node) => node["Node Type"]));
    expect([types.has("Sort"), types.has("Incremental Sort")]).toEqual([false, false]);
    const late = `audit_log_y${(await laterMonth()).replace("-", "m")}`;
    expect(await db.query("SELECT 1 FROM pg_class WHERE relname = $1", [late])).toHaveLength(1);
    expect(nodes.map((node) => node["Relation Name"])).not.toContain(late);
  });

  test("every foreign key, so that erasing a user reads no whole table", async () => {
    const missing = await db.query<{ name: string }>(
      `SELECT conname AS name FROM pg_constraint c WHERE contype = 'f' AND connamespace = 'public'::regnamespace
       AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])`,
    );
    expect(missing).toEqual([]);
  });
});
