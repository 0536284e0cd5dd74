import type { Log } from "../config/log.ts";
import type { Database } from "../db/database.ts";
import { countProcesses, deleteProcess, deleteProcessesSeenBefore, upsertProcess } from "../db/queries/processes.ts";
import type { Clock } from "./ports/clock.ts";
import type { Random } from "./ports/random.ts";

const SAY_EVERY_MS = 5000;
/** A process that was not seen for this long is gone. */
const GONE_AFTER_MS = 3 * SAY_EVERY_MS;

/** What a process is there for. */
export type ProcessKind = "serve" | "worker";

/** Which processes of one kind work for the same installation at this moment. */
export interface Presence {
  /** How many there are, this one included; as last heard while the database does not answer. */
  count(): number;
  /** Looks now, and says that this one is there. */
  look(): Promise<void>;
  close(): Promise<void>;
}

/** The embedded database has one process. */
export const alone: Presence = { count: () => 1, look: async () => {}, close: async () => {} };

export function announcePresence(deps: {
  readonly kind: ProcessKind;
  readonly db: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}): Presence {
  const { kind, db, clock, random, log } = deps;
  const startedAt = clock.now();
  const id = random.id(startedAt);
  let known = 1;
  let busy = false;

  async function look(): Promise<void> {
    const now = clock.now();
    const gone = new Date(now.getTime() - GONE_AFTER_MS);
    await upsertProcess(db.orm, { id, kind, startedAt, seenAt: now });
    await deleteProcessesSeenBefore(db.orm, gone);
    known = Math.max(1, await countProcesses(db.orm, kind, gone));
  }
  const timer = setInterval(() => {
    if (busy) return;
    busy = true;
    look()
      .catch((error) => log.debug("Other processes could not be counted", { event: "presence.unknown", error }))
      .finally(() => {
        busy = false;
      });
  }, SAY_EVERY_MS);
  return {
    count: () => known,
    look,
    async close() {
      clearInterval(timer);
      await deleteProcess(db.orm, id).catch(() => {});
    },
  };
}
