import type { Deps } from "../server/deps.ts";
import { openMail } from "./mail/open-mail.ts";
import { startWorker, type WorkerOptions } from "./run.ts";
import { startSchedules } from "./run-schedules.ts";

/**
 * Does everything that nobody waits for, until it is stopped: jobs, mails and schedules.
 *
 * @param home the folder of this process
 */
export async function workInBackground(
  deps: Deps,
  home: string,
  options: Pick<WorkerOptions, "concurrency"> = {},
): Promise<{ stop(): Promise<void> }> {
  const mail = await openMail(deps, home);
  const [worker, schedules] = [startWorker(deps, { handlers: mail.handlers, ...options }), startSchedules(deps, home)];
  return {
    /** Takes nothing new, and waits for what is under way as long as `server.stop_timeout` says. */
    async stop() {
      await Promise.all([worker.stop(), schedules.stop()]);
      mail.close();
    },
  };
}
