import { misused } from "../../../config/errors.ts";
import { type Keyring, type SecretKey, type Secrets, sealedBy, secretKey, unseal } from "../../../config/secrets.ts";
import type { Tx } from "../../../db/database.ts";
import { findInstallation, type InstallationRow } from "../../../db/queries/installation.ts";
import { listSecretKeys, type SealedSecret } from "../../../db/queries/keys.ts";

export interface OpenedSecrets {
  readonly secrets: Secrets;
  /** Undefined on a database that `primer init` has not reached yet. */
  readonly installation: InstallationRow | undefined;
}

/**
 * The secrets as they count now: to those that the process was started with come the ones that were rotated in since.
 * A new master key waits in the database under the old one until every node has it; new peppers are kept there.
 *
 * @throws OperatorError (exit 2) where the database was sealed under another master key; nothing is changed
 */
export async function openSecrets(tx: Tx, base: Secrets): Promise<OpenedSecrets> {
  const installation = await findInstallation(tx);
  if (!installation) return { secrets: base, installation };
  return { installation, secrets: unlockSecrets(base, installation.masterKeyId, await listSecretKeys(tx)) };
}

/**
 * The same from rows that were read already, in the order of their ids.
 *
 * @param masterKeyId the master key that counts there
 * @throws OperatorError (exit 2) where neither that key is known nor one under which it waits
 */
export function unlockSecrets(base: Secrets, masterKeyId: string, rows: readonly SealedSecret[]): Secrets {
  const master: SecretKey[] = [...base.master];
  for (const row of rows.filter(({ purpose }) => purpose === "master")) {
    const opens = master.some((key) => key.id === sealedBy(row.sealedKey));
    if (opens && !master.some((key) => key.id === row.keyId)) {
      master.push(secretKey(unseal(master as unknown as Keyring, row.sealedKey, row.id)));
    }
  }
  const current = master.find((key) => key.id === masterKeyId);
  if (!current) {
    throw misused(
      `This database belongs to master key ${masterKeyId}, but PRIMER_MASTER_KEY is ${base.master[0].id}.`,
      "Put back the secrets.env that belongs to this database (on several nodes they share one). Nothing was changed.",
    );
  }
  const ring: Keyring = [current, ...master.filter((key) => key !== current)];
  const peppers = rows.filter(({ purpose }) => purpose === "pepper");
  const byState = (active: boolean) =>
    peppers
      .filter((row) => (row.state === "active") === active)
      .map((row) => secretKey(unseal(ring, row.sealedKey, row.id)));
  const [first, ...rest] = [...byState(true), ...base.pepper, ...byState(false)];
  return { master: ring, pepper: [first ?? base.pepper[0], ...rest] };
}
