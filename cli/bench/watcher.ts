import type { Io } from "../io.ts";
import type { Watcher } from "./measure.ts";
import { ms, number } from "./report-text.ts";

const CLEAR_LINE = "\r\u001b[2K";

export interface BenchWatcher extends Watcher {
  round(round: number, of: number): void;
  /** Nothing comes after it: a live line is wiped out. */
  done(): void;
}

/** Tells on standard error how a bench goes: what it does line by line, and on a terminal a line that follows the load. */
export function watcherOn(io: Pick<Io, "note">): BenchWatcher {
  const isTerminal = Boolean(process.stderr.isTTY);
  const clear = isTerminal ? CLEAR_LINE : "";
  let inRound = "";
  return {
    round(round, of) {
      inRound = `Round ${round} of ${of}, `;
    },
    doing: (what) => io.note(`${clear}${inRound}${what}\n`),
    live(what, { seconds, completed, errors, p99Ms }) {
      if (!isTerminal) return;
      const rate = seconds > 0 ? number(completed / seconds) : "0";
      const failures = errors === 0 ? "" : `, ${number(errors)} errors`;
      io.note(`${clear}  ${what} ${seconds.toFixed(1)} s: ${rate}/s, p99 ${ms(p99Ms)}${failures}`);
    },
    done: () => io.note(clear),
  };
}
