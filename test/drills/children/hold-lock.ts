/**
 * Races for the lock of a home: `bun hold-lock.ts HOME TIMES [once]`. Each time it has the lock it makes a file that must not
 * be there yet, holds both for a moment, and gives both back. Ends with exit code 7 where somebody else had the lock too,
 * and with 3 where it was to be tried only once and was not to be had.
 */
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { tryLockFolder } from "../../../db/lock.ts";

const [home = "", times = "1", once] = process.argv.slice(2);
const token = join(home, "held-by-one");
let refused = 0;
for (let had = 0; had < Number(times); ) {
  const lock = tryLockFolder(home);
  if (!lock) {
    if (once) process.exit(3);
    refused++;
    continue;
  }
  had++;
  try {
    closeSync(openSync(token, "wx"));
  } catch {
    process.exit(7);
  }
  await Bun.sleep(Math.random() * 4);
  rmSync(token);
  lock.release();
  await Bun.sleep(Math.random() * 2);
}
writeSync(1, `refused ${refused}\n`);
