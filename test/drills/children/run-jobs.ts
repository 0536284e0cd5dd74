/**
 * A worker as `primer worker` runs one, whose mails are rows of a table: `bun run-jobs.ts HOME PACE`, where PACE is a
 * {@link Pace} in JSON. A mail takes a moment, is there as soon as it was "sent", and what its request id says: "kill"
 * ends this process, "hang" never ends, and "block" lets nothing else have its turn for ever.
 */

import { secretsOfInstallation, untilStopped } from "../../../cli/long-running.ts";
import { loadSettings } from "../../../config/load.ts";
import { createLog } from "../../../config/log.ts";
import { openDatabase } from "../../../db/open.ts";
import { systemClock } from "../../../server/ports/clock.ts";
import { openDeps } from "../../../server/start.ts";
import { endIfBlocked } from "../../../worker/end-if-blocked.ts";
import { startWorker } from "../../../worker/run.ts";

const [home = "", pace = "{}"] = process.argv.slice(2);
const loaded = loadSettings(home, process.env);
const { settings } = loaded;
const log = createLog(() => "info", process.stdout, systemClock.now);
const db = await openDatabase(settings, home, false);
const secrets = await secretsOfInstallation(home, loaded, db);
const deps = await openDeps({ home, kind: "worker", settings, secrets, db, log });
const stopped = untilStopped(log);
const worker = startWorker(deps, {
  pace: JSON.parse(pace),
  handlers: {
    async "send-mail"(_, { id, data }) {
      if (data.request_id === "kill") process.kill(process.pid, "SIGKILL");
      if (data.request_id === "hang") await new Promise(() => {});
      while (data.request_id === "block");
      await Bun.sleep(50 + Math.random() * 150);
      await db.query("INSERT INTO sent (job_id, pid) VALUES ($1, $2)", [id, process.pid]);
    },
  },
});
endIfBlocked(3);
log.info("Working", { event: "worker.started" });
await stopped;
await worker.stop();
await deps.close();
await db.close();
process.exit(0);
