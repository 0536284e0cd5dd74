import type { Connection } from "../../../db/database.ts";
import {
  findChainHead,
  findOldestUnsealed,
  findUnsealed,
  insertSeals,
  nextTransaction,
  type Place,
} from "../../../db/queries/audit-chain.ts";
import { callerDigestOf, GENESIS, linkHash } from "./chain.ts";

/** Only its holder adds to the chain. */
export const SEALING_LOCK = "primer audit chain";
/** A row that is not in the chain after so long (milliseconds) waits for a sealer that does not work. */
const OVERDUE_MS = 60_000;
/** As many rows as are looked at, and sealed, in one statement. */
const BATCH = 1000;
/** The time that a row may take from getting its number to belonging to a transaction (milliseconds); statements end before. */
const NUMBERED_MS = 10_000;

/** Since when nothing is sealed, where that is too long; else null. Cheap enough to be asked once a minute. */
export async function findOverdueSince(connection: Connection, now: Date): Promise<Date | null> {
  const oldest = await findOldestUnsealed(connection);
  return isOverdue(oldest, now) ? oldest : null;
}

export const isOverdue = (oldest: Date | null, now: Date): boolean =>
  oldest !== null && now.getTime() - oldest.getTime() > OVERDUE_MS;

/** The last link of the chain; 0 and zeroes where there is none. */
export interface ChainHead {
  readonly seq: number;
  readonly hash: string;
}

export interface Sealer {
  /** Looks at the next {@link BATCH} rows that may not be sealed, and seals those that are not. @returns how many, whether more may wait, and where the chain ends */
  seal(): Promise<{ readonly sealed: number; readonly more: boolean; readonly head: ChainHead }>;
}

/** As many places as are looked at by themselves; where there are more, everything from the first on is looked at. */
const MAX_PLACES = 1000;

/** Of a look at all places: when it began, and before which transaction every one was over then. */
interface Began {
  readonly at: number;
  readonly oldest: bigint;
}

/**
 * Adds rows of the audit log to its chain, in batches, after they have committed. Rows get numbers when they are written
 * and may commit in another order, so a number that is not seen may still come: it is looked for until every transaction
 * that can have it is known to be over, and no row is looked for by its time.
 *
 * @param connection one that holds {@link SEALING_LOCK}
 */
export function createSealer(connection: Connection, elapsed: () => number): Sealer {
  let head: ChainHead | undefined;
  /** Where rows may be that are not sealed, in order; the last one has no end. All before the first are sealed, or undone for good. */
  let places: readonly Place[] = [];
  const through = () => (places[0]?.low ?? 1) - 1;
  const highest = () => (places.at(-1)?.low ?? 1) - 1;
  /**
   * Where places end that were looked at in vain. Whoever has a number up to this one belongs to a transaction
   * {@link NUMBERED_MS} later; only then is it known which: those before `next`, and they have to be over.
   */
  let candidate: { readonly number: number; readonly at: number; readonly next?: bigint } | undefined;
  /** Under way where there is more than one batch: over all places, so far up to `after`. */
  let sweep: (Began & { readonly after: number }) | undefined;

  /** @param began how it was when the sweep began that has just come to its end */
  async function moveOn(began: Began): Promise<void> {
    if (candidate?.next !== undefined && began.oldest >= candidate.next) {
      places = placesAfter(places, candidate.number);
      candidate = undefined;
    } else if (candidate && candidate.next === undefined && began.at - candidate.at >= NUMBERED_MS) {
      candidate = { ...candidate, next: await nextTransaction(connection) };
    }
    if (!candidate && places.length > 1) candidate = { number: highest(), at: elapsed() };
    if (places.length > MAX_PLACES) places = [{ low: through() + 1, high: null }];
  }

  async function findHead(): Promise<ChainHead> {
    const last = await findChainHead(connection);
    places = [{ low: (last?.sealed_through ?? 0) + 1, high: null }];
    return { seq: last?.seq ?? 0, hash: last?.hash ?? GENESIS };
  }

  return {
    async seal() {
      head ??= await findHead();
      const at = elapsed();
      const { events, numbers, oldest } = await findUnsealed(connection, places, sweep?.after ?? 0, BATCH);
      let { seq, hash } = head;
      const seals = events.map((event) => {
        const link = { seq: ++seq, sealed_through: through(), caller_digest: callerDigestOf(event) };
        hash = linkHash(hash, link, event);
        return { ...link, hash, id: event.id, time: event.time };
      });
      if (seals.length > 0) await insertSeals(connection, seals);
      head = { seq, hash };
      places = placesWithout(places, numbers);
      const began = sweep ?? { oldest, at };
      const last = numbers.at(-1);
      const more = numbers.length === BATCH && last !== undefined;
      sweep = more ? { ...began, after: last } : undefined;
      if (!more) await moveOn(began);
      return { sealed: seals.length, more, head };
    },
  };
}

/** What is left of places, in order, of which some numbers, in order too, were found. */
function placesWithout(places: readonly Place[], numbers: readonly number[]): Place[] {
  const left: Place[] = [];
  let next = 0;
  for (const { low, high } of places) {
    let from = low;
    for (; next < numbers.length; next++) {
      const number = numbers[next] ?? 0;
      if (high !== null && number > high) break;
      if (number > from) left.push({ low: from, high: number - 1 });
      from = Math.max(from, number + 1);
    }
    if (high === null || from <= high) left.push({ low: from, high });
  }
  return left;
}

const placesAfter = (places: readonly Place[], number: number): Place[] =>
  places
    .filter(({ high }) => high === null || high > number)
    .map(({ low, high }) => ({ low: Math.max(low, number + 1), high }));
