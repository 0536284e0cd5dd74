import { LRUCache } from "lru-cache";
import type { ChangeFeed } from "../db/database.ts";

/** How old what is said of a row may be (milliseconds). */
const MAX_AGE_MS = 1000;

/** Rows as they are now, without asking the database each time. */
export interface RowCache<T> {
  /**
   * The row as it is, or as it was at most a second ago. It is read again where it was changed since, or where there is
   * no proof that it was not. What is not there is looked for each time.
   */
  find(id: string, read: () => Promise<T | undefined>): Promise<T | undefined>;
  forget(id: string): void;
  forgetWhere(isMeant: (row: T) => boolean): void;
  forgetAll(): void;
}

/** @param max rows that are remembered; beyond, the one that was asked for longest ago is forgotten */
export function createRowCache<T extends object>(changes: ChangeFeed, max: number): RowCache<T> {
  const remembered = new LRUCache<string, { readonly readAt: number; readonly row: T }>({ max });
  let forgotten = 0;
  return {
    async find(id, read) {
      const known = remembered.get(id);
      if (known && changes.age(known.readAt) < MAX_AGE_MS) return known.row;
      const before = forgotten;
      const readAt = changes.now();
      const row = await read();
      // Word of a change may have come while its row was still being read as it was before.
      if (row && before === forgotten) remembered.set(id, { readAt, row });
      else remembered.delete(id);
      return row;
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
