import type { Connection } from "../database.ts";

/**
 * Makes the partitions of this month and the next three, and of those that have rows and no partition, once nobody writes
 * such rows any more.
 *
 * @returns how many
 */
export async function makeAuditPartitions(connection: Connection): Promise<number> {
  const [row] = await connection.query<{ made: number }>("SELECT audit_make_partitions() AS made");
  return row?.made ?? 0;
}

/** Where rows were put back: the next one gets a number after all of theirs, and after all that the chain has passed. */
export const continueAuditNumbers = (connection: Connection) =>
  connection.query(
    `SELECT setval('audit_log_number_seq', 1 + greatest(
       (SELECT coalesce(max(number), 0) FROM audit_log),
       (SELECT coalesce(max(sealed_through), 0) FROM audit_seals),
       (SELECT coalesce(max(sealed_through), 0) FROM audit_anchors)), false)`,
  );

/** The months that have a partition and are over before a moment, the oldest first, by their first day. */
export async function listAuditMonths(connection: Connection, endingBefore: Date): Promise<string[]> {
  const rows = await connection.query<{ month: string }>(
    `SELECT month::text FROM (SELECT to_date(substring(relname FROM '\\d{4}m\\d{2}$'), 'YYYY"m"MM') AS month
       FROM pg_inherits JOIN pg_class ON oid = inhrelid
       WHERE inhparent = 'audit_log'::regclass AND relname ~ '^audit_log_y\\d{4}m\\d{2}$') months
     WHERE (month + interval '1 month') AT TIME ZONE 'UTC' <= $1::timestamptz ORDER BY month`,
    [endingBefore.toISOString()],
  );
  return rows.map(({ month }) => month);
}

/** The partition of a month of the log or of its chain. */
const partitionOf = (table: string, month: string) => `${table}_y${month.slice(0, 4)}m${month.slice(5, 7)}`;

/** How many rows of a month are not in the chain yet. */
export async function countUnsealed(connection: Connection, month: string): Promise<number> {
  const [row] = await connection.query<{ count: number }>(
    `SELECT count(*)::int AS count FROM ${partitionOf("audit_log", month)} l
     WHERE NOT EXISTS (SELECT FROM ${partitionOf("audit_seals", month)} s WHERE s.time = l.time AND s.event_id = l.id)`,
  );
  return row?.count ?? 0;
}

/** Nobody writes to a month until the transaction ends. Whoever reads has the whole log before the month, as its drop then does. */
export async function lockAuditMonth(connection: Connection, month: string): Promise<void> {
  const [log, seals] = [partitionOf("audit_log", month), partitionOf("audit_seals", month)];
  await connection.query(`LOCK TABLE ${log}, ${seals} IN SHARE ROW EXCLUSIVE MODE`);
}

/** What all anchors come to: the last event `audit.month_dropped` has it, so that none is there without one. */
export const ANCHORS_DIGEST = `SELECT encode(sha256(convert_to(json_agg(json_build_array(first_seq, last_seq, month, rows,
  encode(last_hash, 'hex'), sealed_through) ORDER BY first_seq)::text, 'UTF8')), 'hex') FROM audit_anchors`;

/**
 * Drops a month with its part of the chain, of which the ends of each stretch are kept, and an event of it in the log.
 *
 * @returns how many rows went
 */
export async function dropAuditMonth(
  connection: Connection,
  month: string,
  event: { readonly id: string; readonly at: Date },
): Promise<number> {
  const now = event.at;
  const seals = partitionOf("audit_seals", month);
  const anchors = await connection.query<{ rows: string; first_seq: string }>(
    `INSERT INTO audit_anchors (first_seq, last_seq, month, rows, last_hash, sealed_through, dropped_at)
     SELECT ends.first_seq, ends.last_seq, $1::date, ends.last_seq - ends.first_seq + 1, s.hash, s.sealed_through, $2::timestamptz
     FROM (SELECT min(seq) AS first_seq, max(seq) AS last_seq
       FROM (SELECT seq, seq - row_number() OVER (ORDER BY seq) AS stretch FROM ${seals}) numbered GROUP BY stretch) ends
     JOIN ${seals} s ON s.seq = ends.last_seq
     RETURNING rows::text, first_seq::text`,
    [month, now.toISOString()],
  );
  if (anchors.length > 0) {
    await connection.query(
      `INSERT INTO audit_log (id, time, action, outcome, actor_kind, details)
       SELECT $1, $2::timestamptz, 'audit.month_dropped', 'success', 'system', jsonb_build_object(
         'month', to_char($3::date, 'YYYY-MM'), 'anchors', (${ANCHORS_DIGEST}),
         'stretches', (SELECT jsonb_agg(jsonb_build_object('first_seq', first_seq, 'last_seq', last_seq,
             'last_hash', encode(last_hash, 'hex')) ORDER BY first_seq)
           FROM audit_anchors WHERE first_seq = ANY($4::bigint[])))`,
      [event.id, now.toISOString(), month, `{${anchors.map(({ first_seq }) => first_seq).join(",")}}`],
    );
  }
  await connection.query(`DROP TABLE ${partitionOf("audit_log", month)}, ${seals}`);
  return anchors.reduce((sum, { rows }) => sum + Number(rows), 0);
}

/**
 * Whether the database lets whoever is connected change or remove rows of the audit log by rights, triggers aside; or owns,
 * or may make, something through which they could.
 */
export async function mayChangeAudit(connection: Connection): Promise<boolean> {
  const [row] = await connection.query<{ may: boolean }>(
    `WITH tables AS (SELECT oid, relowner FROM pg_class
       WHERE oid IN ('audit_log'::regclass, 'audit_seals'::regclass, 'audit_anchors'::regclass)
         OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent IN ('audit_log'::regclass, 'audit_seals'::regclass))),
     owners AS (SELECT relowner AS owner FROM tables
       UNION SELECT proowner FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'audit_%'
       UNION SELECT datdba FROM pg_database WHERE datname = current_database()
       UNION SELECT nspowner FROM pg_namespace WHERE nspname = 'public')
     SELECT bool_or(pg_has_role(owner, 'MEMBER')) OR has_schema_privilege('public', 'CREATE')
       OR has_table_privilege('audit_anchors', 'INSERT')
       OR EXISTS (SELECT FROM tables WHERE has_table_privilege(oid, 'UPDATE, DELETE, TRUNCATE')) AS may
     FROM owners`,
  );
  return row?.may ?? true;
}
