import type { PgDatabase, PgQueryResultHKT } from "drizzle-orm/pg-core";
import type { Breaker } from "./breaker.ts";
import type { SlotUse } from "./slots.ts";

/** The query builder, on either database. Inside a transaction only the `tx` handed to the callback may be used. */
export type Orm = PgDatabase<PgQueryResultHKT, Record<string, never>>;

/** What queries run on: the database itself or a transaction of it. */
export type Tx = Pick<Orm, "select" | "insert" | "update" | "delete" | "execute" | "$with" | "with">;

/** What queries that only read run on. */
export type Reader = Pick<Tx, "select">;

/** A statement as the query builder makes it, which was not sent yet. */
export interface Statement extends PromiseLike<unknown> {
  toSQL(): { readonly sql: string; readonly params: unknown[] };
}

/**
 * Takes the last statements of a transaction, of which nobody needs an answer: they are sent in this order when the work
 * has ended, and the commit with them, so that it is waited for once. Where one of them fails, all is undone.
 */
export type WithCommit = (...statements: readonly Statement[]) => void;

/** A copy of the database that may be a little behind. */
export interface Replica {
  readonly breaker: Breaker;
  ping(): Promise<void>;
  poolUse(): SlotUse;
  /** How far it is behind at most, in milliseconds; null where that is not known. */
  lagMs(): number | null;
}

export type Row = Record<string, unknown>;

/** What takes statements as they are written. */
export type Connection = Pick<Database, "query">;

/**
 * What may have changed for whoever has it in a cache: one session, one user (or their password), a role, a key, a client,
 * or from when on tokens count.
 */
export interface Change {
  readonly kind: "session" | "user" | "role" | "key" | "client" | "installation";
  readonly id: string;
}

export interface ChangeListener {
  /** Called once a change has committed; with undefined where some may have been missed: then anything may be old. */
  changed(change: Change | undefined): void;
  /** The feed stands still, or goes on again. Until it does, {@link ChangeFeed.age} grows. */
  feeding(works: boolean, error?: unknown): void;
}

/**
 * The changes that every process tells the others of, through triggers of the database itself, so that none is forgotten.
 * A feed that hangs gives no sign of it; so it is proven again and again, and says how old the last proof is.
 */
export interface ChangeFeed {
  /** A point in time for {@link age}; take it before reading what will be cached. */
  now(): number;
  /** For how long (milliseconds) what was read at `since` may have changed without a word of it having arrived. */
  age(since: number): number;
  /** Resolves when every change that was committed before has been told here; if that takes long, anything may be old. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

export const CHANGE_CHANNEL = "primer_changes";

/** Reads what the triggers tell: "kind:id". */
export function parseChange(payload: string): Change {
  const colon = payload.indexOf(":");
  return { kind: payload.slice(0, colon) as Change["kind"], id: payload.slice(colon + 1) };
}

/** How far work under a lock may go. */
export interface ExclusiveBounds {
  /** The longest that one of its statements may take (milliseconds); 30 minutes where it is not given. */
  readonly statementMs?: number;
  /**
   * Longer than it ever pauses between two statements (milliseconds): a server that hears nothing for as long takes it for
   * gone and gives the lock to the next. Without it only a machine that answers nothing any more is taken for gone.
   */
  readonly idleMs?: number;
  /** Ends it: its connection is given up, and every further statement is refused. */
  readonly signal?: AbortSignal;
}

/** An open database, embedded or not. */
export interface Database {
  readonly kind: "pglite" | "postgres";
  /** Where it is, without credentials: for messages. */
  readonly address: string;
  readonly orm: Orm;
  /** Open while the database is away: then everything is refused at once. */
  readonly breaker: Pick<Breaker, "status" | "onChange">;
  /** From now on `listener` is told how long each query or transaction took (milliseconds); one listener at a time. */
  onQuery(listener: (ms: number) => void): void;
  /** The connections of the pool; undefined where there is none. */
  poolUse?(): SlotUse;
  /**
   * For reads that may be some seconds old, such as lists for administrators; never for what decides who may do what.
   * Where there is no replica, or none that is good for it now, this is the database itself.
   */
  readonly replica: Reader;
  readonly replicas: readonly Replica[];
  /** May run `work` a second time, from its beginning, where the first was undone for the sake of another transaction. */
  transaction<T>(work: (tx: Tx, withCommit: WithCommit) => Promise<T>): Promise<T>;
  /**
   * A transaction that changes what processes remember, see {@link ChangeFeed}: when it returns, this one has been told.
   * The others are told at the same time, and may hear of it a moment later.
   */
  change<T>(work: (tx: Tx, withCommit: WithCommit) => Promise<T>): Promise<T>;
  /** One parameterised statement, or a text of several statements without parameters. Answers the last one's rows. */
  query<R extends Row>(statement: string, values?: readonly unknown[]): Promise<R[]>;
  /**
   * Runs `work` on one connection of its own while it alone, of all processes on this database, holds the lock of this
   * name. Waits for its turn.
   */
  exclusively<T>(lock: string, work: (connection: Connection) => Promise<T>, bounds?: ExclusiveBounds): Promise<T>;
  /**
   * Runs `work` on everything as it is at one moment, for as long as it takes, and lets it read only. On PostgreSQL
   * nobody waits for it; on the embedded database writers wait while its files are copied, and the copy is read.
   */
  snapshot<T>(work: (reader: Connection) => Promise<T>): Promise<T>;
  /**
   * One transaction of statements of any kind, on a connection of its own, with no limit of time but that of each lock
   * (two seconds). Undone whole where `work` throws. On the embedded database everybody else waits for its end.
   */
  longTransaction<T>(work: (connection: Connection) => Promise<T>): Promise<T>;
  /** Tells of what changes in the database, whichever process changes it; see {@link ChangeFeed}. */
  watch(listener: ChangeListener): ChangeFeed;
  close(): Promise<void>;
  /** A copy of the whole data folder as a tar archive; embedded database only. */
  dump?(): Promise<Blob>;
}
