/**
 * Fills the write-ahead log of a home's embedded database without making its tables grow, until it is ended:
 * `bun fill-log.ts HOME GO`. It begins once the file GO exists. Says each row's id once its commit was acknowledged.
 */
import { existsSync, writeSync } from "node:fs";
import { openPglite } from "../../../db/pglite.ts";

const LOG_BYTES = 100_000;
const [home = "", go = ""] = process.argv.slice(2);
const db = await openPglite(home);
await db.query("CREATE TABLE drill (id integer PRIMARY KEY)");
writeSync(1, "ack open\n");
while (!existsSync(go)) await Bun.sleep(10);
for (let id = 1; ; id++) {
  await db.query(`
    BEGIN;
    INSERT INTO drill VALUES (${id});
    SELECT pg_logical_emit_message(true, 'drill', repeat('x', ${LOG_BYTES}));
    COMMIT;`);
  writeSync(1, `ack ${id}\n`);
}
