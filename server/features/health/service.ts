import { isMigrated } from "../../../db/migrate.ts";
import type { Deps } from "../../deps.ts";
import { unavailable } from "../../errors.ts";

/** How far the program's and the database's clock may be apart (milliseconds). */
const MAX_CLOCK_DIFFERENCE_MS = 5000;
const CHECK_TIMEOUT_MS = 1000;
const SHARED_MS = 500;

type Check = "ok" | "failed";
const recent = new WeakMap<Deps, { at: number; checks: Promise<Record<string, Check>> }>();

/**
 * Ready means: not stopping, the schema is the right one, the database answers and its clock agrees with ours. Probes
 * that come within half a second share one look.
 *
 * @throws AppError SERVICE_UNAVAILABLE; which check failed is for the log alone
 */
export async function assertReady(deps: Deps): Promise<void> {
  const now = deps.clock.elapsed();
  const last = recent.get(deps);
  const checks = last && now - last.at < SHARED_MS ? last.checks : look(deps);
  if (checks !== last?.checks) recent.set(deps, { at: now, checks });
  const results = { serving: deps.lifecycle.draining ? "failed" : "ok", ...(await checks) };
  const failures = Object.entries(results).filter(([, result]) => result === "failed");
  if (failures.length === 0) return;
  throw unavailable(`Not ready: ${failures.map(([name]) => name).join(", ")}`, undefined, 2);
}

async function look(deps: Deps): Promise<Record<string, Check>> {
  const [database, migrations] = await Promise.all([within(clockAgrees(deps)), within(isMigrated(deps.db))]);
  return { database, migrations };
}

/** Milliseconds by which the database's clock is ahead of ours. */
export async function clockDifference(deps: Pick<Deps, "db" | "clock">): Promise<number> {
  const [row] = await deps.db.query<{ now: number }>(
    "SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS now",
  );
  return Number(row?.now) - deps.clock.now().getTime();
}

const clockAgrees = async (deps: Deps) => Math.abs(await clockDifference(deps)) <= MAX_CLOCK_DIFFERENCE_MS;

async function within(check: Promise<boolean>): Promise<Check> {
  const late = Bun.sleep(CHECK_TIMEOUT_MS).then(() => false);
  const passed = await Promise.race([check.catch(() => false), late]);
  return passed ? "ok" : "failed";
}
