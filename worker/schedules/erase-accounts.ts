import { listOverdueUsers, type OVERDUE, type OverdueUser } from "../../db/queries/users.ts";
import { etagOf } from "../../server/etag.ts";
import { eraseUser } from "../../server/features/users/manage-users.ts";
import { UNVERIFIED_KEPT_MS, viewOf } from "../../server/features/users/service.ts";
import type { Details, ScheduleDeps, ScheduledRun } from "../schedule.ts";

const PAGE = 100;
const BY_SYSTEM = { actor: { kind: "system" } } as const;

/** Accounts that nobody has verified. */
export const eraseUnverified = (deps: ScheduleDeps, run: ScheduledRun): Promise<Details> =>
  eraseOverdue(deps, run, "pending", UNVERIFIED_KEPT_MS);

/** Accounts that their owners gave up and did not come back to, or that an administrator took out of use. */
export const eraseDeactivated = (deps: ScheduleDeps, run: ScheduledRun): Promise<Details> =>
  eraseOverdue(deps, run, "deactivated", deps.settings.accounts.erase_after);

/** One at a time. One that cannot be erased holds up no other; then the run has failed in the end, and is tried again. */
async function eraseOverdue(
  deps: ScheduleDeps,
  { signal }: ScheduledRun,
  status: keyof typeof OVERDUE,
  keptMs: number,
): Promise<Details> {
  const until = new Date(deps.clock.now().getTime() - keptMs);
  let erased = 0;
  let failure: unknown;
  let after: OverdueUser | undefined;
  do {
    const page = await listOverdueUsers(deps.db.orm, status, { until, limit: PAGE, ...(after ? { after } : {}) });
    for (const user of page) {
      signal.throwIfAborted();
      try {
        if (await eraseUnchanged(deps, user)) erased++;
      } catch (error) {
        failure ??= error;
        const fields = { event: "user.not_erased", user_id: user.user.id, error };
        deps.log.warn("An account whose time is over could not be erased", fields);
      }
    }
    after = page.length === PAGE ? page.at(-1) : undefined;
  } while (after);
  if (failure !== undefined) throw failure;
  return { erased };
}

/** @returns false where the account has changed since it was listed: verified, say, or taken back by its owner */
async function eraseUnchanged(deps: ScheduleDeps, user: OverdueUser): Promise<boolean> {
  try {
    await eraseUser(deps, user.user.id, BY_SYSTEM, etagOf(JSON.stringify(viewOf(user))));
    return true;
  } catch (error) {
    const { errorCode } = error as { errorCode?: string };
    if (errorCode === "PRECONDITION_FAILED" || errorCode === "NOT_FOUND") return false;
    throw error;
  }
}
