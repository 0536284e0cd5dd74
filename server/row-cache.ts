import { LRUCache } from "lru-cache";
import type { ChangeFeed } from "../db/database.ts";
import { withinDeadline } from "../db/deadline.ts";
import { isConnectionError } from "../db/errors.ts";

/** How old what is said of a row may be (milliseconds). */
const MAX_AGE_MS = 1000;
/** Where the row as it was will do, a database that does not answer for this long (milliseconds) is not waited for. */
const PATIENCE_MS = 1000;

/** Rows as they are now, without asking the database each time. */
export interface RowCache<T> {
  /**
   * The row as it is, or as it was at most a second ago. It is read again where it was changed since, or where there is
   * no proof that it was not. What is not there is looked for each time.
   *
   * @param staleMs where the database cannot be reached or does not answer, the row as it was up to so long ago will do.
   * One that is known to have changed never does
   */
  find(id: string, read: () => Promise<T | undefined>, staleMs?: number): Promise<T | undefined>;
  /** The row as {@link find} would answer it without reading; undefined where it would read. */
  known(id: string): T | undefined;
  forget(id: string): void;
  forgetWhere(isMeant: (row: T) => boolean): void;
  forgetAll(): void;
}

/**
 * @param max rows that are remembered; beyond, the one that was asked for longest ago is forgotten
 * @param onRead told after each read whether it failed and a row was taken from memory instead
 */
export function createRowCache<T extends object>(
  changes: ChangeFeed,
  max: number,
  onRead: (isStale: boolean) => void,
): RowCache<T> {
  const remembered = new LRUCache<string, { readonly readAt: number; readonly row: T }>({ max });
  let forgotten = 0;

  async function readAgain(id: string, read: () => Promise<T | undefined>): Promise<T | undefined> {
    const before = forgotten;
    const readAt = changes.now();
    const row = await read();
    // Word of a change may have come while its row was still being read as it was before.
    if (row && before === forgotten) remembered.set(id, { readAt, row });
    else remembered.delete(id);
    return row;
  }

  function fresh(id: string): T | undefined {
    const known = remembered.get(id);
    return known && changes.age(known.readAt) < MAX_AGE_MS ? known.row : undefined;
  }

  return {
    known: fresh,
    async find(id, read, staleMs = 0) {
      const row = fresh(id);
      if (row) return row;
      const known = remembered.get(id);
      const reading = readAgain(id, read);
      try {
        const row = await (known && staleMs > 0 ? withinDeadline(reading, PATIENCE_MS) : reading);
        onRead(false);
        return row;
      } catch (error) {
        const last = remembered.get(id); // gone by now if it was told as changed
        if (!last || !isConnectionError(error) || changes.age(last.readAt) >= staleMs) throw error;
        onRead(true);
        return last.row;
      }
    },
    forget(id) {
      forgotten++;
      remembered.delete(id);
    },
    forgetWhere(isMeant) {
      forgotten++;
      for (const [id, { row }] of remembered.entries()) if (isMeant(row)) remembered.delete(id);
    },
    forgetAll() {
      forgotten++;
      remembered.clear();
    },
  };
}
