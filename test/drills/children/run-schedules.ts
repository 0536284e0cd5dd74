/**
 * What `primer worker` does with schedules: `bun run-schedules.ts HOME PACE`, where PACE is a {@link SchedulePace} in
 * JSON. Each pause of the clean-up takes a moment and is a line "pause" on standard output.
 */

import { secretsOfInstallation, untilStopped } from "../../../cli/long-running.ts";
import { loadSettings } from "../../../config/load.ts";
import { createLog } from "../../../config/log.ts";
import { openDatabase } from "../../../db/open.ts";
import { systemClock } from "../../../server/ports/clock.ts";
import { openDeps } from "../../../server/start.ts";
import { startSchedules } from "../../../worker/run-schedules.ts";

const [home = "", pace = "{}"] = process.argv.slice(2);
const loaded = loadSettings(home, process.env);
const { settings } = loaded;
const log = createLog(() => "info", process.stdout, systemClock.now);
const db = await openDatabase(settings, home, false);
const secrets = await secretsOfInstallation(home, loaded, db);
const clock = {
  ...systemClock,
  async sleep() {
    process.stdout.write("pause\n");
    await Bun.sleep(100);
  },
};
const deps = await openDeps({ home, kind: "worker", settings, secrets, db, log, clock });
const stopped = untilStopped(log);
const schedules = startSchedules(deps, home, { pace: JSON.parse(pace) });
await stopped;
await schedules.stop();
await deps.close();
await db.close();
process.exit(0);
