import type { Change, ChangeFeed, Tx } from "../../../db/database.ts";
import { type ClientWithSecrets, findClient } from "../../../db/queries/clients.ts";
import { createRowCache } from "../../row-cache.ts";

const MAX_CLIENTS = 1000;

/** What clients and their secrets are now, at most a second old; see RowCache. */
export interface ClientStates {
  find(tx: Tx, id: string): Promise<ClientWithSecrets | undefined>;
  /** Something has changed; undefined is anything. */
  forget(change: Change | undefined): void;
}

export function createClientStates(changes: ChangeFeed): ClientStates {
  const rows = createRowCache<ClientWithSecrets>(changes, MAX_CLIENTS);
  return {
    find: (tx, id) => rows.find(id, () => findClient(tx, { id })),
    forget(change) {
      if (change?.kind === "client") rows.forget(change.id);
      else if (change === undefined) rows.forgetAll();
    },
  };
}
