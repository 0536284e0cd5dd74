import { LRUCache } from "lru-cache";
import type { Change, ChangeFeed, Tx } from "../../../db/database.ts";
import { findSession, type SessionWithUser } from "../../../db/queries/sessions.ts";

/** How old what is said of a session may be (milliseconds). */
const MAX_AGE_MS = 1000;
const MAX_SESSIONS = 10_000;

interface Remembered {
  readonly readAt: number;
  readonly found: SessionWithUser;
}

/** What sessions, their users and their rights are now, without asking the database each time. */
export interface SessionStates {
  /**
   * The session as it is, or as it was at most a second ago. It is read again where it was changed since, or where
   * there is no proof that it was not.
   */
  find(tx: Tx, id: string): Promise<SessionWithUser | undefined>;
  /** Something has changed; undefined is anything. */
  forget(change: Change | undefined): void;
}

export function createSessionStates(changes: ChangeFeed): SessionStates {
  const remembered = new LRUCache<string, Remembered>({ max: MAX_SESSIONS });
  let forgotten = 0;

  function forgetUser(userId: string): void {
    for (const [id, { found }] of remembered.entries()) if (found.user.id === userId) remembered.delete(id);
  }
  return {
    async find(tx, id) {
      const known = remembered.get(id);
      if (known && changes.age(known.readAt) < MAX_AGE_MS) return known.found;
      const before = forgotten;
      const readAt = changes.now();
      const found = await findSession(tx, id);
      // Word of a change may have come while its row was still being read as it was before.
      if (found && before === forgotten) remembered.set(id, { readAt, found });
      else remembered.delete(id);
      return found;
    },
    forget(change) {
      forgotten++;
      if (change?.kind === "session") remembered.delete(change.id);
      else if (change?.kind === "user") forgetUser(change.id);
      else if (change === undefined || change.kind === "role") remembered.clear();
    },
  };
}
