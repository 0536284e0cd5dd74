import { misused } from "../../config/errors.ts";
import { loadSettings } from "../../config/load.ts";
import { createLog } from "../../config/log.ts";
import { openLogSink } from "../../config/log-files.ts";
import { openTelemetry } from "../../config/telemetry.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { openDeps } from "../../server/start.ts";
import { workInBackground } from "../../worker/background.ts";
import { endIfBlocked } from "../../worker/end-if-blocked.ts";
import { DEFAULT_CONCURRENCY } from "../../worker/run.ts";
import type { CommandContext, Options, Outcome } from "../command.ts";
import { secretsOfInstallation, untilStopped } from "../long-running.ts";
import { listSchedules, runSchedule } from "../schedules.ts";
import { listenForScrapes } from "../scrapes.ts";

const MAX_CONCURRENCY = 100;

/** Does background work until SIGTERM or SIGINT, or what is asked of the schedules. */
export async function run(context: CommandContext): Promise<Outcome> {
  const { concurrency, runOnce, list } = context.options;
  const asked = Object.entries({ concurrency, runOnce, list }).filter(([, value]) => value !== undefined);
  if (asked.length > 1) throw misused("Give --concurrency, --run-once or --list, and not two of them.");
  if (typeof runOnce === "string") return runSchedule(context, runOnce);
  return list ? listSchedules(context) : work(context);
}

/** Works until it is stopped. On an embedded database `serve` does that itself. */
async function work(context: CommandContext): Promise<Outcome> {
  const concurrency = concurrencyFrom(context.options);
  const { home } = context;
  const loaded = loadSettings(home, context.environment);
  const { settings } = loaded;
  const out = context.options.json ? process.stderr : process.stdout;
  const files = openLogSink(settings.log, home, "worker", out, systemClock.now);
  const log = createLog(() => settings.log.level, files.sink, systemClock.now);
  const telemetry = await openTelemetry(settings, log);
  await context.workspace.withDatabase(settings, async (db) => {
    const secrets = await secretsOfInstallation(home, loaded, db);
    const deps = await openDeps({ home, kind: "worker", settings, secrets, db, log, metrics: telemetry.metrics });
    const stopped = untilStopped(log); // before anybody is told that there is something to stop
    const background = await workInBackground(deps, home, { concurrency });
    const watcher = endIfBlocked();
    const scraped = listenForScrapes(deps);
    context.io.note(`primer works in the background\n  Home      ${home}\n  Database  ${db.address}\n`);
    log.info("Working", { event: "worker.started", home, database: db.kind, concurrency, pid: process.pid });
    try {
      await stopped;
    } finally {
      await background.stop();
      watcher.stop();
      scraped?.stop();
      await deps.close(); // which still counts
      await telemetry.close();
    }
  });
  log.info("Stopped", { event: "process.stopped" });
  await files.close();
  return { json: { stopped: true }, text: "" };
}

function concurrencyFrom({ concurrency }: Options): number {
  if (concurrency === undefined) return DEFAULT_CONCURRENCY;
  const count = Number(concurrency);
  if (Number.isInteger(count) && count >= 1 && count <= MAX_CONCURRENCY) return count;
  throw misused(`--concurrency: expected a whole number from 1 to ${MAX_CONCURRENCY}, not ${concurrency}.`);
}
