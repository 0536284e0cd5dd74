import { systemClock } from "../../server/ports/clock.ts";

/** What lasts longer says how far it is: the first time after this, then each time after {@link NEXT_NOTE_MS}. */
const FIRST_NOTE_MS = 1000;
const NEXT_NOTE_MS = 5000;

/** Calls `note` with the seconds since the beginning, as often as a person wants to know. */
export function createPace(note: (seconds: number) => void): () => void {
  const started = systemClock.elapsed();
  let next = started + FIRST_NOTE_MS;
  return () => {
    const now = systemClock.elapsed();
    if (now < next) return;
    next = now + NEXT_NOTE_MS;
    note((now - started) / 1000);
  };
}
