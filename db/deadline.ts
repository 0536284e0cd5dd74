import postgres from "postgres";

/**
 * What a query or transaction ends with whose answer did not come in time (it may still be done), or which was refused at
 * once (0 ms) since too many wait.
 */
export class DeadlineError extends Error {
  readonly code = "QUERY_DEADLINE";

  constructor(ms: number) {
    super(ms > 0 ? `The database did not answer within ${ms} ms` : "Too much waits for the database already");
  }
}

/**
 * Waits for the database, but not for ever: the server's own timeouts are no help where the server hangs.
 *
 * @param ms the longest wait (milliseconds)
 * @param onLate called when nobody waits any more
 * @throws DeadlineError
 */
export async function withinDeadline<T>(work: Promise<T>, ms: number, onLate = () => {}): Promise<T> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      onLate();
      reject(new DeadlineError(ms));
    }, ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Work beyond this many times the connections is refused at once: it would only wait to be refused. */
const MAX_PENDING_PER_CONNECTION = 50;

export interface BoundedPool {
  readonly client: postgres.Sql;
  close(): Promise<void>;
}

/**
 * A pool of connections whose every statement and transaction ends in time. What was answered as late is neither begun
 * nor committed afterwards, if it has not been sent yet. A pool of which no connection has answered for a whole deadline
 * is given up for a new one, since the way to the server may be gone without a word.
 */
export function boundedPool(
  url: string,
  options: postgres.Options<Record<string, never>> & { max: number },
  deadlineMs: number,
): BoundedPool {
  let pool = postgres(url, options);
  let lastAnswer = performance.now();
  let pending = 0;

  function bounded<T>(run: (client: postgres.Sql) => Promise<T>, onLate: () => void): Promise<T> {
    if (pending >= options.max * MAX_PENDING_PER_CONNECTION) return Promise.reject(new DeadlineError(0));
    const client = pool;
    const began = performance.now();
    pending++;
    const work = run(client).finally(() => {
      if (client === pool) lastAnswer = performance.now();
    });
    const answer = withinDeadline(work, deadlineMs, () => {
      onLate();
      if (client === pool && lastAnswer < began) pool = successorOf(client);
    });
    return answer.finally(() => {
      pending--;
    });
  }

  function successorOf(client: postgres.Sql): postgres.Sql {
    const next = postgres(url, options);
    // The query builder has set these on the one that it was given.
    Object.assign(next.options.parsers, client.options.parsers);
    Object.assign(next.options.serializers, client.options.serializers);
    // Not at once: should the server go on after all, connections that are being made can still be ended in order.
    client.end({ timeout: deadlineMs / 1000 }).catch(() => {});
    return next;
  }

  const unsafe = (...given: Parameters<postgres.Sql["unsafe"]>) => {
    let query: (ReturnType<postgres.Sql["unsafe"]> & { state?: unknown }) | undefined;
    let asValues = false;
    const send = async (client: postgres.Sql) => {
      // A query is sent when it is first awaited, so one turn is left to ask for its rows as plain values.
      await undefined;
      query = client.unsafe(...given);
      return asValues ? query.values() : query;
    };
    const answer = bounded(send, () => {
      if (query && !query.state) query.cancel(); // it still waits for a connection
    });
    const values = () => {
      asValues = true;
      return answer;
    };
    return Object.assign(answer, { values });
  };

  const begin = (work: (tx: postgres.TransactionSql) => Promise<unknown>) => {
    let late = false;
    const unlessLate = async (tx: postgres.TransactionSql) => {
      if (late) throw new DeadlineError(deadlineMs);
      const result = await work(tx);
      if (late) throw new DeadlineError(deadlineMs);
      return result;
    };
    return bounded(
      (client) => client.begin(unlessLate),
      () => {
        late = true;
      },
    );
  };

  const replaced: Record<PropertyKey, unknown> = { unsafe, begin };
  const client = new Proxy(pool, { get: (_, name) => replaced[name] ?? Reflect.get(pool, name) });
  return { client, close: () => pool.end({ timeout: 5 }) };
}
