import {
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  fullJitterGenerator,
  handleWhen,
} from "cockatiel";

/** So many failures in a row open a breaker. */
const FAILURES = 5;
/** An open breaker lets nothing through for this long at most, and half of it at least (milliseconds). */
const LONGEST_PAUSE_MS = 1000;

export type BreakerState = "closed" | "open" | "half_open";

/** Times are in milliseconds from now, by a clock that only goes forward; null where there is nothing to tell. */
export interface BreakerStatus {
  /** "half_open": one attempt is let through, or is under way, and decides. */
  readonly state: BreakerState;
  /** Failures since the last success. */
  readonly failureCount: number;
  /** Failures since the process began. */
  readonly failuresSoFar: number;
  readonly lastFailureAgoMs: number | null;
  readonly nextAttemptInMs: number | null;
}

/** What work is refused with at once while its breaker is open. */
export class BreakerOpenError extends Error {
  readonly code = "BREAKER_OPEN";

  constructor(name: string) {
    super(`${name} has failed several times in a row and is left alone for a moment`);
  }
}

/** Leaves a dependency alone that fails again and again: so nobody waits for it in vain, and it can get up again. */
export interface Breaker {
  status(): BreakerStatus;
  /**
   * Runs what needs the dependency. The work must end by itself, within a deadline.
   *
   * @throws BreakerOpenError where it is open: then nothing was begun
   */
  run<T>(work: () => Promise<T>): Promise<T>;
  /** For whoever finds out by other means whether it is back. @throws BreakerOpenError unless it is closed */
  assertClosed(): void;
  /** Tells when the dependency is given up (true) and when it is back (false). */
  onChange(listener: (isDown: boolean) => void): void;
}

/**
 * A breaker that opens after five failures in a row, and lets one attempt through after half its pause to the whole of it.
 *
 * @param isFailure which errors say that the dependency is away, as opposed to that it refused what was asked
 * @param longestPauseMs how long it stays open at most
 */
export function createBreaker(
  name: string,
  isFailure: (error: unknown) => boolean,
  longestPauseMs = LONGEST_PAUSE_MS,
): Breaker {
  let lastFailureAt: number | undefined;
  let failuresSoFar = 0;
  let nextAttemptAt = 0;
  let isDown = false;
  const listeners: ((isDown: boolean) => void)[] = [];
  const count = new ConsecutiveBreaker(FAILURES);
  const failures = handleWhen((error) => {
    if (!isFailure(error)) return false;
    lastFailureAt = performance.now();
    failuresSoFar++;
    return true;
  });
  // The library would time the pause by the wall clock, and one that is set back would keep a breaker open for hours.
  const policy = circuitBreaker(failures, { breaker: count, halfOpenAfter: Number.NEGATIVE_INFINITY });
  policy.onBreak(() => {
    nextAttemptAt = performance.now() + pauseMs(longestPauseMs);
    tell(true);
  });
  policy.onReset(() => tell(false));

  function tell(now: boolean): void {
    if (now === isDown) return; // an attempt in between has failed
    isDown = now;
    for (const listener of listeners) listener(now);
  }

  const isPausing = () => policy.state === CircuitState.Open && performance.now() < nextAttemptAt;

  return {
    status() {
      const now = performance.now();
      const pausing = isPausing();
      return {
        state: policy.state === CircuitState.Closed ? "closed" : pausing ? "open" : "half_open",
        failureCount: count.state,
        failuresSoFar,
        lastFailureAgoMs: lastFailureAt === undefined ? null : now - lastFailureAt,
        nextAttemptInMs: pausing ? nextAttemptAt - now : null,
      };
    },
    async run(work) {
      // The library would let whoever comes during the one attempt wait for it.
      if (isPausing() || policy.state === CircuitState.HalfOpen) throw new BreakerOpenError(name);
      return policy.execute(work);
    },
    assertClosed() {
      if (policy.state !== CircuitState.Closed) throw new BreakerOpenError(name);
    },
    onChange(listener) {
      listeners.push(listener);
    },
  };
}

/**
 * While a breaker is open, finds out whether its dependency is back: then nobody else has to wait for that.
 *
 * @param ask must end by itself, within a deadline
 * @param isOver whether nobody wants to know any more
 */
export function findOutWhenBack(breaker: Breaker, ask: () => Promise<unknown>, isOver: () => boolean): void {
  breaker.onChange(async (isDown) => {
    while (isDown && !isOver() && breaker.status().state !== "closed") {
      await Bun.sleep(breaker.status().nextAttemptInMs ?? 0);
      await breaker.run(ask).catch(() => {}); // then it is asked again after the next pause
    }
  });
}

/** Different in every process, so that they do not all come back in the same moment. */
function pauseMs(longest: number): number {
  const half = longest / 2;
  const jitter = new ExponentialBackoff({ generator: fullJitterGenerator, initialDelay: half, maxDelay: half });
  return half + jitter.next().duration;
}
