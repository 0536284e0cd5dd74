import { codeOf, failed } from "../../../config/errors.ts";
import type { Log } from "../../../config/log.ts";
import type { Connection, Database } from "../../../db/database.ts";
import {
  countUnsealed,
  dropAuditMonth,
  listAuditMonths,
  lockAuditMonth,
  makeAuditPartitions,
} from "../../../db/queries/audit-months.ts";
import type { Random } from "../../ports/random.ts";

/** One process at a time changes which months there are. */
const MONTHS_LOCK = "primer audit months";
/** How long a drop waits for those who write, while others wait behind it (milliseconds). */
const LOCK_TIMEOUT_MS = 400;
/** SQLSTATE of something that a role may not do, and of a wait for a lock that took too long. */
const NOT_ALLOWED = "42501";
const LOCK_NOT_AVAILABLE = "55P03";

/**
 * Makes the partitions of this month and the coming ones. Where there is none rows are kept all the same, so it does not
 * matter when it fails once.
 *
 * @returns how many were made
 */
export const makeAuditMonths = (db: Pick<Database, "exclusively">): Promise<number> =>
  db.exclusively(MONTHS_LOCK, makeAuditPartitions);

export interface DropOptions {
  readonly endingBefore: Date;
  readonly now: Date;
  readonly random: Pick<Random, "id">;
  readonly log: Pick<Log, "warn">;
  readonly signal: AbortSignal;
}

/**
 * Drops the months that ended before a moment, with their part of the chain; its ends stay, so that the rest can still be
 * verified. A month that is not sealed to its end stays until it is.
 *
 * @param owner whoever owns the tables
 * @returns how many rows were dropped
 */
export function dropAuditMonths(
  owner: Pick<Database, "exclusively" | "longTransaction">,
  options: DropOptions,
): Promise<number> {
  return owner.exclusively(MONTHS_LOCK, async (connection) => {
    let rows = 0;
    for (const month of await listAuditMonths(connection, options.endingBefore)) {
      options.signal.throwIfAborted();
      rows += await owner.longTransaction((transaction) => drop(transaction, month, options));
    }
    return rows;
  });
}

async function drop(transaction: Connection, month: string, { now, random, log }: DropOptions): Promise<number> {
  await transaction.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
  try {
    await lockAuditMonth(transaction, month);
    const unsealed = await countUnsealed(transaction, month);
    if (unsealed === 0) return await dropAuditMonth(transaction, month, { id: random.id(now), at: now });
    log.warn("A month of the audit log is not sealed and stays", { event: "audit.month_kept", month, unsealed });
    return 0;
  } catch (error) {
    if (codeOf(error) === LOCK_NOT_AVAILABLE) {
      log.warn("A month of the audit log is in use, as by a backup, and stays until the next clean-up", {
        event: "audit.month_kept",
        month,
      });
      return 0;
    }
    if (codeOf(error) !== NOT_ALLOWED) throw error;
    const why = `The audit log of ${month.slice(0, 7)} was kept long enough, and this process may not drop it.`;
    throw failed(why, "Give DATABASE_ADMIN_URL, the role that owns the tables, to every process that works.", error);
  }
}
