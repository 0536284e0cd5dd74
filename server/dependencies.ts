import type { Log } from "../config/log.ts";
import type { Breaker } from "../db/breaker.ts";
import type { SlotUse } from "../db/slots.ts";

/** Something outside of this process that it works with. */
export interface Dependency {
  readonly breaker: Pick<Breaker, "status" | "onChange">;
  /** What goes on without it, for the log. */
  readonly meanwhile: string;
  /** Whether the settings ask for it now. Without it: always. */
  isUsed?(): boolean;
  /** Resolves when it has answered; rejects at once while its breaker is open. Without it, its breaker alone tells. */
  ping?(): Promise<unknown>;
  /** Memory that it uses and may use, in bytes. */
  memory?(): Promise<{ used: number; limit: number }>;
  /** Its connections, where it has a pool of them. */
  poolUse?(): SlotUse;
  /** For a copy: how far it is behind at most, in milliseconds; null where that is not known. */
  lagMs?(): number | null;
}

/** Everything that this process depends on, by name: what monitoring shows. */
export interface Dependencies {
  /** From now on it is shown, and the log tells when it goes away and when it is back. */
  add(name: string, dependency: Dependency): void;
  list(): readonly (readonly [name: string, dependency: Dependency])[];
}

export function createDependencies(log: Log): Dependencies {
  const known = new Map<string, Dependency>();
  return {
    add(name, dependency) {
      known.set(name, dependency);
      dependency.breaker.onChange((isDown) => {
        if (isDown) {
          const { meanwhile } = dependency;
          log.warn("A dependency is away and is left alone for a moment", {
            event: "breaker.opened",
            dependency: name,
            meanwhile,
          });
        } else log.info("A dependency is back", { event: "breaker.closed", dependency: name });
      });
    },
    list: () => [...known].filter(([, { isUsed }]) => isUsed?.() ?? true),
  };
}
