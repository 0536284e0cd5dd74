import type { Change, ChangeFeed, Tx } from "../../../db/database.ts";
import { findSession, type SessionWithUser } from "../../../db/queries/sessions.ts";
import { createRowCache } from "../../row-cache.ts";

const MAX_SESSIONS = 10_000;

/** What sessions, their users and their rights are now, at most a second old; see RowCache. */
export interface SessionStates {
  find(tx: Tx, id: string): Promise<SessionWithUser | undefined>;
  /** Something has changed; undefined is anything. */
  forget(change: Change | undefined): void;
}

export function createSessionStates(changes: ChangeFeed): SessionStates {
  const rows = createRowCache<SessionWithUser>(changes, MAX_SESSIONS);
  return {
    find: (tx, id) => rows.find(id, () => findSession(tx, id)),
    forget(change) {
      if (change?.kind === "session") rows.forget(change.id);
      else if (change?.kind === "user") rows.forgetWhere(({ user }) => user.id === change.id);
      else if (change === undefined || change.kind === "role") rows.forgetAll();
    },
  };
}
