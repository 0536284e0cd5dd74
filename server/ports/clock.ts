/** What time it is. The only place that asks the machine; tests hold a clock of their own and move it. */
export interface Clock {
  now(): Date;
  /** Milliseconds that only ever go up, for measuring how long something took. */
  elapsed(): number;
  sleep(ms: number): Promise<void>;
}

export const systemClock: Clock = {
  now: () => new Date(),
  elapsed: () => performance.now(),
  sleep: preciseSleep,
};

/** How late a timer may fire (milliseconds); the more, the longer it was set for. */
const TIMER_SLACK_MS = 3;

/** To a fraction of a millisecond: answers that wait for the same moment must not be told apart by how long they waited. */
async function preciseSleep(ms: number): Promise<void> {
  const until = performance.now() + ms;
  if (ms > TIMER_SLACK_MS) await Bun.sleep(ms - TIMER_SLACK_MS);
  while (performance.now() < until) await new Promise((resolve) => setImmediate(resolve));
}

/** A clock that stands still until it is moved. Its sleep returns at once. */
export function heldClock(start: Date): Clock & { advance(ms: number): void } {
  let time = start.getTime();
  return {
    now: () => new Date(time),
    elapsed: () => time,
    sleep: async () => {},
    advance(ms) {
      time += ms;
    },
  };
}
