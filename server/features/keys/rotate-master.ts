import { failed } from "../../../config/errors.ts";
import { type SecretKey, seal, sealedBy, unseal } from "../../../config/secrets.ts";
import {
  insertSecretKey,
  type KeyStage,
  listKeyStages,
  listSealed,
  lockKeys,
  updateKeyStage,
  updateMasterKeyId,
  updateSealed,
} from "../../../db/queries/keys.ts";
import { type AuditEvent, audit } from "../audit/service.ts";
import { resealJobs } from "./reseal-jobs.ts";
import { PICK_UP_MS, type RotationDeps } from "./rotate-keys.ts";
import { openSecrets } from "./secrets.ts";

/**
 * Seals everything anew under another master key. Until `forgetAfterMs` have passed, the new key waits in the database
 * under the old one, so that running processes have it at once and others can still start with the old secrets.env.
 * Cut off anywhere, a second run with the same key finishes; run again after that, it changes nothing.
 *
 * @param next the new master key; it must be kept in secrets.env already
 * @returns how many values were sealed anew
 * @throws OperatorError (exit 1) where another rotation, to another key, is under way or was faster
 */
export async function rotateMasterKey(
  deps: RotationDeps,
  next: SecretKey,
  forgetAfterMs: number,
  actor: AuditEvent["actor"],
): Promise<number> {
  const isDone = deps.secrets.master[0].id === next.id;
  const keys = isDone ? 0 : await rotateKeysUnder(deps, next, forgetAfterMs, actor);
  return keys + (await resealJobs(deps, [next, ...deps.secrets.master]));
}

async function rotateKeysUnder(
  deps: RotationDeps,
  next: SecretKey,
  forgetAfterMs: number,
  actor: AuditEvent["actor"],
): Promise<number> {
  await handOver(deps, next);
  await deps.clock.sleep(PICK_UP_MS);
  return deps.db.change(async (tx) => {
    await lockKeys(tx);
    const now = deps.clock.now();
    const { secrets } = await openSecrets(tx, deps.secrets);
    if (secrets.master[0].id === next.id) return 0; // a second run with the same key was faster
    const isWaiting = (await listKeyStages(tx)).some((key) => isNextMaster(key) && key.keyId === next.id);
    if (!isWaiting) throw tookOver(secrets.master[0].id);
    const outdated = (await listSealed(tx)).filter((row) => sealedBy(row.sealed) !== next.id);
    for (const row of outdated) {
      const plain = unseal(secrets.master, row.sealed, row.id);
      await updateSealed(tx, { ...row, sealed: seal([next], plain, row.id, deps.random.bytes) });
    }
    await updateMasterKeyId(tx, next.id);
    for (const key of await listKeyStages(tx)) {
      if (!isNextMaster(key)) continue;
      const retiresAt = new Date(now.getTime() + forgetAfterMs);
      await updateKeyStage(tx, key, { state: "retiring", activatedAt: now, retiringAt: now, retiresAt });
    }
    await audit(tx, deps, {
      action: "key.resealed",
      outcome: "success",
      actor,
      subject: { kind: "key", id: next.id },
      details: { values: outdated.length },
    });
    return outdated.length;
  });
}

const isNextMaster = ({ purpose, state }: KeyStage) => purpose === "master" && state === "next";

const tookOver = (current: string) =>
  failed(
    `Another rotation of the master key came between; the key that counts is ${current}. Nothing was sealed under yours.`,
    "Look with `primer rotate-keys --status`. Copy the secrets.env of that rotation here, then rotate again if you still want to.",
  );

/** Leaves the new master key in the database, sealed under the old one, for every process that knows only that. */
async function handOver(deps: RotationDeps, next: SecretKey): Promise<void> {
  await deps.db.change(async (tx) => {
    await lockKeys(tx);
    const now = deps.clock.now();
    const waiting = (await listKeyStages(tx)).filter(isNextMaster);
    for (const key of waiting.filter(({ keyId }) => keyId !== next.id)) {
      await updateKeyStage(tx, key, { state: "retired", retiredAt: now });
    }
    if (waiting.some(({ keyId }) => keyId === next.id)) return;
    const id = deps.random.id(now);
    await insertSecretKey(tx, {
      id,
      purpose: "master",
      keyId: next.id,
      state: "next",
      createdAt: now,
      sealedKey: seal(deps.secrets.master, next.bytes, id, deps.random.bytes),
    });
  });
}
