import { DeadlineError, withinDeadline } from "./deadline.ts";

/** Whoever comes while this many times the slots wait is refused at once: they would only wait to be refused. */
const MAX_WAITING_PER_SLOT = 50;
/** How long there are fewer slots after the server has refused a further connection (milliseconds). */
const FEWER_FOR_MS = 1000;

/** How many may do something at the same time, how many do, and how many wait for their turn. */
export interface SlotUse {
  readonly size: number;
  readonly in_use: number;
  readonly waiting: number;
}

/** Lets so many work at a time, in the order in which they come. */
export interface Slots {
  /** Waits for a slot. @throws DeadlineError where there was none in time, or at once where too many wait */
  take(waitMs: number): Promise<void>;
  /** Gives back a slot that was taken. */
  release(): void;
  /**
   * For whoever has a slot and gets no connection for it: hands it back, lets there be no more than the others have for a
   * second, and waits at the head of the line for one of theirs.
   *
   * @returns false where nobody else has one; then nothing has changed  @throws DeadlineError with the slot still taken
   */
  makeDo(waitMs: number): Promise<boolean>;
  use(): SlotUse;
}

export function createSlots(size: number): Slots {
  let inUse = 0;
  let fewer = size;
  let fewerUntil = 0;
  const line: (() => void)[] = [];
  const limit = () => (performance.now() < fewerUntil ? fewer : size);

  function admit(): void {
    while (inUse < limit()) {
      const next = line.shift();
      if (!next) return;
      inUse++;
      next();
    }
  }

  async function wait(waitMs: number, add: (turn: () => void) => void): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    add(resolve);
    await withinDeadline(promise, waitMs, () => line.splice(line.indexOf(resolve), 1));
  }

  return {
    async take(waitMs) {
      if (line.length >= size * MAX_WAITING_PER_SLOT) throw new DeadlineError(0);
      const turn = wait(waitMs, (resolve) => line.push(resolve));
      admit();
      await turn;
    },
    release() {
      inUse--;
      admit();
    },
    async makeDo(waitMs) {
      const others = inUse - 1;
      if (others === 0) return false;
      fewer = Math.min(limit(), others);
      fewerUntil = performance.now() + FEWER_FOR_MS;
      inUse--;
      try {
        await wait(waitMs, (resolve) => line.unshift(resolve));
      } catch (error) {
        inUse++; // it is still theirs to give back
        throw error;
      }
      return true;
    },
    use: () => ({ size, in_use: inUse, waiting: line.length }),
  };
}
