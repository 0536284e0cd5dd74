import type { Connection } from "../../../db/database.ts";
import { findChainHead, findUnsealed, insertSeals, nextTransaction } from "../../../db/queries/audit-chain.ts";
import { callerDigestOf, GENESIS, linkHash } from "./chain.ts";

/** Only its holder adds to the chain. */
export const SEALING_LOCK = "primer audit chain";
/** As many rows as are looked at, and sealed, in one statement. */
const BATCH = 1000;
/** The time that a row may take from getting its number to belonging to a transaction (milliseconds); statements end before. */
const NUMBERED_MS = 10_000;

/** The last link of the chain; 0 and zeroes where there is none. */
export interface ChainHead {
  readonly seq: number;
  readonly hash: string;
}

export interface Sealer {
  /** Looks at the next {@link BATCH} rows that may not be sealed, and seals those that are not. @returns how many, whether more may wait, and where the chain ends */
  seal(): Promise<{ readonly sealed: number; readonly more: boolean; readonly head: ChainHead }>;
}

/** Of a look at all that may not be sealed: when, and before which transaction every one was over. */
interface Began {
  readonly at: number;
  readonly oldest: bigint;
}

/**
 * Adds rows of the audit log to its chain, in batches, after they have committed. Rows get numbers when they are written
 * and may commit in another order, so a number that is not seen may still come: rows are looked for from the number on up
 * to which every transaction is known to be over, and never by their time.
 *
 * @param connection one that holds {@link SEALING_LOCK}
 */
export function createSealer(connection: Connection, elapsed: () => number): Sealer {
  let head: ChainHead | undefined;
  /** Up to this number every row is sealed, or undone for good. */
  let through = 0;
  /**
   * What `through` becomes. Whoever has a number up to this one belongs to a transaction {@link NUMBERED_MS} later; only
   * then is it known which: those before `next`, and they have to be over.
   */
  let candidate: { readonly number: number; readonly at: number; readonly next?: bigint } | undefined;

  /** Under way where there is more than one batch: from `through` on to the end. */
  let sweep: (Began & { readonly after: number }) | undefined;

  /**
   * @param began how it was when the sweep began that has just come to its end
   * @param highest the last number that it has seen
   */
  async function moveOn(began: Began, highest: number): Promise<void> {
    if (candidate?.next !== undefined && began.oldest >= candidate.next) {
      through = candidate.number;
      candidate = undefined;
    } else if (candidate && candidate.next === undefined && began.at - candidate.at >= NUMBERED_MS) {
      candidate = { ...candidate, next: await nextTransaction(connection) };
    }
    if (!candidate && highest > through) candidate = { number: highest, at: elapsed() };
  }

  async function findHead(): Promise<ChainHead> {
    const last = await findChainHead(connection);
    through = last?.sealed_through ?? 0;
    return { seq: last?.seq ?? 0, hash: last?.hash ?? GENESIS };
  }

  return {
    async seal() {
      head ??= await findHead();
      const at = elapsed();
      const after = sweep?.after ?? through;
      const { events, looked, last, oldest } = await findUnsealed(connection, after, BATCH);
      let { seq, hash } = head;
      const seals = events.map((event) => {
        const link = { seq: ++seq, sealed_through: through, caller_digest: callerDigestOf(event) };
        hash = linkHash(hash, link, event);
        return { ...link, hash, id: event.id, time: event.time };
      });
      if (seals.length > 0) await insertSeals(connection, seals);
      head = { seq, hash };
      const began = sweep ?? { oldest, at };
      const more = looked === BATCH;
      if (!more) await moveOn(began, last ?? after);
      sweep = more && last !== null ? { ...began, after: last } : undefined;
      return { sealed: seals.length, more, head };
    },
  };
}
