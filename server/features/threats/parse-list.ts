import { ThreatListError } from "./list-error.ts";
import { isWhollyPrivate, NetworkSet, parseNetwork } from "./network-set.ts";

const MAX_NETWORKS = 1_000_000;
/** A shorter prefix (of IPv4, of IPv6) is a fifth of a continent: no list of bad networks means that. */
const SHORTEST = { 4: 8, 6: 19 } as const;
/** A list with more of all addresses than this is no list of bad ones. */
const LARGEST_SHARE = 0.5;
/** So many lines are read without letting anybody else go first. */
const LINES_AT_ONCE = 5000;
const NEWLINE = 10;

/** The networks of a list, and how many lines named one. */
export interface ParsedList {
  readonly networks: NetworkSet;
  readonly count: number;
}

/**
 * Reads a list of networks: one to a line as "192.0.2.0/24" or "2001:db8::/32", or an address; what follows a # or ; is a
 * comment. Or one JSON object to a line with the network in `cidr`, as Spamhaus has them. Networks that nobody on the
 * internet has are passed over.
 *
 * @throws ThreatListError DAMAGED where a line is anything else, where there is no network, or where there are too many or
 * too large ones: a list that is not understood is not half a list
 */
export async function parseList(bytes: Uint8Array): Promise<ParsedList> {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const ranges = [];
  let [count, number] = [0, 0];
  for (let from = 0; from < text.length; ) {
    const newline = text.indexOf(NEWLINE, from);
    const to = newline < 0 ? text.length : newline;
    number++;
    if (number % LINES_AT_ONCE === 0) await new Promise((resolve) => setImmediate(resolve));
    const written = networkIn(text.toString("latin1", from, to), number);
    from = to + 1;
    if (written === undefined) continue;
    const range = parseNetwork(written);
    if (!range) throw damaged(`line ${number} is no network`);
    if (++count > MAX_NETWORKS) throw damaged(`it has more than ${MAX_NETWORKS} networks`);
    if (isWhollyPrivate(range)) continue;
    if (range.prefix < SHORTEST[range.family])
      throw damaged(`line ${number} is a network as large as /${range.prefix}`);
    ranges.push(range);
  }
  if (ranges.length === 0) throw damaged("there is no network in it");
  const networks = NetworkSet.of(ranges);
  if (networks.share > LARGEST_SHARE) throw damaged("more than half of all addresses are in it");
  return { networks, count: ranges.length };
}

const damaged = (why: string) => new ThreatListError("DAMAGED", why);

/** What a line names; undefined where it is empty, a comment or metadata. */
function networkIn(line: string, number: number): string | undefined {
  if (!line.startsWith("{")) return /^[^#;]*/.exec(line)?.[0].trim() || undefined;
  try {
    const { cidr, type } = JSON.parse(line) as { cidr?: unknown; type?: unknown };
    if (typeof cidr === "string") return cidr;
    if (type === "metadata") return undefined;
  } catch {}
  throw damaged(`line ${number} is no network`);
}
