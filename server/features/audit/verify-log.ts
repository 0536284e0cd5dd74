import type { Connection } from "../../../db/database.ts";
import {
  type Anchor,
  type ChainLink,
  findAnchor,
  findChainHead,
  findVouched,
  type LogPage,
  listChain,
  lookThroughLog,
  type Seal,
  type Vouched,
} from "../../../db/queries/audit-chain.ts";
import { callerDigestOf, GENESIS, linkHash } from "./chain.ts";
import type { ChainHead } from "./seal-log.ts";

const LINKS_AT_ONCE = 500;
const ROWS_AT_ONCE = 5000;

/** What the check reads, some hundreds of rows at a time. */
export interface ChainReader {
  head(): Promise<Seal | null>;
  links(after: { readonly seq: number; readonly event_id: string } | null): Promise<ChainLink[]>;
  anchor(seq: number): Promise<Anchor | null>;
  vouched(): Promise<Vouched>;
  log(after: LogPage["last"], sealedThrough: number): Promise<LogPage>;
}

export const chainReaderOn = (connection: Connection): ChainReader => ({
  head: async () => (await findChainHead(connection)) ?? null,
  links: (after) => listChain(connection, after, LINKS_AT_ONCE),
  anchor: async (seq) => (await findAnchor(connection, seq)) ?? null,
  vouched: () => findVouched(connection),
  log: (after, sealedThrough) => lookThroughLog(connection, after, sealedThrough, ROWS_AT_ONCE),
});

/** Where the log is not as it was written. */
export interface ChainFault {
  readonly kind: "changed" | "removed" | "inserted";
  /** The place in the chain; null for a row that has none. */
  readonly seq: number | null;
  readonly event_id: string | null;
  readonly time: string | null;
  readonly message: string;
}

export interface ChainReport {
  readonly ok: boolean;
  /** Rows that were held against the chain. */
  readonly rows: number;
  readonly months: number;
  /** Of these rows, those whose address and agent were erased: the rest of them was held against the chain. */
  readonly erased: number;
  /** What was dropped by age, and is known by its anchors alone. */
  readonly dropped: { readonly rows: number; readonly months: number };
  /** Rows that were written and are not in the chain yet. */
  readonly unsealed: { readonly rows: number; readonly oldest: string | null };
  /** The end of the chain. Whoever keeps it elsewhere can tell a chain that was made anew. */
  readonly head: { readonly seq: number; readonly hash: string } | null;
  /** The first one found. */
  readonly fault: ChainFault | null;
}

const isoOf = (ms: string | null) => (ms === null ? null : new Date(Number(ms)).toISOString());

/** Walks along the chain; what was counted so far is in it when it ends at a fault. */
function createWalk(reader: ChainReader, expected: ChainHead | undefined) {
  const months = new Set<string>();
  const droppedMonths = new Set<string>();
  const counts = { rows: 0, erased: 0, dropped: 0 };
  let seq = 0;
  let hash = GENESIS;
  let isMet = expected === undefined;

  /** Once the chain has come to the place that somebody has kept. */
  const meets = (): boolean => {
    if (expected?.seq === seq) isMet = expected.hash === hash;
    return expected?.seq !== seq || isMet;
  };

  /** Goes on over what was dropped. @returns whether anything was */
  async function skipDropped(): Promise<boolean> {
    const anchor = await reader.anchor(seq + 1);
    if (!anchor) return false;
    counts.dropped += anchor.last_seq - seq;
    droppedMonths.add(anchor.month);
    seq = anchor.last_seq;
    hash = anchor.last_hash;
    meets();
    return true;
  }

  async function step(link: ChainLink): Promise<ChainFault | undefined> {
    while (link.seq > seq + 1 && (await skipDropped()));
    const at = { seq: link.seq, event_id: link.event_id, time: isoOf(link.time) };
    const fault = (kind: ChainFault["kind"], message: string) => ({ kind, message, ...at });
    if (link.seq > seq + 1) {
      const [first, last] = [seq + 1, link.seq - 1];
      const which = first === last ? `Row ${first} of the chain is` : `Rows ${first} to ${last} of the chain are`;
      return { kind: "removed", seq: first, event_id: null, time: null, message: `${which} missing` };
    }
    if (link.seq <= seq) return fault("inserted", `Row ${link.seq} of the chain is there more than once`);
    if (!link.event) return fault("removed", `Row ${link.seq} of the chain is missing from the log`);
    const { event } = link;
    const isErased = event.caller_salt === null;
    const callerFits = isErased
      ? event.ip === null && event.user_agent === null
      : callerDigestOf(event) === link.caller_digest;
    // When a row was sealed all before it were, and itself was not.
    const isInOrder = link.sealed_through < Number(event.number);
    if (!callerFits || !isInOrder || linkHash(hash, link, event) !== link.hash) {
      return fault("changed", `Row ${link.seq} of the chain is not as it was written`);
    }
    // Of somebody who lives nobody takes the traces away.
    if (!link.erasure_known) {
      return fault(
        "changed",
        `Address and agent of row ${link.seq} of the chain are gone, and their user was not erased`,
      );
    }
    ({ seq, hash } = link);
    if (!meets())
      return fault("changed", `Row ${seq} of the chain has another hash than was expected: it was made anew`);
    counts.rows++;
    if (isErased && link.caller_digest !== null) counts.erased++;
    months.add((at.time ?? "").slice(0, 7));
    return undefined;
  }

  /** What is to be said of the place kept, at the end of the chain. */
  function missed(): ChainFault | undefined {
    if (isMet || !expected) return undefined;
    const message = `Row ${expected.seq} of the chain is not there with the hash that was expected, or within what was dropped`;
    return { kind: "removed", seq: expected.seq, event_id: null, time: null, message };
  }

  return { step, skipDropped, missed, counts, months, droppedMonths, head: () => (seq === 0 ? null : { seq, hash }) };
}

/**
 * Holds every row of the audit log against the chain, in bounded memory, and ends at the first fault. Rows that are not in
 * the chain yet are counted; one that is not although all of its number are has been put in later.
 *
 * @param told hears how many rows were looked at so far
 * @param options.expected an end of the chain that somebody has kept elsewhere: it has to be a part of it
 */
export async function verifyChain(
  reader: ChainReader,
  told: (rows: number) => void,
  { signal, expected }: { readonly signal?: AbortSignal; readonly expected?: ChainHead | undefined } = {},
): Promise<ChainReport> {
  const sealedThrough = (await reader.head())?.sealed_through ?? 0;
  const walk = createWalk(reader, expected);
  let fault: ChainFault | undefined;
  let after: { seq: number; event_id: string } | null = null;
  for (let more = true; more && !fault; ) {
    signal?.throwIfAborted();
    const links: ChainLink[] = await reader.links(after);
    for (const link of links) fault ??= await walk.step(link);
    after = links.at(-1) ?? after;
    more = links.length === LINKS_AT_ONCE;
    told(walk.counts.rows);
  }
  while (!fault && (await walk.skipDropped()));
  fault ??= walk.missed() ?? anchorFault(await reader.vouched());
  const unsealed = { rows: 0, oldest: null as string | null };
  let last: LogPage["last"] = null;
  do {
    if (fault) break;
    signal?.throwIfAborted();
    const page: LogPage = await reader.log(last, sealedThrough);
    unsealed.rows += page.unsealed;
    unsealed.oldest ??= isoOf(page.oldest_unsealed);
    if (page.inserted) fault = insertedAfterwards(page.inserted);
    last = page.last;
  } while (last);
  return {
    ok: fault === undefined,
    rows: walk.counts.rows,
    months: walk.months.size,
    erased: walk.counts.erased,
    dropped: { rows: walk.counts.dropped, months: walk.droppedMonths.size },
    unsealed,
    head: walk.head(),
    fault: fault ?? null,
  };
}

/** An anchor stands for rows that are gone, so nobody may be able to add one unseen. */
function anchorFault({ anchors, known, kept }: Vouched): ChainFault | undefined {
  const at = { event_id: null, time: null };
  if (kept !== null) {
    return {
      kind: "inserted",
      seq: kept,
      ...at,
      message: `Row ${kept} of the chain is there, and is said to be dropped`,
    };
  }
  if (anchors === 0 || known) return undefined;
  const message = "What is said to be dropped by age is not what the last event audit.month_dropped says";
  return { kind: "removed", seq: null, ...at, message };
}

const insertedAfterwards = ({ id, time }: { id: string; time: string }): ChainFault => ({
  kind: "inserted",
  seq: null,
  event_id: id,
  time: isoOf(time),
  message:
    "A row is in the log that is not in the chain, although every row of its number is, or whose number was never given",
});
