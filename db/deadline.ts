import type postgres from "postgres";

/** What a query or transaction ends with whose answer did not come in time: it may still be done. */
export class DeadlineError extends Error {
  readonly code = "QUERY_DEADLINE";
}

/**
 * Waits for the database, but not for ever: the server's own timeouts are no help where the server hangs.
 *
 * @param ms the longest wait (milliseconds)
 * @throws DeadlineError
 */
export async function withinDeadline<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DeadlineError(`The database did not answer within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The same client, with a deadline on every statement and transaction that the query builder sends through it. */
export function withDeadlines(client: postgres.Sql, ms: number): postgres.Sql {
  const unsafe = (...given: Parameters<postgres.Sql["unsafe"]>) => {
    const query = client.unsafe(...given);
    // A query is sent when it is first awaited, so one turn is left to ask for its rows as plain values.
    const answer = withinDeadline(
      Promise.resolve().then(() => query),
      ms,
    );
    const values = () => {
      query.values();
      return answer;
    };
    return Object.assign(answer, { values });
  };
  const begin = (...given: unknown[]) => withinDeadline(Reflect.apply(client.begin, client, given), ms);
  const bounded: Record<PropertyKey, unknown> = { unsafe, begin };
  return new Proxy(client, { get: (target, name) => bounded[name] ?? Reflect.get(target, name) });
}
