import postgres from "postgres";
import { codeOf } from "../config/errors.ts";
import { inSpan, isTracing } from "../config/trace.ts";
import { type Breaker, createBreaker, findOutWhenBack } from "./breaker.ts";
import { DeadlineError, withinDeadline } from "./deadline.ts";
import { isUnreachable } from "./errors.ts";
import { createSlots, type Slots, type SlotUse } from "./slots.ts";

/** The longest that anything waits for a connection while others have them all (milliseconds). */
const MAX_WAIT_MS = 1000;
/** A timer may come this much before its time (milliseconds). */
const TIMER_SLACK_MS = 5;
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
const tracedTransaction = (tx: postgres.TransactionSql): postgres.TransactionSql =>
  new Proxy(tx, {
    get(_, name) {
      if (name !== "unsafe") return Reflect.get(tx, name);
      return (...given: Parameters<postgres.Sql["unsafe"]>) =>
        rowsOf((asValues) =>
          inSpan("db.query", spanOf(given[0]), async () => {
            const query = tx.unsafe(...given);
            return asValues ? query.values() : query;
          }),
        );
    },
  });

export interface BoundedPool {
  readonly client: postgres.Sql;
  readonly breaker: Breaker;
  /** Is told how long each statement or transaction was on its connection (milliseconds). */
  onQuery: (ms: number) => void;
  /** Connections that are at work, and what waits for one. */
  use(): SlotUse;
  close(): Promise<void>;
}

interface Pool {
  readonly client: postgres.Sql;
  readonly slots: Slots;
  lastAnswerAt: number;
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
  options: postgres.Options<Record<string, never>> & { max: number },
  deadlineMs: number,
): BoundedPool {
  const breaker = createBreaker(name, isUnreachable);
  const poolOf = (client: postgres.Sql): Pool => ({
    client,
    slots: createSlots(options.max),
    lastAnswerAt: performance.now(),
  });
  let pool = poolOf(postgres(url, options));
  let closed = false;
  findOutWhenBack(
    breaker,
    () => ask(pool),
    () => closed,
  );

  function ask(own: Pool): Promise<unknown> {
    const began = performance.now();
    const answer = Promise.resolve(own.client.unsafe("SELECT 1")).finally(() => {
      own.lastAnswerAt = performance.now();
    });
    return withinDeadline(answer, deadlineMs, () => giveUpIfSilent(own, began));
  }

  /** Where nothing at all has been answered since `began`, for a whole deadline. */
  function giveUpIfSilent(own: Pool, began: number): void {
    const silentFor = performance.now() - Math.max(own.lastAnswerAt, began);
    if (own === pool && silentFor >= deadlineMs - TIMER_SLACK_MS) pool = successorOf(own);
  }

  async function bounded<T>(run: (client: postgres.Sql) => Promise<T>, onLate: () => void): Promise<T> {
    breaker.assertClosed(); // nobody waits for a connection only to be refused then
    const arrived = performance.now();
    const own = pool;
    await own.slots.take(MAX_WAIT_MS);
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
  async function onConnection<T>(own: Pool, run: (client: postgres.Sql) => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await run(own.client);
      } catch (error) {
        if (codeOf(error) !== TOO_MANY_CONNECTIONS || !(await own.slots.makeDo(MAX_WAIT_MS))) throw error;
      }
    }
  }

  function successorOf({ client }: Pool): Pool {
    const next = postgres(url, options);
    // The query builder has set these on the one that it was given.
    Object.assign(next.options.parsers, client.options.parsers);
    Object.assign(next.options.serializers, client.options.serializers);
    // Not at once: should the server go on after all, connections that are being made can still be ended in order.
    client.end({ timeout: deadlineMs / 1000 }).catch(() => {});
    return poolOf(next);
  }

  const unsafe = (...given: Parameters<postgres.Sql["unsafe"]>) => {
    let query: (ReturnType<postgres.Sql["unsafe"]> & { state?: unknown }) | undefined;
    let late = false;
    const onLate = () => {
      late = true;
      if (query && !query.state) query.cancel(); // it still waits for a connection
    };
    return rowsOf((asValues) =>
      inSpan("db.query", spanOf(given[0]), () =>
        bounded(async (client) => {
          if (late) throw new DeadlineError(deadlineMs);
          query = client.unsafe(...given);
          return asValues ? query.values() : query;
        }, onLate),
      ),
    );
  };

  const begin = (work: (tx: postgres.TransactionSql) => Promise<unknown>) => {
    let late = false;
    const unlessLate = async (tx: postgres.TransactionSql) => {
      if (late) throw new DeadlineError(deadlineMs);
      const result = await work(isTracing() ? tracedTransaction(tx) : tx);
      if (late) throw new DeadlineError(deadlineMs);
      return result;
    };
    return inSpan("db.transaction", DATABASE_SPAN, () =>
      bounded(
        (client) => client.begin(unlessLate),
        () => {
          late = true;
        },
      ),
    );
  };

  const close = () => {
    closed = true;
    return pool.client.end({ timeout: 5 });
  };
  const replaced: Record<PropertyKey, unknown> = { unsafe, begin };
  const client = new Proxy(pool.client, { get: (_, name) => replaced[name] ?? Reflect.get(pool.client, name) });
  const bounds: BoundedPool = { client, breaker, onQuery: () => {}, use: () => pool.slots.use(), close };
  return bounds;
}
