/**
 * Opens the embedded database of a home and commits one row after the other, saying each id once its commit was
 * acknowledged: `bun commit-rows.ts HOME FIRST COUNT`. Without a count it goes on until it is ended.
 */
import { writeSync } from "node:fs";
import { openPglite } from "../../../db/pglite.ts";

const [home = "", first = "1", count = "Infinity"] = process.argv.slice(2);
const db = await openPglite(home);
await db.query("CREATE TABLE IF NOT EXISTS drill (id integer PRIMARY KEY, filling text NOT NULL)");
writeSync(1, "ack open\n");
for (let id = Number(first); id < Number(first) + Number(count); id++) {
  await db.query("INSERT INTO drill VALUES ($1, $2)", [id, "x".repeat(200)]);
  writeSync(1, `ack ${id}\n`);
}
await db.close();
writeSync(1, "closed\n");
