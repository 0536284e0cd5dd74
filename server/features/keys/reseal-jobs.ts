import { type Keyring, seal, unseal } from "../../../config/secrets.ts";
import type { Tx } from "../../../db/database.ts";
import { hasOutdatedSeals, listOutdatedSeals, updateSealedJob } from "../../../db/queries/jobs.ts";
import { lockKeys } from "../../../db/queries/keys.ts";
import type { Deps } from "../../deps.ts";
import { openSecrets } from "./secrets.ts";

type ResealDeps = Pick<Deps, "db" | "secrets" | "random">;

/** So many in one transaction: however many jobs wait, none of them lasts long. */
const BATCH = 100;

/**
 * Seals what waiting jobs keep sealed under the master key that counts now. A rotation does it, and workers from time to
 * time: what was queued in the very moment of the rotation is sealed by a process that had not heard of it yet. Cut off
 * anywhere, the next run finishes. Where there is nothing to do this is one read.
 *
 * @param ring the master keys, the one that counts first
 * @returns how many were sealed anew
 */
export async function resealJobs(deps: ResealDeps, ring: Keyring = deps.secrets.master): Promise<number> {
  if (!(await hasOutdatedSeals(deps.db.orm, ring[0].id))) return 0;
  let total = 0;
  let after: string | undefined;
  do {
    const batch = await deps.db.transaction((tx) => resealBatch(tx, deps, ring, after));
    total += batch.resealed;
    after = batch.last;
  } while (after !== undefined);
  return total;
}

async function resealBatch(tx: Tx, { secrets, random }: ResealDeps, ring: Keyring, after: string | undefined) {
  await lockKeys(tx); // no rotation meanwhile: this must not go back to the key before
  const { master } = (await openSecrets(tx, { ...secrets, master: ring })).secrets;
  const rows = await listOutdatedSeals(tx, { keyId: master[0].id, limit: BATCH, ...(after ? { after } : {}) });
  let resealed = 0;
  for (const { id, sealed } of rows) {
    const plain = opened(master, sealed, id);
    if (!plain) continue;
    await updateSealedJob(tx, { id, from: sealed, to: seal(master, plain, id, random.bytes) });
    resealed++;
  }
  return { resealed, last: rows.length < BATCH ? undefined : rows.at(-1)?.id };
}

/** What cannot be opened stays as it is: its job fails for that, and says so. */
function opened(ring: Keyring, sealed: string, id: string): Buffer | undefined {
  try {
    return unseal(ring, sealed, id);
  } catch {
    return undefined;
  }
}
