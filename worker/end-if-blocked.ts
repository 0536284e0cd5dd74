/** How long the event loop may stand still (seconds): longer than other workers wait before they take the jobs away. */
const BLOCKED_SECONDS = 60;

/** Runs in a thread of its own. It counts its own seconds, so that a process that was stopped and goes on is not ended. */
const watcher = (seconds: number) => `
const { writeSync } = require("node:fs");
let silent = 0;
onmessage = () => { silent = 0; };
setInterval(() => {
  if (++silent < ${seconds}) return;
  writeSync(2, "primer: A job has held up this process for ${seconds} s. It is ended, so that its jobs are run by another.\\n");
  process.kill(process.pid, "SIGKILL");
}, 1000);
`;

/**
 * Ends this process once a handler computes for so long without a pause that nothing else in it gets its turn: neither
 * its deadline nor its heartbeats. Another worker takes its jobs over, and what did it is dead after some of that. For a
 * process that does nothing else and is started again by whoever looks after it.
 */
export function endIfBlocked(seconds = BLOCKED_SECONDS): { stop(): void } {
  const url = URL.createObjectURL(new Blob([watcher(seconds)], { type: "application/javascript" }));
  const thread = new Worker(url);
  const timer = setInterval(() => thread.postMessage(null), 1000);
  return {
    stop() {
      clearInterval(timer);
      thread.terminate();
      URL.revokeObjectURL(url);
    },
  };
}
