import { createHash } from "node:crypto";
import type { Settings } from "../../../config/schema.ts";
import { type Breaker, BreakerOpenError, createBreaker } from "../../../db/breaker.ts";
import { isInFilter } from "./breach-filter.ts";
import { BreachListError, type Degradation } from "./breach-list-error.ts";
import { isInRange } from "./hibp-range.ts";

export { BREACH_FILTER_FILE } from "./breach-filter.ts";
export type { Degradation } from "./breach-list-error.ts";

/** Looks passwords up among those known from breaches, as `password.hibp` says. */
export interface BreachCheck {
  /** Of the service that is asked online. */
  readonly breaker: Breaker;
  /** Never fails and takes a second at most: where the list cannot be asked, `degraded` says why. */
  look(password: string): Promise<{ readonly breached: boolean; readonly degraded: Degradation | undefined }>;
}

interface BreachCheckParts {
  /** Asked at each look, so that changed settings count at once. */
  settings(): Settings["password"];
  /** Where `primer hibp import` puts its set. */
  readonly filterPath: string;
  /** Told of every look that went without the list. */
  degraded(reason: Degradation): void;
  /** How long the service is left alone at most when it has failed several times in a row (milliseconds). */
  readonly pause?: number;
}

const PAUSE_MS = 10_000;

/** Compares by SHA-1, which is what the lists hold. It is no hash to keep a password by, and never leaves the process. */
const sha1Of = (password: string) => createHash("sha1").update(password).digest("hex").toUpperCase();

export function createBreachCheck({ settings, filterPath, degraded, pause }: BreachCheckParts): BreachCheck {
  const breaker = createBreaker("The service of breached passwords", () => true, pause ?? PAUSE_MS);
  async function isBreached(password: string): Promise<boolean> {
    const { hibp, hibp_url } = settings();
    if (hibp === "off") return false;
    const sha1 = sha1Of(password);
    return hibp === "online" ? breaker.run(() => isInRange(hibp_url, sha1)) : isInFilter(filterPath, sha1);
  }
  return {
    breaker,
    async look(password) {
      try {
        return { breached: await isBreached(password), degraded: undefined };
      } catch (error) {
        const reason = reasonOf(error);
        degraded(reason);
        return { breached: false, degraded: reason };
      }
    },
  };
}

function reasonOf(error: unknown): Degradation {
  if (error instanceof BreachListError) return error.reason;
  if (error instanceof BreakerOpenError) return "breaker_open";
  throw error;
}
