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
  sleep: (ms) => Bun.sleep(ms),
};

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
