import type { Deps } from "../../deps.ts";
import { rateLimited } from "../../errors.ts";

/** What is limited: failed authentications of clients, by address, and tokens that were not good, by client. */
type FailureLimit = "client_failed" | "introspect_failed";

type LimitDeps = Pick<Deps, "limiter" | "settings">;

/** @throws AppError RATE_LIMIT_EXCEEDED where there were too many failures already */
export async function assertFewFailures(deps: LimitDeps, limit: FailureLimit, subject: string): Promise<void> {
  const rate = deps.settings.rate_limits[limit];
  if (rate === null) return;
  const wait = await deps.limiter.wait(`${limit}:${subject}`, rate);
  if (wait > 0) throw rateLimited(wait, rate.limit);
}

/**
 * Counts a failure. Of many at once no more than the limit get their answer: the others learn nothing but to wait.
 *
 * @throws AppError RATE_LIMIT_EXCEEDED where it is one too many
 */
export async function countFailure(deps: LimitDeps, limit: FailureLimit, subject: string): Promise<void> {
  const rate = deps.settings.rate_limits[limit];
  if (rate === null) return;
  const wait = await deps.limiter.hit(`${limit}:${subject}`, rate);
  if (wait > 0) throw rateLimited(wait, rate.limit);
}
