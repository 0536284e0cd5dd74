import type { Io } from "./io.ts";

const EVERY_MS = 1000;

/** Tells how many rows were done, once a second, to whoever waits for more than a second. */
export function rowProgress(io: Io, doing: string): (rows: number) => void {
  let told = performance.now();
  return (rows) => {
    if (performance.now() - told < EVERY_MS) return;
    told = performance.now();
    io.note(`${doing}: ${rows} rows\n`);
  };
}
