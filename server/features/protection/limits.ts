import { LRUCache } from "lru-cache";
import type { Deps } from "../../deps.ts";
import { rateLimited } from "../../errors.ts";
import type { Limiter } from "../../ports/limiter.ts";

/** Limits of what is known only inside of a service: whose session, which account, which client. */
export type ServiceLimit = "refresh" | "login_account" | "client_failed" | "introspect_failed";

/** What counts failures guards secrets: that counts in shadow mode too. */
const COUNTS_FAILURES: ReadonlySet<ServiceLimit> = new Set(["login_account", "client_failed", "introspect_failed"]);

/** For so long (milliseconds) whoever had room is believed to have some. */
const ROOM_LASTS_MS = 1000;
const MAX_REMEMBERED = 10_000;

interface Remembered {
  /** Until when there is room. */
  until: number;
  /** How many this process has counted. */
  takes: number;
}

const remembered = new WeakMap<Limiter, LRUCache<string, Remembered>>();

type LimitDeps = Pick<Deps, "limiter" | "settings" | "log" | "metrics" | "clock">;

const checksOf = ({ settings }: LimitDeps, limit: ServiceLimit, subject: string) => {
  const rate = settings.rate_limits[limit];
  return rate === null ? [] : [{ key: `${limit}:${subject}`, rate }];
};

/** Until there is room for one more (milliseconds); 0 where there is. Counts nothing. */
export async function waitOf(deps: LimitDeps, limit: ServiceLimit, subject: string): Promise<number> {
  const [room] = await deps.limiter.look(checksOf(deps, limit, subject));
  return room?.waitMs ?? 0;
}

/**
 * Sees whether there is room for one more, and counts nothing. What other processes have counted within the last second it
 * may miss: it is asked before everything that good clients do, and a look at Redis takes as long as all the rest of that.
 *
 * @throws AppError RATE_LIMIT_EXCEEDED
 */
export async function assertRoom(deps: LimitDeps, limit: ServiceLimit, subject: string): Promise<void> {
  const known = recall(deps.limiter, limit, subject);
  const now = deps.clock.elapsed();
  if (now < known.until) return;
  const { takes } = known;
  const wait = await waitOf(deps, limit, subject);
  if (wait === 0) {
    // What was counted while it looked may have been the last that there was room for.
    if (known.takes === takes) known.until = now + ROOM_LASTS_MS;
    return;
  }
  deps.metrics.count("primer_limits_hit_total", { limit, mode: "enforce" });
  throw rateLimited(wait, deps.settings.rate_limits[limit]?.limit ?? 0);
}

function recall(limiter: Limiter, limit: ServiceLimit, subject: string): Remembered {
  const all = remembered.get(limiter) ?? new LRUCache({ max: MAX_REMEMBERED });
  remembered.set(limiter, all);
  const key = `${limit}:${subject}`;
  const known = all.get(key) ?? { until: 0, takes: 0 };
  all.set(key, known);
  return known;
}

/** What was seen of a subject before it failed once more is not believed any longer. */
function forget(limiter: Limiter, limit: ServiceLimit, subject: string): void {
  const known = remembered.get(limiter)?.get(`${limit}:${subject}`);
  if (!known) return; // nobody has looked
  known.until = 0;
  known.takes++;
}

/** Counts one more. Of many at once no more than the limit go on. @throws AppError RATE_LIMIT_EXCEEDED */
export async function takeRoom(deps: LimitDeps, limit: ServiceLimit, subject: string): Promise<void> {
  const [check] = checksOf(deps, limit, subject);
  forget(deps.limiter, limit, subject);
  const [room] = check ? await deps.limiter.take([check]) : [];
  forget(deps.limiter, limit, subject); // also what was seen while it counted
  if (!check || !room || room.waitMs === 0) return;
  const isShadow = deps.settings.rate_limits.mode === "shadow" && !COUNTS_FAILURES.has(limit);
  deps.metrics.count("primer_limits_hit_total", { limit, mode: isShadow ? "shadow" : "enforce" });
  if (!isShadow) throw rateLimited(room.waitMs, check.rate.limit);
  deps.log.info("A request would be over a limit", { event: "limit.would_refuse", limit });
}
