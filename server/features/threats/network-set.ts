import { isIP } from "node:net";
import { promisify } from "node:util";
import { gunzip, gzip } from "node:zlib";

/** An address: of IPv4 its 32 bits, of IPv6 the upper 64 of its bits. */
type Address = { readonly family: 4; readonly bits: number } | { readonly family: 6; readonly bits: bigint };

const WRAPPED = /^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i;

function bitsOf(ip: string): Address | undefined {
  const plain = ip.includes(":") ? ip.replace(WRAPPED, "") : ip;
  const family = isIP(plain);
  if (family === 4) return { family, bits: ipv4Bits(plain) };
  return family === 6 ? { family, bits: ipv6Bits(plain) } : undefined;
}

function ipv4Bits(ip: string): number {
  let [bits, part] = [0, 0];
  for (let index = 0; index < ip.length; index++) {
    const code = ip.charCodeAt(index);
    if (code === 46) [bits, part] = [bits * 256 + part, 0];
    else part = part * 10 + code - 48;
  }
  return bits * 256 + part;
}

function ipv6Bits(ip: string): bigint {
  const [head = "", tail] = (ip.split("%")[0] ?? "").split("::");
  const groups = head === "" ? [] : head.split(":");
  // An IPv4 address at the end takes the room of two groups, and is never in the upper half.
  const rest = tail ? tail.replace(/[\d.]+\.\d+$/, "0:0").split(":") : [];
  const zeros = tail === undefined ? 0 : 8 - groups.length - rest.length;
  const all = [...groups, ...Array<string>(Math.max(0, zeros)).fill("0"), ...rest];
  return all.slice(0, 4).reduce((bits, group) => (bits << 16n) | BigInt(Number.parseInt(group, 16)), 0n);
}

/** How long the prefix of a network is at most: of IPv6 a /64 is one household's, and counts as a whole. */
const LONGEST = { 4: 32, 6: 64 } as const;

/** A network's first and last address. */
type Range =
  | { readonly family: 4; readonly first: number; readonly last: number; readonly prefix: number }
  | { readonly family: 6; readonly first: bigint; readonly last: bigint; readonly prefix: number };

/** A network as "192.0.2.0/24", "192.0.2.7" or "2001:db8::/32"; undefined where the text is none. */
export function parseNetwork(text: string): Range | undefined {
  const slash = text.indexOf("/");
  const ip = slash < 0 ? text : text.slice(0, slash);
  const address = bitsOf(ip);
  if (!address) return undefined;
  const written = slash < 0 ? "" : text.slice(slash + 1);
  if (slash >= 0 && !/^\d{1,3}$/.test(written)) return undefined;
  const full = address.family === 4 ? 32 : 128;
  const wraps = address.family === 4 && WRAPPED.test(ip) ? 96 : 0;
  const prefix = slash < 0 ? full : Number(written) - wraps;
  if (prefix < 0 || prefix > full) return undefined;
  const kept = Math.min(prefix, LONGEST[address.family]);
  if (address.family === 4) {
    const size = 2 ** (32 - kept);
    const first = Math.floor(address.bits / size) * size;
    return { family: 4, first, last: first + size - 1, prefix: kept };
  }
  const shift = BigInt(64 - kept);
  const first = (address.bits >> shift) << shift;
  return { family: 6, first, last: first | ((1n << shift) - 1n), prefix: kept };
}

/** Addresses that nobody on the internet has: what a list says of them is not meant for whoever has them at home. */
const PRIVATE = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "224.0.0.0/3",
  "::/64",
  "fc00::/7",
  "fe80::/10",
  "ff00::/8",
];
const privateRanges = PRIVATE.map((text) => parseNetwork(text) as Range);

/** Whether a network lies wholly where nobody on the internet is. */
export const isWhollyPrivate = ({ family, first, last }: Range): boolean =>
  privateRanges.some((known) => known.family === family && known.first <= first && last <= known.last);

/** Addresses from `begins[n]` to `ends[n]`, in order, none of them in two. */
interface Spans<A extends Uint32Array | BigUint64Array> {
  readonly begins: A;
  readonly ends: A;
}

/** Networks, for looking addresses up. */
export class NetworkSet {
  private constructor(
    private readonly four: Spans<Uint32Array>,
    private readonly six: Spans<BigUint64Array>,
  ) {}

  static of(ranges: readonly Range[]): NetworkSet {
    const four = ranges.filter((range) => range.family === 4);
    const six = ranges.filter((range) => range.family === 6);
    return new NetworkSet(
      merged(
        Uint32Array.from(four, ({ first }) => first),
        Uint32Array.from(four, ({ last }) => last),
      ),
      merged(
        BigUint64Array.from(six, ({ first }) => first),
        BigUint64Array.from(six, ({ last }) => last),
      ),
    );
  }

  /** Which share of all addresses of IPv4 is in them. */
  get share(): number {
    return this.four.begins.reduce((sum, begin, index) => sum + (this.four.ends[index] ?? 0) - begin + 1, 0) / 2 ** 32;
  }

  /** False for what is no address. */
  has(ip: string): boolean {
    const address = bitsOf(ip);
    if (!address) return false;
    return address.family === 4 ? isWithin(this.four, address.bits) : isWithin(this.six, address.bits);
  }

  /** As text, small enough for one row. */
  async pack(): Promise<string> {
    const { four, six } = this;
    const head = Uint32Array.of(four.begins.length, six.begins.length);
    const parts = [head, four.begins, four.ends, six.begins, six.ends];
    const bytes = Buffer.concat(parts.map((part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength)));
    return (await promisify(gzip)(bytes)).toString("base64");
  }

  /** What {@link pack} has made. @throws where it is not */
  static async unpack(packed: string): Promise<NetworkSet> {
    const { buffer } = Uint8Array.from(await promisify(gunzip)(Buffer.from(packed, "base64"))); // aligned
    const [four = 0, six = 0] = new Uint32Array(buffer, 0, 2);
    if (buffer.byteLength !== 8 + 8 * four + 16 * six) throw new Error("The list of networks is not whole");
    const at = 8 + 8 * four;
    return new NetworkSet(
      { begins: new Uint32Array(buffer, 8, four), ends: new Uint32Array(buffer, 8 + 4 * four, four) },
      { begins: new BigUint64Array(buffer, at, six), ends: new BigUint64Array(buffer, at + 8 * six, six) },
    );
  }
}

/**
 * Networks that lie in each other become one. Where they begin and where they end is sorted each for itself: behind an
 * end that comes before the next beginning, as many have ended as have begun.
 */
function merged<A extends Uint32Array | BigUint64Array>(begins: A, ends: A): Spans<A> {
  begins.sort();
  ends.sort();
  let [count, open] = [0, 0];
  for (let index = 0; index < begins.length; index++) {
    const next = begins[index + 1];
    if (next !== undefined && next <= (ends[index] as number | bigint)) continue;
    begins[count] = begins[open] as never;
    ends[count] = ends[index] as never;
    count++;
    open = index + 1;
  }
  return { begins: begins.slice(0, count) as A, ends: ends.slice(0, count) as A };
}

function isWithin<A extends Uint32Array | BigUint64Array>({ begins, ends }: Spans<A>, value: A[number]): boolean {
  let [low, high] = [0, begins.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((begins[middle] as A[number]) <= value) low = middle + 1;
    else high = middle;
  }
  return low > 0 && value <= (ends[low - 1] as A[number]);
}

const privateSet = NetworkSet.of(privateRanges);

/** Whether an address is one that nobody on the internet has. */
export const isPrivate = (ip: string): boolean => privateSet.has(ip);
