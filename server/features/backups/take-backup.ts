import { dirname } from "node:path";
import { failed, textOf } from "../../../config/errors.ts";
import { VERSION } from "../../../config/version.ts";
import { PARTIAL, type WrittenFile, writeArchive } from "../../../db/backup/archive.ts";
import type { Manifest, TableSum } from "../../../db/backup/format.ts";
import { readTables } from "../../../db/backup/read.ts";
import type { Connection } from "../../../db/database.ts";
import { removeLeftOvers } from "../../../db/left-overs.ts";
import { appliedMigrations, isMigrated } from "../../../db/migrate.ts";
import { findChainHead } from "../../../db/queries/audit-chain.ts";
import { insertBackup } from "../../../db/queries/backups.ts";
import type { Deps } from "../../deps.ts";
import { type AuditEvent, audit } from "../audit/service.ts";

export type BackupDeps = Pick<Deps, "db" | "clock" | "random">;

export interface BackupOptions {
  /** Where it goes, as an absolute path. */
  readonly file: string;
  readonly passphrase: string;
  /** The text of primer.toml, where there is one. */
  readonly settingsText: string | null;
  readonly actor: AuditEvent["actor"];
  /** Hears how many rows were read so far. */
  told(rows: number): void;
}

export interface TakenBackup extends WrittenFile {
  readonly id: string;
  readonly takenAt: Date;
  readonly rows: number;
  readonly tables: Readonly<Record<string, TableSum>>;
  readonly seconds: number;
}

/**
 * Takes a backup while everything goes on: whatever was acknowledged before it began is in it, and it is of one moment.
 * Parts of others that killed processes have left in the folder go.
 *
 * @throws OperatorError (exit 1) where it cannot be written, or the schema is not the one of this primer; or where it was
 * written and could not be recorded: then the file stays
 */
export async function takeBackup(deps: BackupDeps, options: BackupOptions): Promise<TakenBackup> {
  const { db, clock, random } = deps;
  if (!(await isMigrated(db))) throw failed("The database is not set up to the end, or needs `primer migrate`.");
  const began = clock.elapsed();
  const takenAt = clock.now();
  const id = random.id(takenAt);
  await removeLeftOvers(dirname(options.file), takenAt, (name) => name.endsWith(PARTIAL));
  let tables: TakenBackup["tables"] = {};
  const written = await writeArchive(options.file, options.passphrase, random.bytes, (put) =>
    db.snapshot(async (reader) => {
      await reader.query("SET TimeZone TO 'UTC'");
      // A month that is dropped goes at once, also for whoever does not see yet that it was: so none goes meanwhile.
      if (db.kind === "postgres")
        await reader.query("LOCK TABLE audit_anchors, audit_log, audit_seals IN ACCESS SHARE MODE");
      const manifest = { ...(await describe(reader)), id, taken_at: takenAt.toISOString(), database: db.kind };
      await put(JSON.stringify({ ...manifest, settings: options.settingsText } satisfies Manifest));
      tables = await readTables(reader, put, options.told);
    }),
  );
  const rows = Object.values(tables).reduce((sum, table) => sum + table.rows, 0);
  const taken = { id, file: options.file, takenAt, bytes: written.bytes, rows };
  await record(deps, taken, options.actor).catch((error) => {
    // The database that has just gone away may not come back: then this is the youngest backup there is.
    throw failed(
      `${options.file} was written and is whole, but the database could not take down that there is one: ${textOf(error)}`,
      "Keep the file: it can be verified and restored. `primer doctor` does not count it, so take another one when the database answers.",
      error,
    );
  });
  return { ...written, id, takenAt, rows, tables, seconds: Math.round(clock.elapsed() - began) / 1000 };
}

const record = (
  deps: BackupDeps,
  { id, file, takenAt, bytes, rows }: Parameters<typeof insertBackup>[1],
  actor: AuditEvent["actor"],
) =>
  deps.db.transaction(async (tx) => {
    await insertBackup(tx, { id, file, takenAt, bytes, rows });
    const subject = { kind: "backup", id };
    await audit(tx, deps, { action: "backup.taken", outcome: "success", actor, subject, details: { rows, bytes } });
  });

async function describe(reader: Connection): Promise<Omit<Manifest, "id" | "taken_at" | "database" | "settings">> {
  const [installation] = await reader.query<{ master_key_id: string }>("SELECT master_key_id FROM installation");
  if (!installation) throw failed("There is no installation in this database yet.", "Run `primer init` first.");
  const peppers = await reader.query<{ pepper_id: string }>(
    "SELECT DISTINCT pepper_id FROM credentials WHERE pepper_id IS NOT NULL ORDER BY 1",
  );
  const migrations = (await appliedMigrations(reader)).map((migration) => ({
    ...migration,
    applied_at: new Date(migration.applied_at).toISOString(),
  }));
  const head = await findChainHead(reader);
  return {
    format: "primer backup",
    version: 1,
    primer: VERSION,
    migrations,
    master_key_id: installation.master_key_id,
    pepper_ids: peppers.map(({ pepper_id }) => pepper_id),
    audit_head: head ? `${head.seq}:${head.hash}` : null,
  };
}
