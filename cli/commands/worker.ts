import { misused } from "../../config/errors.ts";
import { loadSettings } from "../../config/load.ts";
import { createLog } from "../../config/log.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { openDeps } from "../../server/start.ts";
import { endIfBlocked } from "../../worker/end-if-blocked.ts";
import { openHandlers } from "../../worker/jobs.ts";
import { DEFAULT_CONCURRENCY, startWorker } from "../../worker/run.ts";
import type { CommandContext, Options, Outcome } from "../command.ts";
import { secretsOfInstallation, untilStopped } from "../long-running.ts";

const MAX_CONCURRENCY = 100;

/** Does background work until SIGTERM or SIGINT. On an embedded database `serve` does that itself. */
export async function run(context: CommandContext): Promise<Outcome> {
  const concurrency = concurrencyFrom(context.options);
  const { home } = context;
  const loaded = loadSettings(home, context.environment);
  const { settings } = loaded;
  const sink = context.options.json ? process.stderr : process.stdout;
  const log = createLog(() => settings.log.level, sink, systemClock.now);
  await context.workspace.withDatabase(settings, async (db) => {
    const secrets = await secretsOfInstallation(home, loaded, db);
    const deps = await openDeps({ home, kind: "worker", settings, secrets, db, log });
    const stopped = untilStopped(log); // before anybody is told that there is something to stop
    const work = openHandlers(deps, home);
    const worker = startWorker(deps, { handlers: work.handlers, concurrency });
    const watcher = endIfBlocked();
    context.io.note(`primer works in the background\n  Home      ${home}\n  Database  ${db.address}\n`);
    log.info("Working", { event: "worker.started", home, database: db.kind, concurrency, pid: process.pid });
    try {
      await stopped;
    } finally {
      await worker.stop();
      work.close();
      watcher.stop();
      await deps.close();
    }
  });
  log.info("Stopped", { event: "process.stopped" });
  return { json: { stopped: true }, text: "" };
}

function concurrencyFrom({ concurrency }: Options): number {
  if (concurrency === undefined) return DEFAULT_CONCURRENCY;
  const count = Number(concurrency);
  if (Number.isInteger(count) && count >= 1 && count <= MAX_CONCURRENCY) return count;
  throw misused(`--concurrency: expected a whole number from 1 to ${MAX_CONCURRENCY}, not ${concurrency}.`);
}
