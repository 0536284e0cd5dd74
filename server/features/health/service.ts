import { isMigrated } from "../../../db/migrate.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";

/** How far the program's and the database's clock may be apart (milliseconds). */
const MAX_CLOCK_DIFFERENCE_MS = 5000;
const CHECK_TIMEOUT_MS = 1000;

/**
 * Ready means: not stopping, the schema is the right one, the database answers and its clock agrees with ours.
 *
 * @throws AppError SERVICE_UNAVAILABLE naming the checks that failed
 */
export async function assertReady(deps: Deps): Promise<void> {
  const [database, migrations] = await Promise.all([within(clockAgrees(deps)), within(isMigrated(deps.db))]);
  const checks = { serving: deps.lifecycle.draining ? "failed" : "ok", database, migrations };
  if (Object.values(checks).every((check) => check === "ok")) return;
  throw new AppError("SERVICE_UNAVAILABLE", {
    internal: "Not ready",
    details: { checks },
    headers: { "retry-after": "2" },
  });
}

/** Milliseconds by which the database's clock is ahead of ours. */
export async function clockDifference(deps: Pick<Deps, "db" | "clock">): Promise<number> {
  const [row] = await deps.db.query<{ now: number }>(
    "SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS now",
  );
  return Number(row?.now) - deps.clock.now().getTime();
}

const clockAgrees = async (deps: Deps) => Math.abs(await clockDifference(deps)) <= MAX_CLOCK_DIFFERENCE_MS;

async function within(check: Promise<boolean>): Promise<"ok" | "failed"> {
  const late = Bun.sleep(CHECK_TIMEOUT_MS).then(() => false);
  const passed = await Promise.race([check.catch(() => false), late]);
  return passed ? "ok" : "failed";
}
