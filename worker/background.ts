import type { Deps } from "../server/deps.ts";
import { makeAuditMonths } from "../server/features/audit/service.ts";
import { openMail } from "./mail/open-mail.ts";
import { startWorker, type WorkerOptions } from "./run.ts";
import { startSchedules } from "./run-schedules.ts";
import { keepAuditSealed } from "./seal-audit.ts";

/**
 * Does everything that nobody waits for, until it is stopped: jobs, mails, schedules and the chain of the audit log.
 *
 * @param home the folder of this process
 */
export async function workInBackground(
  deps: Deps,
  home: string,
  options: Pick<WorkerOptions, "concurrency"> = {},
): Promise<{ stop(): Promise<void> }> {
  const mail = await openMail(deps, home);
  // Nobody waits for them: rows are kept without, too.
  const months = makeAuditMonths(deps.db).catch((error) => {
    deps.log.warn("The coming months of the audit log have no partition yet", { event: "audit.no_months", error });
  });
  const sealing = keepAuditSealed(deps);
  const [worker, schedules] = [startWorker(deps, { handlers: mail.handlers, ...options }), startSchedules(deps, home)];
  return {
    /** Takes nothing new, and waits for what is under way as long as `server.stop_timeout` says. */
    async stop() {
      await Promise.all([worker.stop(), schedules.stop(), sealing.stop(), months]);
      mail.close();
    },
  };
}
