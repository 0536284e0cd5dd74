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
