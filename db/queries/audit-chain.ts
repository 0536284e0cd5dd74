import type { Connection } from "../database.ts";
import { ANCHORS_DIGEST } from "./audit-months.ts";

/** A row of the audit log as the chain takes it: everything as text, as the database writes it. */
export interface ChainedEvent {
  readonly id: string;
  /** In milliseconds since 1970. */
  readonly time: string;
  readonly number: string;
  readonly action: string;
  readonly outcome: string;
  readonly actor_kind: string;
  readonly actor_id: string | null;
  readonly subject_kind: string | null;
  readonly subject_id: string | null;
  readonly ip: string | null;
  readonly user_agent: string | null;
  readonly request_id: string | null;
  readonly details: string;
  readonly caller_of: string | null;
  readonly caller_salt: string | null;
}

const MS = (time: string) => `(extract(epoch FROM ${time}) * 1000)::bigint::text`;
const FROM_MS = (ms: string) => `('epoch'::timestamptz + ${ms} * interval '1 millisecond')`;
const EVENT = `l.id::text, ${MS("l.time")} AS time, l.number::text, l.action, l.outcome, l.actor_kind, l.actor_id,
  l.subject_kind, l.subject_id, l.ip, l.user_agent, l.request_id, l.details::text, l.caller_of, l.caller_salt::text`;
/** Asked of each row by itself: as a join it would be answered by reading the whole chain where statistics are old. */
const IS_UNSEALED = "(SELECT true FROM audit_seals s WHERE s.time = l.time AND s.event_id = l.id) IS NULL";

/** A row with a number that was not given out yet is none that was written as others are. */
const LAST_NUMBER = "SELECT last_value FROM audit_log_number_seq";

/** Some numbers of rows, with both ends; null for no end. */
export interface Place {
  readonly low: number;
  readonly high: number | null;
}

/** Some rows by number, as far as they are visible: which of them are not in the chain, and which transactions are over. */
export interface Unsealed {
  /** Every transaction before this one is over. */
  readonly oldest: bigint;
  /** Of the rows that were looked at, sealed or not, in order. */
  readonly numbers: readonly number[];
  readonly events: ChainedEvent[];
}

/**
 * @param places where rows are looked for
 * @param after those up to this number are left out
 */
export async function findUnsealed(
  connection: Connection,
  places: readonly Place[],
  after: number,
  limit: number,
): Promise<Unsealed> {
  const [row] = await connection.query<{ found: string }>(
    `WITH looked AS MATERIALIZED (SELECT l.* FROM json_to_recordset($1::text::json) AS p (low bigint, high bigint)
       CROSS JOIN LATERAL (SELECT * FROM audit_log
         WHERE number >= p.low AND number > $2::bigint AND number <= least(p.high, (${LAST_NUMBER}))
         ORDER BY number LIMIT $3::int) l
       ORDER BY l.number LIMIT $3::int)
     SELECT json_build_object(
       'oldest', pg_snapshot_xmin(pg_current_snapshot())::text,
       'numbers', (SELECT coalesce(json_agg(number ORDER BY number), '[]') FROM looked),
       'events', (SELECT coalesce(json_agg(e), '[]')
         FROM (SELECT ${EVENT} FROM looked l WHERE ${IS_UNSEALED} ORDER BY l.number) e)
     )::text AS found`,
    [JSON.stringify(places), after, limit],
  );
  if (!row) throw new Error("The unsealed rows could not be asked for");
  const found = JSON.parse(row.found);
  return { ...found, oldest: BigInt(found.oldest) };
}

/**
 * When the first row was written that comes after all of the chain and is not in it, by the clock of who wrote it. It looks
 * no further back than that: what commits late, with a number from before, is not found.
 */
export async function findOldestUnsealed(connection: Connection): Promise<Date | null> {
  const { sealed_through = 0 } = (await findChainHead(connection)) ?? {};
  const [row] = await connection.query<{ time: string }>(
    `SELECT ${MS("l.time")} AS time FROM audit_log l
     WHERE l.number > greatest($1::bigint, (
         SELECT e.number FROM (SELECT time, event_id FROM audit_seals ORDER BY seq DESC LIMIT 1) s
         JOIN audit_log e ON e.time = s.time AND e.id = s.event_id))
       AND l.number <= (${LAST_NUMBER}) AND ${IS_UNSEALED} ORDER BY l.number LIMIT 1`,
    [sealed_through],
  );
  return row ? new Date(Number(row.time)) : null;
}

/**
 * A transaction after every one that has begun to write: this one, which is over. The end of a snapshot would not do, as it
 * comes after those alone that are over.
 */
export async function nextTransaction(connection: Connection): Promise<bigint> {
  const [row] = await connection.query<{ id: string }>("SELECT pg_current_xact_id()::text AS id");
  if (!row) throw new Error("The database gave no transaction id");
  return BigInt(row.id);
}

/** A link of the chain; digests and hashes in hex. */
export interface Seal {
  readonly seq: number;
  readonly sealed_through: number;
  readonly caller_digest: string | null;
  readonly hash: string;
}

/** The last link, dropped with its month or not. */
export async function findChainHead(connection: Connection): Promise<Seal | undefined> {
  const [row] = await connection.query<Texts<Seal>>(
    `SELECT seq::text, sealed_through::text, encode(caller_digest, 'hex') AS caller_digest, encode(hash, 'hex') AS hash
     FROM (
       (SELECT seq, sealed_through, caller_digest, hash FROM audit_seals ORDER BY seq DESC LIMIT 1)
       UNION ALL (SELECT last_seq, sealed_through, NULL, last_hash FROM audit_anchors ORDER BY last_seq DESC LIMIT 1)
     ) ends ORDER BY ends.seq DESC LIMIT 1`,
  );
  return row && sealOf(row);
}

type Texts<T> = { [K in keyof T]: T[K] extends number ? string : T[K] };

const sealOf = ({ seq, sealed_through, caller_digest, hash }: Texts<Seal>): Seal => ({
  seq: Number(seq),
  sealed_through: Number(sealed_through),
  caller_digest,
  hash,
});

/** In one statement: all of them are there or none is. */
export async function insertSeals(
  connection: Connection,
  seals: readonly (Seal & Pick<ChainedEvent, "id" | "time">)[],
): Promise<void> {
  await connection.query(
    `INSERT INTO audit_seals (time, event_id, seq, sealed_through, caller_digest, hash)
     SELECT ${FROM_MS("s.time")}, s.id, s.seq, s.sealed_through, decode(s.caller_digest, 'hex'), decode(s.hash, 'hex')
     FROM json_to_recordset($1::text::json)
       AS s (time bigint, id uuid, seq bigint, sealed_through bigint, caller_digest text, hash text)`,
    [JSON.stringify(seals)],
  );
}

/** A link with its row; the row is null where there is none. */
export interface ChainLink extends Seal {
  readonly event_id: string;
  readonly time: string;
  readonly event: ChainedEvent | null;
  /** Of a row whose address and agent went after it was sealed: whether the log has the erasure that they went with. */
  readonly erasure_known: boolean;
}

/** The month of the erasure may have been dropped: what came after that is taken away for a week, and clocks differ. */
const ERASURE_KNOWN = `(SELECT EXISTS (SELECT FROM audit_log e WHERE e.subject_id = l.caller_of AND e.subject_kind = 'user'
    AND e.action = 'user.erased' AND e.outcome = 'success')
  OR EXISTS (SELECT FROM audit_anchors
    WHERE month = date_trunc('month', (l.time AT TIME ZONE 'UTC') - interval '8 days')::date))`;

/** The next links of the chain. */
export async function listChain(
  connection: Connection,
  after: { readonly seq: number; readonly event_id: string } | null,
  limit: number,
): Promise<ChainLink[]> {
  const { seq, event_id } = after ?? { seq: 0, event_id: "00000000-0000-0000-0000-000000000000" };
  const rows = await connection.query<Texts<Seal> & { event_id: string; time: string; event: string | null }>(
    `SELECT c.seq::text, c.sealed_through::text, encode(c.caller_digest, 'hex') AS caller_digest,
       encode(c.hash, 'hex') AS hash, c.event_id::text, ${MS("c.time")} AS time,
       (SELECT row_to_json(e)::text FROM (SELECT ${EVENT},
         CASE WHEN l.caller_salt IS NULL AND c.caller_digest IS NOT NULL THEN ${ERASURE_KNOWN} ELSE true END AS erasure_known
         FROM audit_log l WHERE l.time = c.time AND l.id = c.event_id) e) AS event
     FROM (SELECT * FROM audit_seals WHERE seq >= $1::bigint AND (seq, event_id) > ($1::bigint, $2::uuid)
       ORDER BY seq, event_id LIMIT $3::int) c ORDER BY c.seq, c.event_id`,
    [seq, event_id, limit],
  );
  return rows.map(({ event_id, time, event, ...seal }) => {
    const { erasure_known = true, ...row } = event === null ? {} : JSON.parse(event);
    return { ...sealOf(seal), event_id, time, event: event === null ? null : row, erasure_known };
  });
}

/** A stretch of the chain whose rows were dropped with their month. */
export interface Anchor {
  readonly first_seq: number;
  readonly last_seq: number;
  /** Such as "2026-03". */
  readonly month: string;
  readonly last_hash: string;
}

/** The stretch in which a place of the chain was. */
export async function findAnchor(connection: Connection, seq: number): Promise<Anchor | undefined> {
  const [row] = await connection.query<Texts<Anchor>>(
    `SELECT first_seq::text, last_seq::text, to_char(month, 'YYYY-MM') AS month, encode(last_hash, 'hex') AS last_hash
     FROM audit_anchors WHERE first_seq <= $1::bigint AND last_seq >= $1::bigint LIMIT 1`,
    [seq],
  );
  return row && { ...row, first_seq: Number(row.first_seq), last_seq: Number(row.last_seq) };
}

/** What vouches for the anchors. */
export interface Vouched {
  readonly anchors: number;
  /** Whether the last event `audit.month_dropped` knows of these anchors and no others. */
  readonly known: boolean;
  /** A place in the chain that is there although an anchor says that it was dropped. */
  readonly kept: number | null;
}

export async function findVouched(connection: Connection): Promise<Vouched> {
  const [row] = await connection.query<{ anchors: number; known: boolean | null; kept: string | null }>(
    `SELECT (SELECT count(*)::int FROM audit_anchors) AS anchors,
       (${ANCHORS_DIGEST}) = (SELECT details ->> 'anchors' FROM audit_log
         WHERE action = 'audit.month_dropped' AND outcome = 'success' ORDER BY number DESC LIMIT 1) AS known,
       (SELECT s.seq::text FROM audit_anchors a JOIN audit_seals s ON s.seq BETWEEN a.first_seq AND a.last_seq LIMIT 1) AS kept`,
  );
  if (!row) throw new Error("The anchors could not be asked for");
  return { ...row, known: row.known === true, kept: row.kept === null ? null : Number(row.kept) };
}

/** What some rows of the log come to that are looked at for being in the chain. */
export interface LogPage {
  readonly rows: number;
  readonly unsealed: number;
  /** In milliseconds since 1970. */
  readonly oldest_unsealed: string | null;
  /** Of the first row that is not in the chain although every one of its number should be, or that has no number given out. */
  readonly inserted: { readonly id: string; readonly time: string } | null;
  readonly last: { readonly id: string; readonly time: string } | null;
}

export async function lookThroughLog(
  connection: Connection,
  after: LogPage["last"],
  sealedThrough: number,
  limit: number,
): Promise<LogPage> {
  const { time, id } = after ?? { time: "-62135596800000", id: "00000000-0000-0000-0000-000000000000" };
  const [row] = await connection.query<{ page: string }>(
    `WITH rows AS MATERIALIZED (
       SELECT time, id, number, ${IS_UNSEALED} AS unsealed FROM (
         SELECT time, id, number FROM audit_log WHERE (time, id) > (${FROM_MS("$1::bigint")}, $2::uuid)
         ORDER BY time, id LIMIT $4::int) l)
     SELECT json_build_object(
       'rows', count(*),
       'unsealed', count(*) FILTER (WHERE unsealed AND number > $3::bigint),
       'oldest_unsealed', ${MS("min(time) FILTER (WHERE unsealed AND number > $3::bigint)")},
       'inserted', (SELECT json_build_object('id', id, 'time', ${MS("time")}) FROM rows
         WHERE unsealed AND number <= $3::bigint OR number > (${LAST_NUMBER}) ORDER BY time, id LIMIT 1),
       'last', (SELECT json_build_object('id', id, 'time', ${MS("time")}) FROM rows ORDER BY time DESC, id DESC LIMIT 1)
     )::text AS page FROM rows`,
    [time, id, sealedThrough, limit],
  );
  if (!row) throw new Error("The audit log could not be looked through");
  return JSON.parse(row.page);
}
