import { failed, misused } from "../../../config/errors.ts";
import { type Secrets, unseal } from "../../../config/secrets.ts";
import { readArchive } from "../../../db/backup/archive.ts";
import { type Line, type Manifest, parseLines, type TableSum } from "../../../db/backup/format.ts";
import { loadBackup, pendingOf } from "../../../db/backup/load.ts";
import type { Connection } from "../../../db/database.ts";
import { continueAuditNumbers, makeAuditPartitions } from "../../../db/queries/audit-months.ts";
import type { SealedSecret } from "../../../db/queries/keys.ts";
import type { Deps } from "../../deps.ts";
import { unlockSecrets } from "../keys/service.ts";

export interface BackupFile {
  readonly file: string;
  readonly passphrase: string;
  /** What belongs to the installation that was backed up, from its secrets.env. */
  readonly secrets: Secrets;
  /** Ends it between two lines: then nothing was changed. */
  readonly stop?: AbortSignal;
}

async function* linesOf({ file, passphrase, stop }: Omit<BackupFile, "secrets">): AsyncGenerator<Line> {
  for await (const line of parseLines(readArchive(file, passphrase))) {
    if (stop?.aborted) throw failed("Interrupted; nothing was changed.");
    yield line;
  }
}

export interface InspectedBackup {
  readonly manifest: Manifest;
  readonly tables: Readonly<Record<string, TableSum>>;
  readonly rows: number;
}

/**
 * Reads a backup to its end, and sees that this primer and these secrets can do something with it. Nothing is changed.
 *
 * @throws OperatorError exit 1 where a byte of it is not as it was written or a newer primer took it, exit 2 where
 * passphrase or secrets are not the ones
 */
export async function inspectBackup(backup: BackupFile): Promise<InspectedBackup> {
  let manifest: Manifest | undefined;
  let tables: InspectedBackup["tables"] = {};
  const keyRows: Record<string, KeyRow[]> = { "public.secret_keys": [], "public.signing_keys": [] };
  let kept: KeyRow[] | undefined;
  for await (const line of linesOf(backup)) {
    if (line.kind === "manifest") manifest = line.manifest;
    if (line.kind === "table") kept = keyRows[line.head.table];
    if (line.kind === "rows") kept?.push(...(JSON.parse(line.json) as KeyRow[]));
    if (line.kind === "end") tables = line.sums;
  }
  if (!manifest) throw new Error("A backup without a manifest was not refused");
  pendingOf(manifest);
  assertUnlocks(manifest, backup.secrets, keyRows["public.secret_keys"] ?? [], keyRows["public.signing_keys"] ?? []);
  return { manifest, tables, rows: Object.values(tables).reduce((sum, table) => sum + table.rows, 0) };
}

type KeyRow = Readonly<Record<"id" | "purpose" | "key_id" | "state" | "sealed_key" | "sealed_private_key", string>>;

/** Every key opens, and every password can be checked: what was peppered with another one never could. */
function assertUnlocks(
  manifest: Manifest,
  base: Secrets,
  secretKeys: readonly KeyRow[],
  signingKeys: readonly KeyRow[],
) {
  const sealed = secretKeys
    .filter((row) => row.state !== "retired")
    .map((row) => ({ ...row, keyId: row.key_id, sealedKey: row.sealed_key }) as unknown as SealedSecret)
    .sort((a, b) => (a.id < b.id ? -1 : 1));
  const secrets = unlockSecrets(base, manifest.master_key_id, sealed);
  for (const row of sealed) if (row.purpose === "refresh") unseal(secrets.master, row.sealedKey, row.id);
  for (const row of signingKeys) {
    if (row.state !== "retired") unseal(secrets.master, row.sealed_private_key, row.id);
  }
  const missing = manifest.pepper_ids.filter((id) => !secrets.pepper.some((pepper) => pepper.id === id));
  if (missing.length === 0) return;
  throw misused(
    `Passwords in this backup stand on pepper ${missing.join(", ")}, but PRIMER_PEPPER is ${base.pepper[0].id}.`,
    "Give the secrets.env of the installation that was backed up. Nothing was changed.",
  );
}

/**
 * Fills a database with a backup that was inspected before, in the transaction of `connection`. Afterwards no session,
 * refresh token, link or code from before counts, nor any access token: neither those in the backup nor later ones.
 *
 * @throws OperatorError (exit 1) where the rows are not what was backed up, or processes are at work on the database;
 * then nothing has changed
 */
export async function restoreInto(
  connection: Connection,
  deps: Pick<Deps, "clock" | "random">,
  backup: Omit<BackupFile, "secrets">,
  inspected: InspectedBackup,
  told: (rows: number) => void,
): Promise<void> {
  const now = deps.clock.now();
  const { file } = backup;
  await loadBackup(connection, linesOf(backup), now, told, async () => {
    const at = now.toISOString();
    await connection.query(
      "UPDATE sessions SET revoked_at = $1, revoked_reason = 'restored' WHERE revoked_at IS NULL",
      [at],
    );
    await connection.query("UPDATE refresh_families SET revoked_at = $1 WHERE revoked_at IS NULL", [at]);
    await connection.query("DELETE FROM single_use_tokens");
    await connection.query("UPDATE installation SET not_before = $1", [at]);
    const { id, taken_at } = inspected.manifest;
    await connection.query(
      `INSERT INTO backups (id, file, taken_at, bytes, rows, restored_at) VALUES ($1, $2, $3, $4, $5, $6)
       ON CONFLICT (id) DO UPDATE SET restored_at = excluded.restored_at`,
      [id, file, taken_at, Bun.file(file).size, inspected.rows, at],
    );
    await continueAuditNumbers(connection);
    await makeAuditPartitions(connection);
    await connection.query(
      `INSERT INTO audit_log (id, time, action, outcome, actor_kind, subject_kind, subject_id, details)
       VALUES ($1, $2, 'backup.restored', 'success', 'operator', 'backup', $3, $4::text::jsonb)`,
      [deps.random.id(now), at, id, JSON.stringify({ taken_at, rows: inspected.rows })],
    );
  });
}
