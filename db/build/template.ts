/**
 * Makes the files that the binary opens an embedded database with, run by `bun install` and again whenever PGlite's
 * version changes:
 * - pglite-template.tgz, a data folder as initdb leaves it: no installation runs initdb (4 s and 1 GB of memory);
 * - pglite-trgm.tgz, PGlite's bundle of the extension pg_trgm, which its package does not let a program import;
 * - PGlite's own two files, compressed: what is read of the binary stays in memory as long as the process.
 */
import { existsSync, renameSync } from "node:fs";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { dependencies } from "../../package.json";

const VERSION = dependencies["@electric-sql/pglite"];
const at = (name: string) => join(import.meta.dir, name);
const stamp = at("pglite-template.version");

const FILES: Readonly<Record<string, () => Promise<Uint8Array>>> = {
  "pglite-template.tgz": emptyDatabase,
  "pglite-trgm.tgz": () => Bun.file(new URL("./pg_trgm.tar.gz", import.meta.resolve("@electric-sql/pglite"))).bytes(),
  "pglite-wasm.zst": () => compressed("@electric-sql/pglite/pglite.wasm"),
  "pglite-data.zst": () => compressed("@electric-sql/pglite/pglite.data"),
};

const isMade = existsSync(stamp) && (await Bun.file(stamp).text()) === VERSION;
if (isMade && Object.keys(FILES).every((name) => existsSync(at(name)))) process.exit(0);
for (const [name, make] of Object.entries(FILES)) {
  await Bun.write(at(`${name}.new`), await make());
  renameSync(at(`${name}.new`), at(name));
}
await Bun.write(stamp, VERSION);

async function emptyDatabase(): Promise<Uint8Array> {
  const database = await PGlite.create();
  await database.exec("CHECKPOINT");
  const dump = await database.dumpDataDir("none");
  await database.close();
  return Bun.gzipSync(await dump.bytes(), { level: 9 });
}

async function compressed(file: string): Promise<Uint8Array> {
  return Bun.zstdCompress(await Bun.file(Bun.fileURLToPath(import.meta.resolve(file))).bytes(), { level: 12 });
}
