import postgres from "postgres";
import { codeOf } from "../config/errors.ts";
import type { Statement } from "./database.ts";
import { isForgotten } from "./errors.ts";

/** Longer texts are lists of rows, of which the server need not keep every length there is. */
const LONGEST_PREPARED = 4096;
/** SQLSTATE of every statement after the one that failed; what is to be told is that one. */
const TRANSACTION_ABORTED = "25P02";
/** A connection is not used any more after so long (milliseconds). */
const MAX_AGE_MS = 30 * 60_000;

type Query = ReturnType<postgres.Sql["unsafe"]> & { readonly state?: unknown };
type Send = (...statement: Parameters<postgres.Sql["unsafe"]>) => Query;
export type Options = postgres.Options<Record<string, never>>;

/** What the query builder sends the statements of a transaction by. */
export interface Sends {
  unsafe(...statement: Parameters<Send>): PromiseLike<unknown> & { values(): PromiseLike<unknown> };
}

/** What a transaction comes to, and the statements that are still to be sent, with the commit. */
export interface Finished<T> {
  readonly result: T;
  readonly last: readonly Statement[];
}

/** One connection to PostgreSQL, with which one works at a time. It is made when it is used first, and again where it was lost. */
export interface PooledConnection {
  /** Sends one statement. */
  readonly send: Send;
  /**
   * Runs a transaction. Statements that are sent in one turn go in one piece, with the BEGIN before the first and the
   * COMMIT after the last of them. The server does them in their order, each by itself.
   */
  transaction<F extends Finished<unknown>>(work: (tx: Sends) => Promise<F>): Promise<F>;
  /** It is not to be used again: the driver would wait for ever for a query that was cancelled before it was sent. */
  spoil(): void;
  /** Whether it is not to be used again, for that or because it has served its time. */
  isUsedUp(): boolean;
  end(timeoutSeconds: number): Promise<void>;
}

/** @param like whose types values are read and written by: the query builder has set them */
export function openConnection(url: string, options: Options, like: Pick<postgres.Sql, "options">): PooledConnection {
  const madeAt = performance.now();
  let isOpen = false;
  let isSpoilt = false;
  let onLost = () => {};
  const client = postgres(url, {
    ...options,
    max: 1,
    idle_timeout: 0,
    max_lifetime: null,
    onclose() {
      isOpen = false;
      onLost();
    },
  });
  Object.assign(client.options.parsers, like.options.parsers);
  Object.assign(client.options.serializers, like.options.serializers);

  /** Statements with values are prepared once: the server need not be asked for their types before each, nor plan them anew. */
  const send: Send = (text, values = [], given = {}) =>
    client.unsafe(text, values, { ...given, prepare: text.length <= LONGEST_PREPARED }) as Query;

  return {
    send,
    async transaction(work) {
      const underWay = new Set<Query>();
      let failure: unknown;
      let over: Error | undefined;
      // The driver would send what still waits over its next connection, where there is no transaction.
      onLost = () => {
        over = Object.assign(new Error("The connection was lost in a transaction"), { code: "CONNECTION_CLOSED" });
        isSpoilt = true;
        for (const query of underWay) if (!query.state) query.cancel();
      };
      const within: Send = (...statement) => {
        if (over) throw over;
        const query = send(...statement);
        forbidRetry(query);
        underWay.add(query);
        query
          .catch((error) => {
            failure ??= error;
          })
          .finally(() => underWay.delete(query));
        return query;
      };
      try {
        const begun = within("BEGIN");
        if (!isOpen) await begun; // what comes behind it must not go over another connection than this is sent over
        isOpen = true;
        const finished = await work({ unsafe: within });
        if (failure) throw failure;
        for (const statement of finished.last) {
          const { sql, params } = statement.toSQL();
          within(sql, params as never[]);
        }
        const committed = within("COMMIT");
        await Promise.allSettled(underWay);
        if (failure) throw failure;
        if ((await committed).command !== "COMMIT") throw new Error("The server has undone the transaction");
        return finished;
      } catch (error) {
        if (!over) await within("ROLLBACK").catch(() => {});
        if (isForgotten(failure ?? error)) isSpoilt = true; // it forgets the other statements too
        throw isAborted(error) ? (failure ?? error) : error;
      } finally {
        over ??= new Error("The transaction has ended");
        onLost = () => {};
      }
    },
    spoil() {
      isSpoilt = true;
    },
    isUsedUp: () => isSpoilt || performance.now() - madeAt > MAX_AGE_MS,
    end: (timeout) => client.end({ timeout }),
  };
}

/**
 * The driver sends a prepared statement again that the server does not know any more: behind all that was sent meanwhile,
 * the COMMIT included, where there is no transaction. Here it fails instead, and with it the transaction.
 */
function forbidRetry(query: Query): void {
  Object.defineProperty(query, "retried", {
    get: () => undefined,
    set(this: { cancelled: unknown; reject(error: unknown): void }, error: unknown) {
      this.cancelled = true;
      this.reject(error);
    },
  });
}

const isAborted = (error: unknown): boolean =>
  error instanceof Error && (codeOf(error) === TRANSACTION_ABORTED || isAborted(error.cause));
