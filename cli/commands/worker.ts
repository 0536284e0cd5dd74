import { loadSettings } from "../../config/load.ts";
import { createLog } from "../../config/log.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { startWorker } from "../../worker/run.ts";
import type { CommandContext, Outcome } from "../command.ts";
import { secretsOfInstallation, untilStopped } from "../long-running.ts";

/** Does background work until SIGTERM or SIGINT. On an embedded database `serve` does that itself. */
export async function run(context: CommandContext): Promise<Outcome> {
  const loaded = loadSettings(context.home, context.environment);
  const sink = context.options.json ? process.stderr : process.stdout;
  const log = createLog(() => loaded.settings.log.level, sink, systemClock.now);
  await context.workspace.withDatabase(loaded.settings, async (db) => {
    await secretsOfInstallation(context.home, loaded, db);
    const stopped = untilStopped(log); // before anybody is told that there is something to stop
    const worker = startWorker({ db, log });
    context.io.note(`primer works in the background\n  Home      ${context.home}\n  Database  ${db.address}\n`);
    log.info("Working", { event: "worker.started", home: context.home, database: db.kind, pid: process.pid });
    try {
      await stopped;
    } finally {
      await worker.stop();
    }
  });
  log.info("Stopped", { event: "process.stopped" });
  return { json: { stopped: true }, text: "" };
}
