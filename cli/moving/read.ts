import { pipeline, Readable } from "node:stream";
import { JSONParser } from "@streamparser/json";
import { parse } from "csv-parse";
import { failed, OperatorError, textOf } from "../../config/errors.ts";

/** One entry of an export, or what is wrong with it. */
export type Found = {
  /** The line, or the place in the list, from 1 on. */
  readonly at: number;
} & ({ readonly value: unknown } | { readonly fault: string });

export type Chunks = AsyncIterable<Uint8Array>;

/** No user is longer. */
const MAX_RECORD_BYTES = 1024 * 1024;
/** The settings of a realm may stand before its users, and are longer than any of them. */
const MAX_BETWEEN_BYTES = 64 * 1024 * 1024;
const NEWLINE = 10;
const BOM = [0xef, 0xbb, 0xbf];

const startsWithBom = (bytes: Uint8Array) => BOM.every((byte, index) => bytes[index] === byte);

/** The first character that is no space, and the chunks with that one still in them, without a byte order mark. */
export async function peek(chunks: Chunks): Promise<{ first: string; chunks: Chunks }> {
  const iterator = chunks[Symbol.asyncIterator]();
  let head: Uint8Array = new Uint8Array();
  let first = "";
  for (let next = await iterator.next(); first === ""; next = await iterator.next()) {
    if (next.done) break;
    head = Buffer.concat([head, next.value]);
    if (head.length >= BOM.length && startsWithBom(head)) head = head.subarray(BOM.length);
    first = Buffer.from(head).toString("latin1").trimStart().charAt(0);
    if (first !== "") break;
  }
  return { first, chunks: again(head, iterator) };
}

async function* again(head: Uint8Array, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  if (head.length > 0) yield head;
  for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value;
}

/** A JSON document on each line; one that is damaged is a fault, and the next one is read. */
export async function* readLines(chunks: Chunks): AsyncGenerator<Found> {
  let at = 0;
  for await (const line of linesOf(chunks)) {
    at++;
    if (line === undefined) yield { at, fault: `The line is longer than ${MAX_RECORD_BYTES} bytes` };
    else if (line.trim() !== "") yield { at, ...parsed(line) };
  }
}

function parsed(line: string): { value: unknown } | { fault: string } {
  try {
    return { value: JSON.parse(line) };
  } catch {
    return { fault: "The line is no JSON" };
  }
}

/** The lines of a text; undefined for one that is too long. */
async function* linesOf(chunks: Chunks): AsyncGenerator<string | undefined> {
  let rest: Buffer = Buffer.alloc(0);
  let overlong = false;
  for await (const chunk of chunks) {
    const bytes = Buffer.concat([rest, chunk]);
    let start = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, start)) {
      const line = bytes.subarray(start, end);
      yield overlong || line.length > MAX_RECORD_BYTES ? undefined : line.toString("utf8");
      overlong = false;
      start = end + 1;
    }
    rest = bytes.subarray(start);
    if (rest.length > MAX_RECORD_BYTES) {
      overlong = true;
      rest = Buffer.alloc(0);
    }
  }
  if (overlong) yield undefined;
  else if (rest.length > 0) yield rest.toString("utf8");
}

/**
 * The entries of a list inside a JSON document, without ever having the whole of it.
 *
 * @param path where they are, such as "$.users.*"
 * @throws OperatorError exit 1 where the document is damaged: what was read before it is good
 */
export async function* readList(chunks: Chunks, path: string): AsyncGenerator<Found> {
  const parser = new JSONParser({ paths: [path], keepStack: false, separator: "" });
  let found: unknown[] = [];
  let [at, since] = [0, 0];
  parser.onValue = ({ value }) => void found.push(value);
  const damaged = (error: unknown) =>
    failed(
      `The JSON is damaged after user ${at + found.length}: ${textOf(error)}`,
      "Export again. The users before that place are imported; a second run leaves them alone.",
    );
  const feed = (work: () => void) => {
    try {
      work();
    } catch (error) {
      return damaged(error);
    }
  };
  for await (const chunk of chunks) {
    const fault = feed(() => parser.write(chunk));
    since = found.length > 0 ? 0 : since + chunk.length;
    for (const value of found) yield { at: ++at, value };
    found = [];
    if (fault) throw fault;
    if (since > MAX_BETWEEN_BYTES) throw damaged(new Error(`no user within ${MAX_BETWEEN_BYTES} bytes`));
  }
  const fault = feed(() => {
    if (!parser.isEnded) parser.end();
  });
  if (fault) throw fault;
}

/**
 * The rows of a CSV with a head line, by column. Quotes and separators as in RFC 4180.
 *
 * @throws OperatorError exit 1 where quotes do not match: nobody can tell where the next row begins
 */
export async function* readCsv(chunks: Chunks): AsyncGenerator<Found> {
  const parser = pipeline(
    Readable.from(chunks),
    parse({
      bom: true,
      columns: (head: string[]) => head.map((name) => name.trim().toLowerCase()),
      info: true,
      max_record_size: MAX_RECORD_BYTES,
      relax_column_count: true,
      skip_empty_lines: true,
    }),
    // What goes wrong with either comes out of the parser, below.
    () => {},
  );
  let uneven = 0;
  try {
    for await (const { info, record } of parser as AsyncIterable<CsvRow>) {
      const isUneven = info.invalid_field_length > uneven;
      uneven = info.invalid_field_length;
      yield {
        at: info.lines,
        ...(isUneven ? { fault: "The row has more or fewer cells than the head" } : { value: record }),
      };
    }
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    throw failed(
      `The CSV is damaged: ${textOf(error)}`,
      "Mend it, then import it again: users who are in are left alone.",
      error,
    );
  }
}

interface CsvRow {
  readonly info: { readonly lines: number; readonly invalid_field_length: number };
  readonly record: Record<string, string>;
}
