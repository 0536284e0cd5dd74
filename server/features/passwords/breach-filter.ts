import { type FileHandle, open } from "node:fs/promises";
import { codeOf } from "../../../config/errors.ts";
import { BreachListError } from "./breach-list-error.ts";

/**
 * A set of SHA-1 hashes in about two bytes each, on the disk: a Golomb-coded set (as in BIP 158) for each of the 16^5
 * prefixes of five digits. Of a hash, only the bits after the prefix that tell it from its neighbours are kept, and 14
 * more; the differences between neighbours are written in Rice's code. A hash that is in the set is always found; one
 * that is not is found by mistake once in 2^14 = 16,384 times at most.
 *
 *   bytes 0-15    "primer-hibp-set1"
 *   bytes 16-23   length of the file in bytes
 *   bytes 24-31   number of hashes
 *   bytes 32-39   smallest count of what was taken in
 *   from 64       for each prefix and one more, in 6 bytes: where its part begins
 *   then          the parts: number of hashes in 4 bytes, then the differences
 *
 * Numbers have their lowest byte first.
 */
export const BREACH_FILTER_FILE = "hibp.filter";

export const MAGIC = "primer-hibp-set1";
export const HEADER_BYTES = 64;
export const PREFIXES = 16 ** 5;
export const OFFSET_BYTES = 6;
export const PARTS_AT = HEADER_BYTES + (PREFIXES + 1) * OFFSET_BYTES;
/** Hexadecimal digits after the prefix of which a part may use the bits. */
export const REST_DIGITS = 9;
const REST_BITS = REST_DIGITS * 4;
const RICE_BITS = 14;
const RICE_MASK = (1 << RICE_BITS) - 1;
/** The list has one or two thousand for each prefix. */
export const MAX_PER_PREFIX = 2 ** 20;
const COUNT_BYTES = 4;
const MAX_PART_BYTES = COUNT_BYTES + MAX_PER_PREFIX * 4;

/** Bits of each hash that are kept after the prefix, where so many hashes have that prefix. */
const keptBits = (count: number) => RICE_BITS + Math.ceil(Math.log2(count));

/** How often a hash that is not among `count` hashes of its prefix is taken for one of them. */
export const falsePositiveRate = (count: number): number => (count === 0 ? 0 : count / 2 ** keptBits(count));

/**
 * Writes the part of one prefix.
 *
 * @param rests the {@link REST_DIGITS} digits after the prefix as numbers, the smallest first, without the same one twice
 */
export function encodePart(rests: Float64Array): Uint8Array {
  const shift = 2 ** (REST_BITS - keptBits(rests.length));
  const bits: BitWriter = { bytes: new Uint8Array(COUNT_BYTES + rests.length * 4), at: COUNT_BYTES * 8 };
  new DataView(bits.bytes.buffer).setUint32(0, rests.length, true);
  let previous = 0;
  for (const rest of rests) {
    const kept = Math.floor(rest / shift);
    const difference = kept - previous;
    previous = kept;
    for (let ones = Math.floor(difference / 2 ** RICE_BITS); ones > 0; ones--) writeBit(bits, 1);
    writeBit(bits, 0);
    for (let bit = RICE_BITS - 1; bit >= 0; bit--) writeBit(bits, (difference >> bit) & 1);
  }
  return bits.bytes.subarray(0, Math.ceil(bits.at / 8));
}

interface BitWriter {
  bytes: Uint8Array;
  /** In bits. */
  at: number;
}

function writeBit(bits: BitWriter, bit: number): void {
  const index = bits.at >> 3;
  bits.bytes[index] = (bits.bytes[index] ?? 0) | (bit << (7 - (bits.at & 7)));
  bits.at++;
}

/** Whether a part holds a hash. Reads no further than the part, whatever stands in it. */
export function partHolds(part: Uint8Array, rest: number): boolean {
  const count = new DataView(part.buffer, part.byteOffset).getUint32(0, true);
  if (count === 0 || count > MAX_PER_PREFIX) throw new BreachListError("set_damaged");
  const wanted = Math.floor(rest / 2 ** (REST_BITS - keptBits(count)));
  const end = part.length * 8;
  let at = COUNT_BYTES * 8;
  let kept = 0;
  const bitAt = (index: number) => ((part[index >> 3] ?? 0) >> (7 - (index & 7))) & 1;
  for (let entry = 0; entry < count && kept <= wanted; entry++) {
    while (at < end && bitAt(at) === 1) {
      kept += 2 ** RICE_BITS;
      at++;
    }
    at++;
    if (at + RICE_BITS > end) throw new BreachListError("set_damaged");
    const byte = at >> 3;
    const three = ((part[byte] ?? 0) << 16) | ((part[byte + 1] ?? 0) << 8) | (part[byte + 2] ?? 0);
    kept += (three >> (24 - RICE_BITS - (at & 7))) & RICE_MASK;
    at += RICE_BITS;
    if (kept === wanted) return true;
  }
  return false;
}

export interface FilterFacts {
  readonly hashes: number;
  readonly minCount: number;
}

/**
 * What a set holds; undefined where there is none.
 *
 * @throws BreachListError where the file is damaged
 */
export async function readFilterFacts(path: string): Promise<FilterFacts | undefined> {
  try {
    return await withFilter(path, async (_file, facts) => facts);
  } catch (error) {
    if (error instanceof BreachListError && error.reason === "set_missing") return undefined;
    throw error;
  }
}

/**
 * Looks a hash up in the set on the disk. The file is opened each time, which takes a fraction of a millisecond, so that a
 * new one counts at once and nothing of it stays in memory.
 *
 * @param sha1 in hexadecimal
 * @throws BreachListError where there is no set, or it is damaged
 */
export function isInFilter(path: string, sha1: string): Promise<boolean> {
  return withFilter(path, async (file, { size }) => {
    const prefix = Number.parseInt(sha1.slice(0, 5), 16);
    const offsets = await readExactly(file, HEADER_BYTES + prefix * OFFSET_BYTES, 2 * OFFSET_BYTES);
    const [start, end] = [offsets.readUIntLE(0, OFFSET_BYTES), offsets.readUIntLE(OFFSET_BYTES, OFFSET_BYTES)];
    if (start === end) return false;
    const length = end - start;
    const isPart = start >= PARTS_AT && length > COUNT_BYTES && length <= MAX_PART_BYTES && end <= size;
    if (!isPart) throw new BreachListError("set_damaged");
    return partHolds(await readExactly(file, start, length), Number.parseInt(sha1.slice(5, 5 + REST_DIGITS), 16));
  });
}

async function withFilter<T>(
  path: string,
  work: (file: FileHandle, facts: FilterFacts & { readonly size: number }) => Promise<T>,
): Promise<T> {
  const file = await open(path, "r").catch((error) => {
    throw new BreachListError(codeOf(error) === "ENOENT" ? "set_missing" : "set_damaged", error);
  });
  try {
    const { size } = await file.stat();
    const header = await readExactly(file, 0, HEADER_BYTES);
    const isWhole = header.toString("latin1", 0, MAGIC.length) === MAGIC && header.readUIntLE(16, 6) === size;
    if (!isWhole || size < PARTS_AT) throw new BreachListError("set_damaged");
    return await work(file, { size, hashes: header.readUIntLE(24, 6), minCount: header.readUIntLE(32, 6) });
  } catch (error) {
    throw error instanceof BreachListError ? error : new BreachListError("set_damaged", error);
  } finally {
    await file.close();
  }
}

async function readExactly(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await file.read(buffer, 0, length, position);
  if (bytesRead !== length) throw new BreachListError("set_damaged");
  return buffer;
}
