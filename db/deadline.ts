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
 * What some work comes to, or undefined once there is an abort. A race with one promise for many works, such as that of a
 * process's end, would keep something of each.
 */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  if (signal.aborted) return undefined;
  const { promise: aborted, resolve } = Promise.withResolvers<undefined>();
  const onAbort = () => resolve(undefined);
  signal.addEventListener("abort", onAbort, { once: true });
  return Promise.race([work, aborted]).finally(() => signal.removeEventListener("abort", onAbort));
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
