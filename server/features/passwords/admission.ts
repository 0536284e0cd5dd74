import type { Clock } from "../../ports/clock.ts";
import { stopwatch } from "./stopwatch.ts";

interface AdmissionOptions {
  readonly atATime: number;
  /** The line is never longer than can be expected to be served in this time. */
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
 * takes: as that grows, whoever came last is sent away.
 */
export function createAdmission(options: AdmissionOptions, clock: Pick<Clock, "elapsed">) {
  const { atATime, longestLineMs, deadlineMs, refusal } = options;
  const line: PromiseWithResolvers<void>[] = [];
  const admitted = stopwatch(clock);
  let inside = 0;

  const isTooLong = (waiting: number) => waiting > MAX_LINE || (waiting / atATime) * admitted.usualMs() > longestLineMs;

  async function enter(): Promise<void> {
    if (inside < atATime) {
      inside++;
      return;
    }
    if (isTooLong(line.length + 1)) throw refusal();
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
    while (isTooLong(line.length)) line.pop()?.reject(refusal());
  }

  return {
    /** @throws what `refusal` makes; then the work was not begun */
    async run<T>(work: () => Promise<T>): Promise<T> {
      await enter();
      try {
        return await admitted.time(work);
      } finally {
        leave();
      }
    },
  };
}
