import { failed } from "../../../config/errors.ts";
import type { Tx } from "../../../db/database.ts";
import {
  type KeyStage,
  lastSessionEnd,
  listKeyStages,
  lockKeys,
  type SecretPurpose,
  updateKeyStage,
} from "../../../db/queries/keys.ts";
import type { Deps } from "../../deps.ts";
import { type AuditAction, type AuditEvent, audit } from "../audit/service.ts";
import { createSecretKey, generateSigningKey, keepSigningKey } from "./create-keys.ts";
import { openSecrets } from "./secrets.ts";

/**
 * A key goes through stages: next, active, retiring, retired. The plan stands in its row, and whichever process looks
 * first once a time has come takes the step. So a rotation goes on whatever is killed, and needs nobody to finish it.
 */
export type RotationDeps = Pick<Deps, "db" | "secrets" | "clock" | "random" | "settings">;

/** What goes through the stages. The master key does not: see rotate-master.ts. */
export type Staged = "signing" | Exclude<SecretPurpose, "master">;

/** How long others may keep the key set (seconds). A key is published for longer before it signs. */
export const JWKS_MAX_AGE_SECONDS = 300;
/** Every process knows a new key after this long (milliseconds): it is told at once, and looks every second besides. */
export const PICK_UP_MS = 2000;
/** For whatever is still being signed while a key changes (milliseconds). */
const MARGIN_MS = 10_000;

const SCHEDULER = { kind: "system" } as const;

/** How a key's successor comes to be active. */
export type Pace = "staged" | "now" | "emergency";

/**
 * Makes the next key of a kind, or hastens the one that is there already.
 *
 * @param pace "staged": a signing key is published for `keys.publish_ahead` first; "now": as soon as every process of
 * ours knows it; "emergency": likewise, and the keys before it are retired at once
 * @returns when it becomes active
 */
export async function stageKey(
  deps: RotationDeps,
  purpose: Staged,
  pace: Pace,
  actor: AuditEvent["actor"],
): Promise<Date> {
  const { tokens, keys } = deps.settings;
  const made = purpose === "signing" ? await generateSigningKey(tokens.algorithm, keys.bits) : undefined;
  return deps.db.change(async (tx) => {
    await lockKeys(tx);
    const now = deps.clock.now();
    const activatesAt = activationOf(deps.settings, purpose, pace, now);
    const emergency = pace === "emergency";
    const waiting = (await listKeyStages(tx)).find((key) => key.purpose === purpose && key.state === "next");
    if (waiting && !emergency) {
      const planned = waiting.activatesAt ?? activatesAt;
      if (planned <= activatesAt) return planned;
      await updateKeyStage(tx, waiting, { activatesAt });
      return activatesAt;
    }
    // Whoever got at the old key may have got at its successor too.
    if (waiting) await move(tx, deps, waiting, "key.withdrawn", { state: "retired", retiredAt: now }, actor);
    const beginning = { state: "next", activatesAt, emergency } as const;
    // Under the master key that counts now: it may have been rotated since this process last looked.
    const { secrets } = await openSecrets(tx, deps.secrets);
    if (made) await keepSigningKey(tx, { ...deps, secrets }, made, beginning, actor);
    else await createSecretKey(tx, { ...deps, secrets }, purpose as Exclude<Staged, "signing">, beginning, actor);
    return activatesAt;
  });
}

/** When a key that is made now becomes active. Only a signing key is known to others, who have to learn of the next one. */
export function activationOf({ keys }: Deps["settings"], purpose: Staged, pace: Pace, now: Date): Date {
  const wait = pace === "staged" && purpose === "signing" ? keys.publish_ahead : PICK_UP_MS;
  return new Date(now.getTime() + wait);
}

/**
 * Takes every step whose time has come, in all kinds of keys, and begins the scheduled rotation of the signing key.
 *
 * @returns whether anything was changed
 */
export async function advanceKeys(deps: RotationDeps): Promise<boolean> {
  const scheduled = await stageScheduled(deps);
  return deps.db.change(async (tx) => {
    await lockKeys(tx);
    const now = deps.clock.now();
    let changed = scheduled;
    for (const key of await listKeyStages(tx)) {
      if (key.state === "next" && isDue(key.activatesAt, now)) {
        await activate(tx, deps, key, now);
        changed = true;
      } else if (key.state === "retiring" && isDue(key.retiresAt, now)) {
        await move(tx, deps, key, "key.retired", { state: "retired", retiredAt: now }, SCHEDULER);
        changed = true;
      }
    }
    return changed;
  });
}

const isDue = (at: Date | null, now: Date) => at !== null && at <= now;

/** Whether {@link advanceKeys} has anything to do. */
export function isStepDue(stages: readonly KeyStage[], settings: Deps["settings"], now: Date): boolean {
  const due = stages.some(
    (key) =>
      (key.state === "next" && isDue(key.activatesAt, now)) || (key.state === "retiring" && isDue(key.retiresAt, now)),
  );
  return due || isRotationDue(stages, settings, now);
}

/** Begun early, so that the old key is as old as was asked when the new one takes over. */
function isRotationDue(stages: readonly KeyStage[], { keys }: Deps["settings"], now: Date): boolean {
  const active = stages.find((key) => key.purpose === "signing" && key.state === "active");
  if (keys.rotate_every === 0 || !active?.activatedAt) return false;
  if (stages.some((key) => key.purpose === "signing" && key.state === "next")) return false;
  return now.getTime() >= active.activatedAt.getTime() + keys.rotate_every - keys.publish_ahead;
}

async function stageScheduled(deps: RotationDeps): Promise<boolean> {
  const stages = await listKeyStages(deps.db.orm);
  if (!isRotationDue(stages, deps.settings, deps.clock.now())) return false;
  await stageKey(deps, "signing", "staged", SCHEDULER);
  return true;
}

async function activate(tx: Tx, deps: RotationDeps, next: KeyStage, now: Date): Promise<void> {
  const others = (await listKeyStages(tx)).filter((key) => key.purpose === next.purpose && key.id !== next.id);
  for (const key of others) {
    if (next.emergency && (key.state === "active" || key.state === "retiring")) {
      await move(tx, deps, key, "key.retired", { state: "retired", retiredAt: now }, SCHEDULER);
    } else if (key.state === "active") {
      await move(tx, deps, key, "key.retiring", await retirement(tx, deps, key, now), SCHEDULER);
    }
  }
  await move(tx, deps, next, "key.activated", { state: "active", activatedAt: now }, SCHEDULER);
}

/** A key that is used no more counts until nothing can bear it: a pepper, for as long as a password may stand on it. */
async function retirement(tx: Tx, { settings }: RotationDeps, { purpose }: KeyStage, now: Date) {
  const { access_ttl, clock_skew, refresh_absolute } = settings.tokens;
  const after = (ms: number) => new Date(now.getTime() + ms + MARGIN_MS);
  const state = { state: "retiring", retiringAt: now } as const;
  if (purpose === "pepper") return { ...state, retiresAt: null };
  if (purpose === "signing") {
    return { ...state, retiresAt: after(access_ttl + clock_skew + JWKS_MAX_AGE_SECONDS * 1000) };
  }
  const [fresh, last] = [after(refresh_absolute), await lastSessionEnd(tx)];
  return { ...state, retiresAt: last && last > fresh ? last : fresh };
}

/**
 * Takes a rotation back: withdraws a key that is not active yet, or else makes the one before it active again.
 *
 * @returns the id of the key that is active afterwards
 * @throws OperatorError (exit 1) where there is nothing to take back
 */
export async function undoRotation(deps: RotationDeps, purpose: Staged, actor: AuditEvent["actor"]): Promise<string> {
  return deps.db.change(async (tx) => {
    await lockKeys(tx);
    const now = deps.clock.now();
    const stages = (await listKeyStages(tx)).filter((key) => key.purpose === purpose);
    const active = stages.find((key) => key.state === "active");
    const next = stages.find((key) => key.state === "next");
    if (next) {
      await move(tx, deps, next, "key.withdrawn", { state: "retired", retiredAt: now }, actor);
      return active?.keyId ?? "";
    }
    const before = stages
      .filter((key) => key.state === "retiring" && (key.retiresAt === null || key.retiresAt > now))
      .sort((a, b) => Number(b.retiringAt) - Number(a.retiringAt))[0];
    // The first pepper stands in secrets.env and has no row: without an active one it is the one that counts.
    const first = active && !before && purpose === "pepper";
    if (first) await move(tx, deps, active, "key.retiring", await retirement(tx, deps, active, now), actor);
    if (first) return "that of secrets.env";
    if (!active || !before) {
      throw failed(
        `There is no rotation of the ${purpose} key to take back.`,
        "A key that was retired, by time or by --emergency, does not come back; `primer rotate-keys --status` shows all.",
      );
    }
    await move(tx, deps, active, "key.retiring", await retirement(tx, deps, active, now), actor);
    const again = { state: "active", activatedAt: now, retiringAt: null, retiresAt: null } as const;
    await move(tx, deps, before, "key.activated", again, actor);
    return before.keyId;
  });
}

async function move(
  tx: Tx,
  deps: RotationDeps,
  key: KeyStage,
  action: AuditAction,
  change: Parameters<typeof updateKeyStage>[2],
  actor: AuditEvent["actor"],
): Promise<void> {
  await updateKeyStage(tx, key, change);
  await audit(tx, deps, {
    action,
    outcome: "success",
    actor,
    subject: { kind: "key", id: key.keyId },
    details: { purpose: key.purpose },
  });
}
