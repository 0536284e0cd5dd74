import { once } from "node:events";
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { failed, misused, textOf } from "../config/errors.ts";
import type { CommandContext } from "./command.ts";

/** Where an export goes. */
export interface Sink {
  write(text: string): Promise<void>;
}

/** What is exported is one line for each, after a head where the format has one. */
export interface ExportFormat<Entry> {
  readonly head: string;
  line(entry: Entry): string;
}

/**
 * Writes an export in the format that is asked for: to the file that is named, or else to standard output.
 *
 * @param formats by name; the first where none is named
 * @param command how it is called, for messages
 * @throws OperatorError exit 2 for an unknown format, and where the report would get in among the export; exit 1 for a
 * file that cannot be written
 */
export async function writeExport<Entry, Written>(
  { arguments: [path = "-"], options }: CommandContext,
  command: string,
  formats: Readonly<Record<string, ExportFormat<Entry>>>,
  write: (sink: Sink, format: ExportFormat<Entry>, name: string) => Promise<Written>,
): Promise<{ path: string; written: Written }> {
  const names = Object.keys(formats);
  const name = String(options.format ?? names[0]);
  const format = Object.hasOwn(formats, name) ? formats[name] : undefined;
  if (!format) throw misused(`--format: expected one of ${names.join(", ")}, not ${name}.`);
  if (path === "-" && options.json) {
    throw misused("With --json, standard output has the report.", `Name a file for the rest: ${command} FILE`);
  }
  const work = (sink: Sink) => write(sink, format, name);
  return { path, written: path === "-" ? await work(STANDARD_OUTPUT) : await intoFile(resolve(path), work) };
}

/** Waits for its reader, so that what is not read yet does not pile up here. */
const STANDARD_OUTPUT: Sink = {
  async write(text) {
    if (process.stdout.destroyed) throw failed("Nobody reads the export any more.");
    if (process.stdout.write(text)) return;
    const either = new AbortController(); // the other one is waited for no longer
    const seen = ["drain", "close"].map((event) => once(process.stdout, event, { signal: either.signal }));
    await Promise.race(seen).finally(() => either.abort());
  },
};

/** Writes a file that only its owner can read. It is there whole or not at all. */
async function intoFile<T>(path: string, work: (sink: Sink) => Promise<T>): Promise<T> {
  const unfinished = `${path}.new`;
  const file = openUnfinished(unfinished);
  try {
    const result = await work({ write: async (text) => orUnwritable(path, () => writeFileSync(file, text)) });
    orUnwritable(path, () => fsyncSync(file));
    renameSync(unfinished, path);
    return result;
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw error;
  } finally {
    closeSync(file);
  }
}

function openUnfinished(path: string): number {
  return orUnwritable(path, () => {
    rmSync(path, { force: true });
    return openSync(path, "wx", 0o600);
  });
}

function orUnwritable<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw failed(`${path} cannot be written: ${textOf(error)}`, "Name another file.", error);
  }
}
