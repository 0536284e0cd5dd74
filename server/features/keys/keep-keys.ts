import type { Deps } from "../../deps.ts";
import { advanceKeys, isStepDue } from "./rotate-keys.ts";

/** How often this process looks whether a key's time has come (milliseconds). */
const LOOK_EVERY_MS = 250;
/** Keys that were read longer ago than this, with no proof that none has changed since, are read again. */
const MAX_AGE_MS = 500;

type KeeperDeps = Pick<Deps, "db" | "secrets" | "clock" | "random" | "settings" | "keys" | "changes" | "log">;

/**
 * Sees to it that keys change their stages in time, and that this process knows of what others have changed even while
 * nothing is heard from them. What fails is tried again at the next look.
 */
export function keepKeys(deps: KeeperDeps): { stop(): void } {
  let readAt = deps.changes.now();
  let busy = false;
  let fails = false;

  /** Once when it begins and once when it ends: an outage fills no log. */
  function report(works: boolean, error?: unknown): void {
    if (fails === !works) return;
    fails = !works;
    if (works) deps.log.info("The keys are looked after again", { event: "keys.kept" });
    else deps.log.warn("The keys cannot be looked after now", { event: "keys.not_kept", error });
  }

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
      .then(
        () => report(true),
        (error) => report(false, error),
      )
      .finally(() => {
        busy = false;
      });
  }, LOOK_EVERY_MS);
  return { stop: () => clearInterval(timer) };
}
