import type { Deps } from "../../deps.ts";
import { rateLimited } from "../../errors.ts";

/** Limits of what is known only inside of a service: whose session, which account, which client. */
export type ServiceLimit = "refresh" | "login_account" | "client_failed" | "introspect_failed";

type LimitDeps = Pick<Deps, "limiter" | "settings">;

const checksOf = ({ settings }: LimitDeps, limit: ServiceLimit, subject: string) => {
  const rate = settings.rate_limits[limit];
  return rate === null ? [] : [{ key: `${limit}:${subject}`, rate }];
};

/** Sees whether there is room for one more, and counts nothing. @throws AppError RATE_LIMIT_EXCEEDED */
export async function assertRoom(deps: LimitDeps, limit: ServiceLimit, subject: string): Promise<void> {
  const [check] = checksOf(deps, limit, subject);
  const [room] = check ? await deps.limiter.look([check]) : [];
  if (check && room && room.waitMs > 0) throw rateLimited(room.waitMs, check.rate.limit);
}

/** Counts one more. Of many at once no more than the limit go on. @throws AppError RATE_LIMIT_EXCEEDED */
export async function takeRoom(deps: LimitDeps, limit: ServiceLimit, subject: string): Promise<void> {
  const [check] = checksOf(deps, limit, subject);
  const [room] = check ? await deps.limiter.take([check]) : [];
  if (check && room && room.waitMs > 0) throw rateLimited(room.waitMs, check.rate.limit);
}
