import { readdirSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { failed, misused, textOf } from "../../config/errors.ts";
import { type Chunks, type Found, peek, readCsv, readLines, readList } from "./read.ts";
import type { Source } from "./source.ts";

/** What is imported: one file after another. */
export interface Input {
  /** As reports call it. */
  readonly name: string;
  readonly files: readonly { readonly name: string; open(): Chunks }[];
  /** All of it; 0 where nobody knows. */
  readonly bytes: number;
}

/** Files of a realm's export that have users in them, in their order. */
const USERS_FILE = /^.+-users-(\d+)\.json$/;
const REALM_FILE = /-realm\.json$/;

/**
 * Finds what is to be imported: a file, "-" for standard input, or a folder as Keycloak exports one.
 *
 * @throws OperatorError exit 2 where there is nothing
 */
export function findInput(path: string): Input {
  if (path === "-") return { name: "standard input", files: [{ name: "-", open: () => Bun.stdin.stream() }], bytes: 0 };
  const full = resolve(path);
  const found = statSync(full, { throwIfNoEntry: false });
  if (!found) throw misused(`${full} is not there.`);
  const names = found.isDirectory() ? filesIn(full) : [full];
  const files = names.map((name) => ({ name: basename(name), open: () => bytesOf(name) }));
  return { name: basename(full), files, bytes: names.reduce((sum, name) => sum + statSync(name).size, 0) };
}

function filesIn(folder: string): string[] {
  const names = readdirSync(folder);
  const numbered = names.filter((name) => USERS_FILE.test(name));
  const numberOf = (name: string) => Number(USERS_FILE.exec(name)?.[1]);
  const users = numbered.sort((a, b) => numberOf(a) - numberOf(b) || (a < b ? -1 : 1));
  const realms = names.filter((name) => REALM_FILE.test(name)).sort();
  const all = [...realms, ...users];
  if (all.length === 0) throw misused(`${folder} has no file such as shop-users-0.json.`, "Name the file itself.");
  return all.map((name) => join(folder, name));
}

async function* bytesOf(path: string): AsyncGenerator<Uint8Array> {
  try {
    yield* Bun.file(path).stream();
  } catch (error) {
    throw failed(`${path} cannot be read: ${textOf(error)}`, undefined, error);
  }
}

/** The entries of one file, in the shape that it turns out to have. */
export async function* entriesOf(chunks: Chunks, source: Source): AsyncGenerator<Found> {
  if (source.csv === "always") return yield* readCsv(chunks);
  const { first, chunks: all } = await peek(chunks);
  if (first === "[") yield* readList(all, source.listInArray ?? "$.*");
  else if (first === "{" && source.listIn) yield* readList(all, source.listIn);
  else if (first !== "{" && source.csv) yield* readCsv(all);
  else yield* readLines(all);
}
