/**
 * What is slow to make and the same for every test, made once a run and kept in a folder of the machine's temporary
 * ones: a migrated embedded database and a 4096-bit signing key.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JOB_TABLE_ADDITIONS } from "../../db/jobs.ts";
import { CREATE_RECORDS, migrate } from "../../db/migrate.ts";
import { MIGRATIONS } from "../../db/migrations/index.ts";
import { openPgliteInMemory } from "../../db/pglite.ts";
import { dependencies } from "../../package.json";
import { generateSigningKey, type NewSigningKey } from "../../server/features/keys/service.ts";

const version = createHash("sha256")
  .update(JSON.stringify([MIGRATIONS, CREATE_RECORDS, JOB_TABLE_ADDITIONS, dependencies]))
  .digest("hex")
  .slice(0, 16);
const folder = join(tmpdir(), `primer-test-fixtures-${version}`);

async function cached(name: string, make: () => Promise<Uint8Array<ArrayBuffer>>): Promise<string> {
  const path = join(folder, name);
  if (existsSync(path)) return path;
  mkdirSync(folder, { recursive: true });
  const unfinished = `${path}.${process.pid}`;
  await Bun.write(unfinished, await make());
  renameSync(unfinished, path);
  return path;
}

/** A dump of an embedded database with every migration applied. */
export async function migratedDump(): Promise<Blob> {
  const path = await cached("migrated.tgz", async () => {
    const database = await openPgliteInMemory();
    await migrate(database, () => new Date());
    const dump = await database.dump?.();
    await database.close();
    if (!dump) throw new Error("The embedded database made no dump");
    return Bun.gzipSync(new Uint8Array(await dump.arrayBuffer()));
  });
  return Bun.file(path);
}

/** A key pair as `primer init` makes it by default: RS256 with 4096 bits. */
export async function sharedSigningKey(): Promise<NewSigningKey> {
  const path = await cached("signing-key.json", async () =>
    new TextEncoder().encode(JSON.stringify(await generateSigningKey("RS256", 4096))),
  );
  return (await Bun.file(path).json()) as NewSigningKey;
}
