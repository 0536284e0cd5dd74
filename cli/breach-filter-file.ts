import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { codeOf, failed, textOf } from "../config/errors.ts";
import { tryLockFolder } from "../db/lock.ts";
import {
  encodePart,
  falsePositiveRate,
  HEADER_BYTES,
  MAGIC,
  MAX_PER_PREFIX,
  OFFSET_BYTES,
  PARTS_AT,
  PREFIXES,
} from "../server/features/passwords/breach-filter.ts";

/** Takes the hashes of a set, the smallest first, and writes them as a file; see breach-filter.ts for its form. */
export interface FilterSink {
  /** @param prefix the first five digits of a hash @param rest the next nine */
  add(prefix: number, rest: number): void;
  /** Writes what is missing. @returns what is in the set now */
  finish(): FilterSummary;
}

export interface FilterSummary {
  readonly hashes: number;
  readonly prefixes: number;
  readonly bytes: number;
  /** How often a password that is not in the set is taken for one that is. */
  readonly falsePositiveRate: number;
}

/** Where an import works, in the home. What a killed one has left there is overwritten by the next. */
const IMPORT_FOLDER = "hibp-import";
const CHUNK_BYTES = 1024 * 1024;

/** Collects the parts of a set. `write` is given its bytes with their place in the file; the header comes last. */
export function createFilterSink(minCount: number, write: (bytes: Uint8Array, position: number) => void): FilterSink {
  const offsets = Buffer.alloc((PREFIXES + 1) * OFFSET_BYTES);
  const chunk = Buffer.alloc(CHUNK_BYTES);
  let [inChunk, written, hashes, prefixes, rates] = [0, PARTS_AT, 0, 0, 0];
  let rests = new Float64Array(4096);
  let [count, current] = [0, 0];

  function append(bytes: Uint8Array): void {
    if (inChunk + bytes.length > CHUNK_BYTES) flush();
    if (bytes.length > CHUNK_BYTES) {
      write(bytes, written);
      written += bytes.length;
    } else {
      chunk.set(bytes, inChunk);
      inChunk += bytes.length;
    }
  }
  function flush(): void {
    write(chunk.subarray(0, inChunk), written);
    written += inChunk;
    inChunk = 0;
  }
  /** Ends the part of the current prefix, and those without a hash up to the next one. */
  function endParts(next: number): void {
    for (; current < next; current++) {
      offsets.writeUIntLE(written + inChunk, current * OFFSET_BYTES, OFFSET_BYTES);
      if (count === 0) continue;
      append(encodePart(rests.subarray(0, count)));
      hashes += count;
      prefixes++;
      rates += falsePositiveRate(count);
      count = 0;
    }
  }
  return {
    add(prefix, rest) {
      if (prefix !== current) endParts(prefix);
      if (count > 0 && rests[count - 1] === rest) return;
      if (count === MAX_PER_PREFIX) throw failed("These are no hashes: too many of them begin with the same digits.");
      if (count === rests.length) {
        const larger = new Float64Array(2 * count);
        larger.set(rests);
        rests = larger;
      }
      rests[count++] = rest;
    },
    finish() {
      endParts(PREFIXES);
      flush();
      offsets.writeUIntLE(written, PREFIXES * OFFSET_BYTES, OFFSET_BYTES);
      write(offsets, HEADER_BYTES);
      const header = Buffer.alloc(HEADER_BYTES);
      header.write(MAGIC, "latin1");
      header.writeUIntLE(written, 16, 6);
      header.writeUIntLE(hashes, 24, 6);
      header.writeUIntLE(minCount, 32, 6);
      write(header, 0);
      return { hashes, prefixes, bytes: written, falsePositiveRate: rates / PREFIXES };
    },
  };
}

/**
 * Writes a set at `path`, whole or not at all: beside it first, brought to the disk, then renamed. Whatever happens
 * before that, the set that is there stays.
 *
 * @throws OperatorError where another process is at it
 */
export async function replaceFilter(
  path: string,
  minCount: number,
  fill: (sink: FilterSink) => Promise<FilterSummary>,
): Promise<FilterSummary> {
  const folder = join(dirname(path), IMPORT_FOLDER);
  const unfinished = join(folder, "unfinished");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const lock = tryLockFolder(folder);
  if (!lock) throw failed("Another import is under way in this home.", "Wait for it to end, or stop it.");
  const file = openSync(unfinished, "w", 0o600);
  try {
    const sink = createFilterSink(minCount, (bytes, position) => writeFully(file, bytes, position));
    const summary = await fill(sink);
    fsyncSync(file);
    renameSync(unfinished, path);
    syncFolder(dirname(path));
    return summary;
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    throw failed(`${path} cannot be written: ${textOf(error)}`, "The set that was there is there still.", error);
  } finally {
    closeSync(file);
    rmSync(unfinished, { force: true });
    lock.release();
  }
}

function writeFully(file: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(file, bytes, done, bytes.length - done, position + done);
  }
}

/** Brings a rename to the disk. */
function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  fsyncSync(folder);
  closeSync(folder);
}
