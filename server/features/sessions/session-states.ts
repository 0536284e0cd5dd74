import type { Change, ChangeFeed, Tx } from "../../../db/database.ts";
import { findSession, type SessionWithUser } from "../../../db/queries/sessions.ts";
import { createRowCache } from "../../row-cache.ts";

const MAX_SESSIONS = 10_000;

/** What sessions, their users and their rights are now, at most a second old; see RowCache. */
export interface SessionStates {
  /** @param staleMs how old it may be where the database cannot be reached */
  find(tx: Tx, id: string, staleMs?: number): Promise<SessionWithUser | undefined>;
  /** What {@link find} would answer without reading; undefined where it would read. */
  known(id: string): SessionWithUser | undefined;
  /** Something has changed; undefined is anything. */
  forget(change: Change | undefined): void;
}

/** @param onRead see {@link createRowCache} */
export function createSessionStates(changes: ChangeFeed, onRead: (isStale: boolean) => void = () => {}): SessionStates {
  const rows = createRowCache<SessionWithUser>(changes, MAX_SESSIONS, onRead);
  return {
    known: rows.known,
    find: (tx, id, staleMs) => rows.find(id, () => findSession(tx, id), staleMs),
    forget(change) {
      if (change?.kind === "session") rows.forget(change.id);
      else if (change?.kind === "user") rows.forgetWhere(({ user }) => user.id === change.id);
      else if (change === undefined || change.kind === "role") rows.forgetAll();
    },
  };
}
