import { openOwner } from "../../db/open.ts";
import {
  type DeleteOld,
  deleteEndedSessions,
  deleteErasedUsers,
  deleteExpiredAnswers,
  deleteExpiredSessions,
  deleteExpiredTokens,
  deleteGoneProcesses,
  deleteHeldNames,
  deleteIdleSessions,
  deleteOldAccountBaselines,
  deleteOldAnomalies,
  deleteOldFailures,
  deleteOldInvitations,
  deleteOldLogins,
  deleteOldMailCounters,
  deleteOldNetworkBaselines,
  deleteRetiredSecretKeys,
  deleteRetiredSigningKeys,
  deletingOld,
} from "../../db/queries/clean-up.ts";
import { vacuumTables } from "../../db/vacuum.ts";
import { dropAuditMonths, forgetErased, makeAuditMonths } from "../../server/features/audit/service.ts";
import type { Details, ScheduleDeps, ScheduledRun } from "../schedule.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** Clocks are not the same everywhere: what has expired stays for a day. */
const EXPIRED_KEPT_MS = DAY_MS;
/** What counts mails looks back a day. */
const MAIL_COUNTER_KEPT_MS = 2 * DAY_MS;
/** Nobody guesses more often than an account allows by waiting: so few a year help no one. */
const FAILURES_KEPT_MS = 365 * DAY_MS;
const INVITATIONS_KEPT_MS = 30 * DAY_MS;
const RETIRED_KEY_KEPT_MS = 365 * DAY_MS;
/**
 * A service that verifies tokens by itself hears from the sessions' rows that they have ended. An access token lives an
 * hour at most, whatever is set, and clocks and signing add two minutes.
 */
export const ERASED_KEPT_MS = 2 * HOUR_MS;

/**
 * How long one batch should hold up others (milliseconds): so many rows are deleted at a time. However long a commit takes
 * here, it is no fewer than the smallest batch.
 */
const BATCH_MS = 10;
const SMALLEST_BATCH = 500;
const LARGEST_BATCH = 5000;
/** After each batch so many times as long is for others alone: what is over can wait, and whoever logs in cannot. */
const PAUSE_TIMES = 9;
const [LEAST_PAUSE_MS, LONGEST_PAUSE_MS] = [10, 1000];

interface Kept {
  readonly what: string;
  readonly keptMs: number;
  readonly delete: DeleteOld;
}

/** What is deleted once it is how old. */
function listKept({ retention, accounts }: ScheduleDeps["settings"]): readonly Kept[] {
  const sessions = { what: "sessions", keptMs: retention.sessions };
  const keys = { what: "keys", keptMs: RETIRED_KEY_KEPT_MS };
  return [
    { what: "tokens", keptMs: EXPIRED_KEPT_MS, delete: deleteExpiredTokens },
    { ...sessions, delete: deleteEndedSessions },
    { ...sessions, delete: deleteIdleSessions },
    { ...sessions, delete: deleteExpiredSessions },
    { what: "logins", keptMs: retention.logins, delete: deleteOldLogins },
    // What is learnt from them is kept no longer than they are.
    { what: "baselines", keptMs: retention.logins, delete: deleteOldAccountBaselines },
    { what: "baselines", keptMs: retention.logins, delete: deleteOldNetworkBaselines },
    { what: "anomalies", keptMs: retention.logins, delete: deleteOldAnomalies },
    { what: "failures", keptMs: FAILURES_KEPT_MS, delete: deleteOldFailures(accounts.lock_after) },
    { what: "held_names", keptMs: EXPIRED_KEPT_MS, delete: deleteHeldNames },
    // They may hold a secret, so hardly longer than they count.
    { what: "idempotency_keys", keptMs: HOUR_MS, delete: deleteExpiredAnswers },
    { what: "invitations", keptMs: INVITATIONS_KEPT_MS, delete: deleteOldInvitations },
    { what: "mail_counters", keptMs: MAIL_COUNTER_KEPT_MS, delete: deleteOldMailCounters },
    { what: "processes", keptMs: EXPIRED_KEPT_MS, delete: deleteGoneProcesses },
    { what: "erased_users", keptMs: ERASED_KEPT_MS, delete: deleteErasedUsers },
    { ...keys, delete: deleteRetiredSigningKeys },
    { ...keys, delete: deleteRetiredSecretKeys },
  ];
}

/**
 * Deletes what has expired and what was kept long enough, a few rows at a time, so that whoever logs in meanwhile does
 * not wait. What is left when it is cut short goes the next time.
 *
 * @returns how many rows of what were deleted
 */
export async function cleanUp(deps: ScheduleDeps, { home, signal }: ScheduledRun): Promise<Details> {
  const now = deps.clock.now().getTime();
  const deleted: Record<string, number> = {};
  for (const { what, keptMs, delete: deleteOld } of listKept(deps.settings)) {
    const count = await deleteUntil(deps, deleteOld, new Date(now - keptMs), signal);
    deleted[what] = (deleted[what] ?? 0) + count;
  }
  deleted.audit_callers = await forgetErased(deps.db, deps.clock.now(), signal);
  deleted.audit = await keepAuditMonths(deps, home, signal);
  if (deps.db.kind === "pglite") await freeRoom(deps, signal);
  return deleted;
}

/** Of the audit log whole months are dropped, once the last of their rows was kept long enough. */
async function keepAuditMonths(deps: ScheduleDeps, home: string, signal: AbortSignal): Promise<number> {
  const { db, clock, random, log, settings } = deps;
  await makeAuditMonths(db);
  const now = clock.now();
  const owner = await openOwner(settings, home, db);
  try {
    const endingBefore = new Date(now.getTime() - settings.retention.audit);
    return await dropAuditMonths(owner.database, { endingBefore, now, random, log, signal });
  } finally {
    await owner.close();
  }
}

/** A PostgreSQL server does this by itself. */
async function freeRoom({ db, log }: ScheduleDeps, signal: AbortSignal): Promise<void> {
  const tables = await vacuumTables(db, signal);
  if (tables.length === 0) return;
  const fields = { event: "clean_up.not_vacuumed", tables };
  log.warn("Tables are too large for the embedded database to reuse their room; move to a PostgreSQL", fields);
}

async function deleteUntil(
  deps: ScheduleDeps,
  deleteOld: DeleteOld,
  until: Date,
  signal: AbortSignal,
): Promise<number> {
  let count = 0;
  let limit = SMALLEST_BATCH;
  for (let from = new Date(0); ; ) {
    signal.throwIfAborted();
    const began = performance.now();
    const times = await deps.db.transaction(async (tx) => {
      await deletingOld(tx); // sessions are kept for a week at least
      return deleteOld(tx, { from, until, limit });
    });
    const took = performance.now() - began;
    count += times.length;
    if (times.length < limit) return count;
    from = new Date(Math.max(...times.map(Number)));
    limit = Math.round(Math.min(LARGEST_BATCH, 2 * limit, Math.max(SMALLEST_BATCH, (limit * BATCH_MS) / took)));
    await deps.clock.sleep(Math.min(LONGEST_PAUSE_MS, Math.max(LEAST_PAUSE_MS, PAUSE_TIMES * took)));
  }
}
