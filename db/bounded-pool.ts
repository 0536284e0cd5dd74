import postgres from "postgres";
import { codeOf } from "../config/errors.ts";
import { inSpan, isTracing } from "../config/trace.ts";
import { type Breaker, createBreaker, findOutWhenBack } from "./breaker.ts";
import { type Finished, type Options, openConnection, type PooledConnection, type Sends } from "./connection.ts";
import { DeadlineError, withinDeadline } from "./deadline.ts";
import { isUnreachable } from "./errors.ts";
import { createSlots, type Slots, type SlotUse } from "./slots.ts";

/** The longest that anything waits for a connection while others have them all (milliseconds). */
const MAX_WAIT_MS = 1000;
/** A timer may come this much before its time (milliseconds). */
const TIMER_SLACK_MS = 5;
/** A connection that nobody has needed for so long is closed (milliseconds). */
const MAX_IDLE_MS = 60_000;
/** SQLSTATE with which a server refuses one more connection. */
const TOO_MANY_CONNECTIONS = "53300";

/**
 * What the query builder takes for a query of the driver: its rows, or their plain values where it asks for those in the
 * same turn. Nothing is sent before the next one.
 */
export function rowsOf(
  send: (asValues: boolean) => Promise<unknown>,
): Promise<unknown> & { values(): Promise<unknown> } {
  let asValues = false;
  const answer = Promise.resolve().then(() => send(asValues));
  const values = () => {
    asValues = true;
    return answer;
  };
  return Object.assign(answer, { values });
}

const DATABASE_SPAN = { kind: "client", attributes: { "db.system.name": "postgresql" } } as const;

/** What a statement does and to which table first: never its values, nor its text. */
function spanOf(statement: string) {
  const [, verb = "", table] =
    /^\s*(\w+)(?:[\s\S]*?\b(?:from|into|update)\s+(?:only\s+)?"?(\w+))?/i.exec(statement) ?? [];
  const summary = [verb.toUpperCase(), table].filter(Boolean).join(" ");
  return { ...DATABASE_SPAN, attributes: { ...DATABASE_SPAN.attributes, "db.query.summary": summary } };
}

/** Each statement of a transaction as a span of its own. */
const tracedTransaction = ({ unsafe }: Sends): Sends => ({
  unsafe: (...given) =>
    rowsOf((asValues) =>
      inSpan("db.query", spanOf(given[0]), async () => {
        const query = unsafe(...given);
        return asValues ? query.values() : query;
      }),
    ),
});

export interface BoundedPool {
  readonly client: postgres.Sql;
  readonly breaker: Breaker;
  /** Is told how long each statement or transaction was on its connection (milliseconds). */
  onQuery: (ms: number) => void;
  /** Connections that are at work, and what waits for one. */
  use(): SlotUse;
  close(): Promise<unknown>;
}

interface Pool {
  /** All that are open, with when they were last in use; those that are not in use now, the latest at the end. */
  readonly connections: Map<PooledConnection, number>;
  readonly idle: PooledConnection[];
  readonly slots: Slots;
  lastAnswerAt: number;
  /** Given up: what is still in use is ended afterwards. */
  isOver: boolean;
}

/**
 * A pool of connections whose every statement and transaction ends in time. What was answered as late is neither begun
 * nor committed afterwards, if it has not been sent yet. A pool of which no connection has answered for a whole deadline
 * is given up for a new one, since the way to the server may be gone without a word. While the breaker is open,
 * everything is refused at once, and the pool itself finds out when the server is back: nobody has to wait for that.
 *
 * @param name for messages
 * @param deadlineMs the longest that a statement or transaction takes, with its wait for a connection
 */
export function boundedPool(
  name: string,
  url: string,
  options: Options & { max: number },
  deadlineMs: number,
): BoundedPool {
  const breaker = createBreaker(name, isUnreachable);
  const newPool = (): Pool => ({
    connections: new Map(),
    idle: [],
    slots: createSlots(options.max),
    lastAnswerAt: performance.now(),
    isOver: false,
  });
  /** What the query builder works with; it makes no connection of its own. */
  const front = postgres(url, options);
  let pool = newPool();
  let closed = false;
  findOutWhenBack(
    breaker,
    () => ask(pool),
    () => closed,
  );

  function ask(own: Pool): Promise<unknown> {
    const began = performance.now();
    const answer = withConnection(own, async ({ send }) => send("SELECT 1")).finally(() => {
      own.lastAnswerAt = performance.now();
    });
    return withinDeadline(answer, deadlineMs, () => giveUpIfSilent(own, began));
  }

  /** Where nothing at all has been answered since `began`, for a whole deadline. */
  function giveUpIfSilent(own: Pool, began: number): void {
    const silentFor = performance.now() - Math.max(own.lastAnswerAt, began);
    if (own !== pool || silentFor < deadlineMs - TIMER_SLACK_MS) return;
    pool = newPool();
    // Not at once: should the server go on after all, connections that are being made can still be ended in order.
    endAll(own, deadlineMs / 1000).catch(() => {});
  }

  async function withConnection<T>(own: Pool, run: (connection: PooledConnection) => Promise<T>): Promise<T> {
    const connection = own.idle.pop() ?? openConnection(url, options, front);
    own.connections.set(connection, performance.now());
    try {
      return await run(connection);
    } catch (error) {
      if (codeOf(error) === TOO_MANY_CONNECTIONS) end(own, connection); // it has never been one
      throw error;
    } finally {
      giveBack(own, connection);
    }
  }

  function giveBack(own: Pool, connection: PooledConnection): void {
    if (!own.connections.has(connection)) return;
    if (own.isOver || connection.isUsedUp())
      end(own, connection, deadlineMs / 1000); // one that is being made is not cut off
    else {
      own.connections.set(connection, performance.now());
      own.idle.push(connection);
    }
    const [longest] = own.idle;
    if (longest && performance.now() - (own.connections.get(longest) ?? 0) > MAX_IDLE_MS) end(own, longest);
  }

  function end(own: Pool, connection: PooledConnection, timeoutSeconds = 0): void {
    own.connections.delete(connection);
    if (own.idle.includes(connection)) own.idle.splice(own.idle.indexOf(connection), 1);
    connection.end(timeoutSeconds).catch(() => {});
  }

  function endAll(own: Pool, timeoutSeconds: number): Promise<unknown> {
    own.isOver = true;
    return Promise.all([...own.connections.keys()].map((connection) => connection.end(timeoutSeconds)));
  }

  async function bounded<T>(run: (connection: PooledConnection) => Promise<T>, onLate: () => void): Promise<T> {
    breaker.assertClosed(); // nobody waits for a connection only to be refused then
    const arrived = performance.now();
    const own = pool;
    await own.slots.take(MAX_WAIT_MS).catch((error) => {
      giveUpIfSilent(own, 0);
      throw error;
    });
    try {
      breaker.assertClosed(); // it may have opened meanwhile
    } catch (error) {
      own.slots.release();
      throw error;
    }
    const began = performance.now();
    return breaker.run(() => {
      // The slot is taken for as long as the connection is, also when nobody waits for the answer any more.
      const work = onConnection(own, run).finally(() => {
        own.lastAnswerAt = performance.now();
        bounds.onQuery(own.lastAnswerAt - began);
        own.slots.release();
      });
      return withinDeadline(work, deadlineMs - (began - arrived), () => {
        onLate();
        giveUpIfSilent(own, began);
      });
    });
  }

  /** A server that gives no further connection has said so before anything was begun; those that are there do as well. */
  async function onConnection<T>(own: Pool, run: (connection: PooledConnection) => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await withConnection(own, run);
      } catch (error) {
        if (codeOf(error) !== TOO_MANY_CONNECTIONS || !(await own.slots.makeDo(MAX_WAIT_MS))) throw error;
      }
    }
  }

  const unsafe = (...given: Parameters<postgres.Sql["unsafe"]>) => {
    let sent: { readonly query: ReturnType<PooledConnection["send"]>; readonly over: PooledConnection } | undefined;
    let late = false;
    const onLate = () => {
      late = true;
      if (!sent || sent.query.state) return;
      sent.over.spoil();
      sent.query.cancel(); // it still waits for its connection to be made
    };
    return rowsOf((asValues) =>
      inSpan("db.query", isTracing() ? spanOf(given[0]) : DATABASE_SPAN, () =>
        bounded(async (connection) => {
          if (late) throw new DeadlineError(deadlineMs);
          const query = connection.send(...given);
          sent = { query, over: connection };
          return asValues ? query.values() : query;
        }, onLate),
      ),
    );
  };

  const begin = <F extends Finished<unknown>>(work: (tx: Sends) => Promise<F>) => {
    let late = false;
    const unlessLate: typeof work = async (tx) => {
      if (late) throw new DeadlineError(deadlineMs);
      const finished = await work(isTracing() ? tracedTransaction(tx) : tx);
      if (late) throw new DeadlineError(deadlineMs);
      return finished;
    };
    return inSpan("db.transaction", DATABASE_SPAN, () =>
      bounded(
        (connection) => connection.transaction(unlessLate),
        () => {
          late = true;
        },
      ),
    );
  };

  const close = () => {
    closed = true;
    return endAll(pool, 5);
  };
  const replaced: Record<PropertyKey, unknown> = { unsafe, begin };
  const client = new Proxy(front, { get: (_, name) => replaced[name] ?? Reflect.get(front, name) });
  const bounds: BoundedPool = { client, breaker, onQuery: () => {}, use: () => pool.slots.use(), close };
  return bounds;
}
