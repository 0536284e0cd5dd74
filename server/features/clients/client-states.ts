import type { Change, ChangeFeed, Tx } from "../../../db/database.ts";
import { type ClientWithSecrets, findClient } from "../../../db/queries/clients.ts";
import { createRowCache } from "../../row-cache.ts";

const MAX_CLIENTS = 1000;

/** What clients and their secrets are now, at most a second old; see RowCache. */
export interface ClientStates {
  /** @param staleMs how old it may be where the database cannot be reached */
  find(tx: Tx, id: string, staleMs?: number): Promise<ClientWithSecrets | undefined>;
  /** Something has changed; undefined is anything. */
  forget(change: Change | undefined): void;
}

/** @param onRead see {@link createRowCache} */
export function createClientStates(changes: ChangeFeed, onRead: (isStale: boolean) => void = () => {}): ClientStates {
  const rows = createRowCache<ClientWithSecrets>(changes, MAX_CLIENTS, onRead);
  return {
    find: (tx, id, staleMs) => rows.find(id, () => findClient(tx, { id }), staleMs),
    forget(change) {
      if (change?.kind === "client") rows.forget(change.id);
      else if (change === undefined) rows.forgetAll();
    },
  };
}
