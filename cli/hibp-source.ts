import { opendirSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, failed, misused, textOf } from "../config/errors.ts";
import { PREFIXES, REST_DIGITS } from "../server/features/passwords/breach-filter.ts";

/** What is read: hashes in order, each as its first five digits and the next nine, with its count. */
export interface HashReader {
  hash(prefix: number, rest: number, count: number): void;
  /** Told now and then how much is done, from 0 to 1. May throw to stop. */
  progress(share: number): void;
}

const HASH_DIGITS = 40;
const PREFIX_DIGITS = 5;
/** A hash, a colon, a count and an end of line have under 60. */
const MAX_LINE_BYTES = 80;
const CHUNK_BYTES = 1024 * 1024;
const [COLON, RETURN, NEWLINE, ZERO] = [58, 13, 10, 48];
/** A hash is this many times the usual distance from the end of the numbers by chance once in 10^27 times. */
const MAX_LAST_GAP = 64;

const NIBBLES = new Int8Array(256).fill(-1);
for (let value = 0; value < 16; value++) {
  NIBBLES[value.toString(16).charCodeAt(0)] = value;
  NIBBLES[value.toString(16).toUpperCase().charCodeAt(0)] = value;
}

/**
 * Reads Pwned Passwords as its downloader writes it: a sorted file of `HASH:COUNT` lines, or a folder of files named by
 * prefix (with or without ".txt") of `SUFFIX:COUNT` lines. Memory does not grow with what is read.
 *
 * @returns how many prefixes a folder has no file for: all of them are there where the download is complete
 * @throws OperatorError exit 1 where it is cut off, not sorted or otherwise not what was expected; exit 2 where it is not there
 */
export async function readHashes(path: string, reader: HashReader): Promise<{ readonly missing: number }> {
  const found = statSync(path, { throwIfNoEntry: false });
  if (!found) throw misused(`${path} is not there.`);
  if (found.isDirectory()) return { missing: PREFIXES - (await readFolder(path, reader)) };
  await readSortedFile(path, found.size, reader);
  return { missing: 0 };
}

async function readSortedFile(path: string, size: number, reader: HashReader): Promise<void> {
  const parser = createParser(path, undefined, reader);
  let done = 0;
  await readChunks(path, (chunk) => {
    parser.take(chunk);
    done += chunk.length;
    // A pipe has no size.
    reader.progress(size === 0 ? 0 : done / size);
  });
  const { lines, position } = parser.end();
  if (lines === 0) throw failed(`${path} is empty.`);
  const lastGap = (1 - position) * lines;
  if (lastGap > MAX_LAST_GAP) {
    const reached = `${(position * 100).toFixed(2)} %`;
    throw failed(`${path} is cut off: it ends after ${reached} of the numbers.`, "Download it again.");
  }
}

/** @returns how many files there were */
async function readFolder(path: string, reader: HashReader): Promise<number> {
  const extensions = listPrefixes(path);
  let [present, done] = [0, 0];
  for (const extension of extensions) if (extension > 0) present++;
  if (present === 0) throw failed(`${path} has no file that is named by five digits of a hash, such as 0A1B2.txt.`);
  for (const [prefix, extension] of extensions.entries()) {
    if (extension === 0) continue;
    const name = join(path, nameOf(prefix, extension));
    const parser = createParser(name, prefix, reader);
    await readChunks(name, (chunk) => parser.take(chunk));
    if (parser.end().lines === 0) throw failed(`${name} is empty.`, "Download it again.");
    reader.progress(++done / present);
  }
  return present;
}

/** The ways in which the file of a prefix may be named; their numbers are bits. */
const NAMES: readonly (readonly [pattern: RegExp, name: (prefix: string) => string])[] = [
  [/^[0-9A-F]{5}$/, (prefix) => prefix],
  [/^[0-9A-F]{5}\.txt$/, (prefix) => `${prefix}.txt`],
  [/^[0-9a-f]{5}$/, (prefix) => prefix.toLowerCase()],
  [/^[0-9a-f]{5}\.txt$/, (prefix) => `${prefix.toLowerCase()}.txt`],
];

const nameOf = (prefix: number, form: number) =>
  NAMES[form - 1]?.[1](prefix.toString(16).toUpperCase().padStart(PREFIX_DIGITS, "0")) ?? "";

/** For each prefix 0, or 1 and more for the way its file is named. Other files are none of ours. */
function listPrefixes(path: string): Uint8Array {
  const forms = new Uint8Array(PREFIXES);
  const folder = opendirSync(path);
  try {
    for (let entry = folder.readSync(); entry; entry = folder.readSync()) {
      const { name } = entry;
      const form = NAMES.findIndex(([pattern]) => pattern.test(name)) + 1;
      if (form === 0) continue;
      const prefix = Number.parseInt(name.slice(0, PREFIX_DIGITS), 16);
      if (forms[prefix] !== 0) throw failed(`${path} has two files for the prefix ${name.slice(0, PREFIX_DIGITS)}.`);
      forms[prefix] = form;
    }
  } finally {
    folder.closeSync();
  }
  return forms;
}

async function readChunks(path: string, take: (chunk: Buffer) => void): Promise<void> {
  try {
    const file = await open(path, "r");
    try {
      const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES);
        if (bytesRead === 0) return;
        take(buffer.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    throw failed(`${path} cannot be read: ${textOf(error)}`, undefined, error);
  }
}

interface Parser {
  take(chunk: Buffer): void;
  /** @returns how many lines there were, and where among all numbers, from 0 to 1, the last one stands */
  end(): { readonly lines: number; readonly position: number };
}

/** Reads lines of whole hashes, or of what comes after a prefix. */
function createParser(path: string, prefix: number | undefined, reader: HashReader): Parser {
  const digits = prefix === undefined ? HASH_DIGITS : HASH_DIGITS - PREFIX_DIGITS;
  const carry = Buffer.alloc(MAX_LINE_BYTES + 1);
  let [carried, lines, lastPrefix, lastRest] = [0, 0, -1, -1];

  const malformed = (what: string) =>
    failed(`${path}, line ${lines + 1}: ${what}.`, `Expected ${digits} hexadecimal digits, a colon and a count.`);

  /** One line without its newline, from `start` up to `end`. */
  function line(bytes: Buffer, start: number, end: number): void {
    const stop = bytes[end - 1] === RETURN ? end - 1 : end;
    const hashPrefix = prefix ?? numberAt(bytes, start, PREFIX_DIGITS);
    const restAt = prefix === undefined ? start + PREFIX_DIGITS : start;
    const rest = numberAt(bytes, restAt, REST_DIGITS);
    const isHash =
      stop - start > digits + 1 && bytes[start + digits] === COLON && allHex(bytes, restAt, start + digits);
    const count = isHash && hashPrefix >= 0 ? countAt(bytes, start + digits + 1, stop) : -1;
    if (count < 0) throw malformed("not a hash with its count");
    if (hashPrefix < lastPrefix || (hashPrefix === lastPrefix && rest < lastRest)) throw malformed("not in order");
    [lastPrefix, lastRest] = [hashPrefix, rest];
    lines++;
    reader.hash(hashPrefix, rest, count);
  }
  function keep(chunk: Buffer, start: number, end: number): void {
    if (carried + end - start > MAX_LINE_BYTES) throw malformed("too long");
    chunk.copy(carry, carried, start, end);
    carried += end - start;
  }
  return {
    take(chunk) {
      let start = 0;
      for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
        if (carried > 0) {
          keep(chunk, start, end);
          line(carry, 0, carried);
          carried = 0;
        } else if (end - start > MAX_LINE_BYTES) throw malformed("too long");
        else line(chunk, start, end);
        start = end + 1;
      }
      keep(chunk, start, chunk.length);
    },
    end() {
      if (carried > 0) line(carry, 0, carried);
      return { lines, position: (lastPrefix + lastRest / 16 ** REST_DIGITS) / PREFIXES };
    },
  };
}

/** A hexadecimal number; negative where a digit is none. */
function numberAt(bytes: Buffer, start: number, digits: number): number {
  let number = 0;
  for (let at = start; at < start + digits; at++) {
    const nibble = NIBBLES[bytes[at] ?? 0] ?? -1;
    if (nibble < 0) return -1;
    number = number * 16 + nibble;
  }
  return number;
}

function allHex(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if ((NIBBLES[bytes[at] ?? 0] ?? -1) < 0) return false;
  return true;
}

const MAX_COUNT_DIGITS = 12;

function countAt(bytes: Buffer, start: number, end: number): number {
  if (end - start > MAX_COUNT_DIGITS) return -1;
  let count = 0;
  for (let at = start; at < end; at++) {
    const digit = (bytes[at] ?? 0) - ZERO;
    if (digit < 0 || digit > 9) return -1;
    count = count * 10 + digit;
  }
  return count;
}
