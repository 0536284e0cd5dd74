import type { Change, ChangeFeed, Tx } from "../../../db/database.ts";
import { findUserAsOfNow, type UserAsOfNow, type UserKey } from "../../../db/queries/users.ts";
import { createRowCache } from "../../row-cache.ts";

const MAX_USERS = 10_000;

/** The users whom tokens of the earlier service name, with their rights, at most a second old; see RowCache. */
export interface LegacyUsers {
  find(tx: Tx, by: UserKey): Promise<UserAsOfNow | undefined>;
  /** Something has changed; undefined is anything. */
  forget(change: Change | undefined): void;
}

/** @param onRead see {@link createRowCache} */
export function createLegacyUsers(changes: ChangeFeed, onRead: (isStale: boolean) => void = () => {}): LegacyUsers {
  const rows = createRowCache<UserAsOfNow>(changes, MAX_USERS, onRead);
  return {
    // Whatever takes from them what they were found by is told as a change of them, before anybody else can have it.
    find: (tx, by) => rows.find(`${by.kind}:${by.key}`, () => findUserAsOfNow(tx, by)),
    forget(change) {
      if (change?.kind === "user") rows.forgetWhere(({ user }) => user.id === change.id);
      else if (change === undefined || change.kind === "role" || change.kind === "installation") rows.forgetAll();
    },
  };
}
