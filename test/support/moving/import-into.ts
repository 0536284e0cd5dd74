import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { importAll } from "../../../cli/moving/import.ts";
import { findInput, type Input } from "../../../cli/moving/input.ts";
import { moverOn } from "../../../cli/moving/mover.ts";
import { openRejects } from "../../../cli/moving/rejects.ts";
import type { SourceOptions } from "../../../cli/moving/source.ts";
import { SOURCES } from "../../../cli/moving/sources/index.ts";
import { newTally, type Tally } from "../../../cli/moving/tally.ts";
import type { ImportOptions } from "../../../server/features/moving/service.ts";
import type { UserDeps } from "../../../server/features/users/service.ts";

export interface Imported {
  readonly tally: Tally;
  readonly rejects: readonly { at: number; code: string; reason: string; email: string | null }[];
}

const SHORT_BYTES = 10_000;

/** A text as if it lay in a file, in chunks of so many bytes; where nothing is said, a short one in very small ones. */
export const inputOf = (content: string | Uint8Array, given?: number): Input => {
  const bytes = Buffer.from(content);
  const chunk = given ?? (bytes.length < SHORT_BYTES ? 7 : 65_536);
  async function* open() {
    for (let at = 0; at < bytes.length; at += chunk) yield bytes.subarray(at, at + chunk);
  }
  return { name: "text", bytes: bytes.length, files: [{ name: "text", open }] };
};

/** Imports as the command does, into the database of a test application. */
export async function importInto(
  deps: UserDeps,
  format: string,
  input: string | Input,
  options: Partial<ImportOptions> & { sourceOptions?: SourceOptions } = {},
): Promise<Imported> {
  const { sourceOptions = {}, ...given } = options;
  const source = SOURCES[format];
  if (!source) throw new Error(`No format ${format}`);
  const folder = mkdtempSync(join(tmpdir(), "primer-rejects-"));
  const rejects = openRejects(join(folder, "rejects"));
  const tally = newTally();
  const read = () => {
    try {
      return readFileSync(rejects.path, "utf8")
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line));
    } catch {
      return [];
    }
  };
  try {
    await importAll({
      input: typeof input === "string" ? findInput(input) : input,
      source,
      sourceOptions,
      options: { product: format, rename: false, withoutPassword: false, dryRun: false, ...given },
      mover: moverOn(deps),
      rejects,
      tally,
      progress: () => {},
      stop: new AbortController().signal,
    });
    return { tally, rejects: read() };
  } finally {
    rejects.close();
    rmSync(folder, { recursive: true, force: true });
  }
}
