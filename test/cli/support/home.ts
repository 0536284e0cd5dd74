import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { type Ran, runPrimer } from "../../support/server.ts";

const root = join(import.meta.dir, "../../..");

/** The administrator of every home that {@link Scratch.home} makes. */
export const ADMIN = { username: "admin", password: "correct horse battery staple" } as const;

/** What decides how a fresh home looks. A change to any of it makes the prepared home anew. */
const MADE_FROM = ["cli/commands/init.ts", "config", "db", "server/features", "server/ports", "bun.lock"];

function* filesIn(path: string): Generator<string> {
  if (!path.endsWith(".ts") && !path.endsWith(".sql") && !path.endsWith(".lock")) {
    for (const name of readdirSync(path).sort()) {
      if (!name.includes(".") || /\.(ts|sql)$/.test(name)) yield* filesIn(join(path, name));
    }
  } else yield path;
}

function preparedHomePath(): string {
  const hash = createHash("sha256");
  for (const source of MADE_FROM) {
    for (const path of filesIn(join(root, source))) hash.update(relative(root, path)).update(readFileSync(path));
  }
  return join(tmpdir(), `primer-test-home-${hash.digest("hex").slice(0, 16)}`);
}

/** An initialised home, made once and kept beside the other fixtures: tests work on copies of it. */
async function preparedHome(): Promise<string> {
  const path = preparedHomePath();
  if (existsSync(path)) return path;
  const unfinished = mkdtempSync(`${path}.`);
  const made = await runPrimer(
    ["init", "--yes", "--algorithm", "ES256", "--admin-password-stdin", "--dir", unfinished],
    {
      input: ADMIN.password,
    },
  );
  if (made.exitCode !== 0) throw new Error(`init ended with ${made.exitCode}: ${made.stderr}`);
  if (!existsSync(path)) renameSync(unfinished, path);
  else rmSync(unfinished, { recursive: true, force: true });
  return path;
}

/** A folder for the homes of one test file. */
export interface Scratch {
  readonly folder: string;
  /** A path at which nothing is yet. */
  path(name: string): string;
  /** An initialised home of its own, on the embedded database, with {@link ADMIN} in it. */
  home(name?: string): Promise<string>;
  remove(): void;
}

export function openScratch(): Scratch {
  const folder = mkdtempSync(join(tmpdir(), "primer-cli-"));
  let made = 0;
  const path = (name: string) => join(folder, `${name}-${made++}`);
  return {
    folder,
    path,
    async home(name = "home") {
      const home = path(name);
      cpSync(await preparedHome(), home, { recursive: true });
      return home;
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** What a command printed with --json. Fails where standard output is not exactly one JSON document. */
// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever was printed
export const jsonOf = ({ stdout }: Pick<Ran, "stdout">): any => JSON.parse(stdout);

/** The hash of every file under a folder, by path. */
export function hashesOf(folder: string, names?: readonly string[]): Record<string, string> {
  if (!existsSync(folder)) return {};
  const found = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = found.map((entry) => relative(folder, join(entry.parentPath, entry.name)));
  return Object.fromEntries(
    paths
      .filter((path) => names === undefined || names.includes(path))
      .sort()
      .map((path) => [
        path,
        createHash("sha256")
          .update(readFileSync(join(folder, path)))
          .digest("hex"),
      ]),
  );
}

/** Makes a folder and all above it. */
export function makeFolder(path: string): string {
  mkdirSync(path, { recursive: true });
  return path;
}

/** A test that takes long, or needs what is not there, and says so where it is left out. */
export function when(condition: unknown, why: string): boolean {
  if (!condition) process.stdout.write(`Left out: ${why}\n`);
  return Boolean(condition);
}

/** What is in a folder for temporary files, but for the addon that Bun unpacks there once for all processes of the binary. */
export const temporaryFilesIn = (folder: string): string[] =>
  readdirSync(folder).filter((name) => !/^\.bun-.*\.node$/.test(name));
