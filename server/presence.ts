import type { Log } from "../config/log.ts";
import type { Database } from "../db/database.ts";
import {
  countProcesses,
  deleteGoneProcesses,
  deleteProcess,
  GONE_AFTER_MS,
  upsertProcess,
} from "../db/queries/processes.ts";
import type { Clock } from "./ports/clock.ts";
import type { Random } from "./ports/random.ts";

const SAY_EVERY_MS = GONE_AFTER_MS / 3;

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
  let isClosed = false;
  let looking: Promise<void> | undefined;

  async function lookNow(): Promise<void> {
    await upsertProcess(db.orm, { id, kind, startedAt });
    await deleteGoneProcesses(db.orm);
    known = Math.max(1, await countProcesses(db.orm, kind));
  }
  /** One look at a time; of a process that has said that it goes, none. */
  async function look(): Promise<void> {
    if (isClosed) return;
    looking ??= lookNow().finally(() => {
      looking = undefined;
    });
    await looking;
  }
  const timer = setInterval(() => {
    look().catch((error) => log.debug("Other processes could not be counted", { event: "presence.unknown", error }));
  }, SAY_EVERY_MS);
  return {
    count: () => known,
    look,
    async close() {
      isClosed = true;
      clearInterval(timer);
      // A look under way would bring the row back.
      await looking?.catch(() => {});
      await deleteProcess(db.orm, id).catch(() => {});
    },
  };
}
