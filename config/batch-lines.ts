import type { LogSink } from "./log.ts";

/** As much as a pipe takes in one piece (PIPE_BUF): lines of processes that share one are not torn apart. */
const MOST_AT_ONCE = 4096;

/** A sink that has to be flushed at the end. */
export interface BatchingSink extends LogSink {
  flush(): void;
}

/**
 * Passes on what one turn of the event loop has logged in one piece, or a few: of a busy server's time, a call of the system for
 * each line would take more than all else. What is left when the process exits is written then.
 */
export function batchLines(sink: LogSink): BatchingSink {
  let batch = "";
  function flush(): void {
    if (batch !== "") sink.write(batch);
    batch = "";
  }
  process.on("exit", flush);
  return {
    write(line) {
      if (batch.length + line.length > MOST_AT_ONCE) flush();
      if (batch === "") setImmediate(flush);
      batch += line;
    },
    get writableLength() {
      return batch.length + (sink.writableLength ?? 0);
    },
    flush,
  };
}
