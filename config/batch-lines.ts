import type { LogSink } from "./log.ts";

/** A sink that has to be flushed at the end. */
export interface BatchingSink extends LogSink {
  flush(): void;
}

/**
 * Passes on what one turn of the event loop has logged in one piece: of a busy server's time, a call of the system for
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
      if (batch === "") setImmediate(flush);
      batch += line;
    },
    get writableLength() {
      return batch.length + (sink.writableLength ?? 0);
    },
    flush,
  };
}
