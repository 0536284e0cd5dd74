import { once } from "node:events";
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { failed, textOf } from "../config/errors.ts";

/** Where an export goes. */
export interface Sink {
  write(text: string): Promise<void>;
}

/** Waits for its reader, so that what is not read yet does not pile up here. */
export const STANDARD_OUTPUT: Sink = {
  async write(text) {
    if (process.stdout.destroyed) throw failed("Nobody reads the export any more.");
    if (process.stdout.write(text)) return;
    const either = new AbortController(); // the other one is waited for no longer
    const seen = ["drain", "close"].map((event) => once(process.stdout, event, { signal: either.signal }));
    await Promise.race(seen).finally(() => either.abort());
  },
};

/** Writes a file that only its owner can read. It is there whole or not at all. */
export async function intoFile<T>(path: string, work: (sink: Sink) => Promise<T>): Promise<T> {
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
