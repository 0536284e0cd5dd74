import type { Clock } from "../../ports/clock.ts";
import { stopwatch } from "./stopwatch.ts";

interface AdmissionOptions {
  readonly atATime: number;
  /** Nobody joins a line that can be expected to take longer than this. */
  readonly longestLineMs: number;
  /** The longest that anybody waits, whatever was expected. */
  readonly deadlineMs: number;
  /** What is thrown to whoever is not let in. */
  refusal(): Error;
}

/** A bound for when it is not known yet how long things take. */
const MAX_LINE = 1000;

/**
 * Lets so many in at a time, in the order in which they come. How long the line may be follows from how long it usually
 * takes: where that grows so much that those who came last would wait in vain, they are sent away before.
 */
export function createAdmission(options: AdmissionOptions, clock: Pick<Clock, "elapsed">) {
  const { atATime, longestLineMs, deadlineMs, refusal } = options;
  const line: PromiseWithResolvers<void>[] = [];
  const admitted = stopwatch(clock);
  let inside = 0;

  const expectedMs = (waiting: number) => (waiting / atATime) * admitted.usualMs();

  async function enter(): Promise<void> {
    if (inside < atATime) {
      inside++;
      return;
    }
    if (line.length >= MAX_LINE || expectedMs(line.length + 1) > longestLineMs) throw refusal();
    const turn = Promise.withResolvers<void>();
    line.push(turn);
    const late = setTimeout(() => {
      line.splice(line.indexOf(turn), 1);
      turn.reject(refusal());
    }, deadlineMs);
    await turn.promise.finally(() => clearTimeout(late));
  }

  /** Whoever is next takes the place of the one who leaves. */
  function leave(): void {
    const next = line.shift();
    if (next) next.resolve();
    else inside--;
    while (expectedMs(line.length) > deadlineMs) line.pop()?.reject(refusal());
  }

  return {
    waiting: () => line.length,
    /** @param onWaited is told how long it took until the work began  @throws what `refusal` makes; then the work was not begun */
    async run<T>(work: () => Promise<T>, onWaited: (ms: number) => void): Promise<T> {
      const came = clock.elapsed();
      await enter();
      onWaited(clock.elapsed() - came);
      try {
        return await admitted.time(work);
      } finally {
        leave();
      }
    },
  };
}
