import type { Deps } from "../../deps.ts";
import { advanceKeys, isStepDue } from "./rotate-keys.ts";

/** How often this process looks whether a key's time has come (milliseconds). */
const LOOK_EVERY_MS = 500;
/** Keys that were read longer ago than this, with no proof that none has changed since, are read again. */
const MAX_AGE_MS = 1000;

type KeeperDeps = Pick<Deps, "db" | "secrets" | "clock" | "random" | "settings" | "keys" | "changes" | "log">;

/**
 * Sees to it that keys change their stages in time, and that this process knows of what others have changed even while
 * nothing is heard from them. What fails is tried again at the next look.
 */
export function keepKeys(deps: KeeperDeps): { stop(): void } {
  let readAt = deps.changes.now();
  let busy = false;

  async function look(): Promise<void> {
    if (deps.changes.age(readAt) > MAX_AGE_MS) {
      const asked = deps.changes.now();
      await deps.keys.reload();
      readAt = asked;
    }
    if (!isStepDue(deps.keys.stages(), deps.settings, deps.clock.now())) return;
    await advanceKeys(deps);
    await deps.keys.reload();
  }
  const timer = setInterval(() => {
    if (busy) return;
    busy = true;
    look()
      .catch((error) => deps.log.warn("The keys could not be looked after", { event: "keys.not_kept", error }))
      .finally(() => {
        busy = false;
      });
  }, LOOK_EVERY_MS);
  return { stop: () => clearInterval(timer) };
}
