/**
 * Makes pglite-template.tgz: a data folder as initdb leaves it. primer unpacks it at the first start, so that no
 * installation runs initdb (4 s and 1 GB of memory). Run by `bun install`; again whenever PGlite's version changes.
 */
import { existsSync, renameSync } from "node:fs";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { dependencies } from "../../package.json";

const target = join(import.meta.dir, "pglite-template.tgz");
const stamp = join(import.meta.dir, "pglite-template.version");

if (existsSync(target) && existsSync(stamp) && (await Bun.file(stamp).text()) === dependencies["@electric-sql/pglite"])
  process.exit(0);

const database = await PGlite.create();
await database.exec("CHECKPOINT");
const dump = await database.dumpDataDir("none");
await database.close();
await Bun.write(`${target}.new`, Bun.gzipSync(new Uint8Array(await dump.arrayBuffer()), { level: 9 }));
renameSync(`${target}.new`, target);
await Bun.write(stamp, dependencies["@electric-sql/pglite"]);
