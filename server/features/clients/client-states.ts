import { LRUCache } from "lru-cache";
import type { Change, ChangeFeed, Tx } from "../../../db/database.ts";
import { type ClientWithSecrets, findClient } from "../../../db/queries/clients.ts";

/** How old what is said of a client may be (milliseconds). */
const MAX_AGE_MS = 1000;
const MAX_CLIENTS = 1000;

interface Remembered {
  readonly readAt: number;
  readonly found: ClientWithSecrets;
}

/** Clients and their secrets, without asking the database at each request of theirs. */
export interface ClientStates {
  /** The client as it is, or as it was at most a second ago; read again where there is no proof that it did not change. */
  find(tx: Tx, id: string): Promise<ClientWithSecrets | undefined>;
  /** Something has changed; undefined is anything. */
  forget(change: Change | undefined): void;
}

export function createClientStates(changes: ChangeFeed): ClientStates {
  const remembered = new LRUCache<string, Remembered>({ max: MAX_CLIENTS });
  let forgotten = 0;
  return {
    async find(tx, id) {
      const known = remembered.get(id);
      if (known && changes.age(known.readAt) < MAX_AGE_MS) return known.found;
      const before = forgotten;
      const readAt = changes.now();
      const found = await findClient(tx, { id });
      // Word of a change may have come while its row was still being read as it was before.
      if (found && before === forgotten) remembered.set(id, { readAt, found });
      else remembered.delete(id);
      return found;
    },
    forget(change) {
      if (change !== undefined && change.kind !== "client") return;
      forgotten++;
      if (change) remembered.delete(change.id);
      else remembered.clear();
    },
  };
}
