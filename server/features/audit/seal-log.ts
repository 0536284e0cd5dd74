import type { Connection } from "../../../db/database.ts";
import { findChainHead, findUnsealed, insertSeals } from "../../../db/queries/audit.ts";
import { callerDigestOf, GENESIS, linkHash } from "./chain.ts";

/** Only its holder adds to the chain. */
export const SEALING_LOCK = "primer audit chain";
/** As many rows as are sealed in one statement. */
const BATCH = 1000;
/** The time that a row may take from getting its number to belonging to a transaction (milliseconds); statements end before. */
const NUMBERED_MS = 10_000;

export interface Sealer {
  /** Seals what has committed and is not sealed, at most {@link BATCH} rows. @returns how many, and whether more may wait */
  seal(): Promise<{ readonly sealed: number; readonly more: boolean }>;
}

/**
 * Adds rows of the audit log to its chain, in batches, after they have committed. Rows get numbers when they are written
 * and may commit in another order, so a number that is not seen may still come: rows are looked for from the number on up
 * to which every transaction is known to be over, and never by their time.
 *
 * @param connection one that holds {@link SEALING_LOCK}
 */
export function createSealer(connection: Connection, elapsed: () => number): Sealer {
  let head: { seq: number; hash: string } | undefined;
  /** Up to this number every row is sealed, or undone for good. */
  let through = 0;
  /** The highest number that was sealed. */
  let highest = 0;
  /** What `through` becomes once every transaction that had begun is over. */
  let candidate: { readonly number: number; readonly next: bigint; readonly at: number } | undefined;

  /** Under way where there is more than one batch: from `through` on to the end. */
  let sweep: { readonly oldest: bigint; readonly after: number } | undefined;

  /** @param oldest as it was when the sweep began that has just come to its end */
  function moveOn(oldest: bigint, next: bigint): void {
    if (candidate && oldest >= candidate.next && elapsed() - candidate.at >= NUMBERED_MS) {
      through = candidate.number;
      candidate = undefined;
    }
    if (!candidate && highest > through) candidate = { number: highest, next, at: elapsed() };
  }

  async function findHead(): Promise<{ seq: number; hash: string }> {
    const last = await findChainHead(connection);
    through = last?.sealed_through ?? 0;
    return { seq: last?.seq ?? 0, hash: last?.hash ?? GENESIS };
  }

  return {
    async seal() {
      head ??= await findHead();
      const { events, next, oldest } = await findUnsealed(connection, sweep?.after ?? through, BATCH);
      let { seq, hash } = head;
      const seals = events.map((event) => {
        const link = { seq: ++seq, sealed_through: through, caller_digest: callerDigestOf(event) };
        hash = linkHash(hash, link, event);
        return { ...link, hash, id: event.id, time: event.time };
      });
      if (seals.length > 0) await insertSeals(connection, seals);
      head = { seq, hash };
      const last = Number(events.at(-1)?.number ?? 0);
      highest = Math.max(highest, last);
      const more = seals.length === BATCH;
      if (!more) moveOn(sweep?.oldest ?? oldest, next);
      sweep = more ? { oldest: sweep?.oldest ?? oldest, after: last } : undefined;
      return { sealed: seals.length, more };
    },
  };
}
