import type { PgDatabase, PgQueryResultHKT } from "drizzle-orm/pg-core";

/** The query builder, on either database. Inside a transaction only the `tx` handed to the callback may be used. */
export type Orm = PgDatabase<PgQueryResultHKT, Record<string, never>>;

/** What queries run on: the database itself or a transaction of it. */
export type Tx = Pick<Orm, "select" | "insert" | "update" | "delete" | "execute" | "$with" | "with">;

export type Row = Record<string, unknown>;

/** An open database, embedded or not. */
export interface Database {
  readonly kind: "pglite" | "postgres";
  /** Where it is, without credentials: for messages. */
  readonly address: string;
  readonly orm: Orm;
  transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T>;
  /** One parameterised statement, or a text of several statements without parameters. Answers the last one's rows. */
  query<R extends Row>(statement: string, values?: readonly unknown[]): Promise<R[]>;
  /**
   * Runs `work` on one connection of its own while it alone, of all processes on this database, holds the lock of this
   * name. Waits for its turn.
   */
  exclusively<T>(lock: string, work: (connection: Pick<Database, "query">) => Promise<T>): Promise<T>;
  close(): Promise<void>;
  /** A copy of the whole data folder as a tar archive; embedded database only. */
  dump?(): Promise<Blob>;
}
