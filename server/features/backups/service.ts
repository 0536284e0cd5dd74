import type { Tx } from "../../../db/database.ts";
import { updateVerified } from "../../../db/queries/backups.ts";
import { type AuditEvent, audit } from "../audit/service.ts";
import type { BackupDeps } from "./take-backup.ts";

export { type BackupRow, findLastBackup, findLastRestore } from "../../../db/queries/backups.ts";
export { readPassphrase } from "./passphrase.ts";
export { type BackupFile, type InspectedBackup, inspectBackup, restoreInto } from "./restore-backup.ts";
export { type BackupDeps, type TakenBackup, takeBackup } from "./take-backup.ts";

/**
 * Keeps when a backup of this installation was verified.
 *
 * @returns whether it is one of this installation's; of another's nothing is kept
 */
export function recordVerified(deps: BackupDeps, id: string, at: Date, actor: AuditEvent["actor"]): Promise<boolean> {
  return deps.db.transaction(async (tx: Tx) => {
    const [known] = await updateVerified(tx, id, at);
    if (!known) return false;
    await audit(tx, deps, {
      action: "backup.verified",
      outcome: "success",
      actor,
      subject: { kind: "backup", id },
    });
    return true;
  });
}
