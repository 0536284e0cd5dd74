import type { Statement, Tx } from "../../../db/database.ts";
import { insertAudit } from "../../../db/queries/audit.ts";
import type { Caller, Deps } from "../../deps.ts";

/** Every security event that is recorded. */
export const AUDIT_ACTIONS = [
  "installation.initialised",
  "login",
  "login.suspicious",
  "logout",
  "refresh.reused",
  "password.changed",
  "password.reset_requested",
  "user.registered",
  "user.reactivated",
  "email.verified",
  "email.change_requested",
  "email.changed",
  "invitation.created",
  "invitation.deleted",
  "account.exported",
  "access.refused",
  "audit.exported",
  "audit.month_dropped",
  "client.refused",
  "mail.shown",
  "schema.migrated",
  "settings.reloaded",
  "settings.replaced",
  "breach_check_degraded",
  "user.created",
  "user.disabled",
  "user.enabled",
  "user.roles_changed",
  "user.changed",
  "user.deactivated",
  "user.erased",
  "user.password_change_required",
  "role.created",
  "role.changed",
  "role.deleted",
  "users.import_began",
  "users.imported",
  "users.exported",
  "account.locked",
  "sign_ins.anomalous",
  "user.unlocked",
  "session.revoked",
  "session.stepped_up",
  "client.created",
  "client.secret_rotated",
  "client.deleted",
  "job.retried",
  "job.given_up",
  "job.purged",
  "key.created",
  "key.activated",
  "key.retiring",
  "key.retired",
  "key.withdrawn",
  "key.resealed",
  "backup.taken",
  "backup.verified",
  "backup.restored",
] as const;
export type AuditAction = (typeof AUDIT_ACTIONS)[number];

export interface AuditEvent {
  readonly action: AuditAction;
  readonly outcome: "success" | "failure";
  readonly actor: { readonly kind: "user" | "client" | "operator" | "system" | "anonymous"; readonly id?: string };
  readonly subject?: { readonly kind: string; readonly id: string };
  readonly caller?: Caller;
  /** Nothing personal but ids: details stay when somebody is erased. */
  readonly details?: Readonly<Record<string, unknown>>;
}

/**
 * Records an event in the transaction of the action itself: both are there or neither is. It is chained afterwards, so
 * nobody waits for anybody else's.
 */
export async function audit(tx: Tx, deps: Pick<Deps, "clock" | "random">, event: AuditEvent): Promise<void> {
  await auditStatement(tx, deps, event);
}

/** The same as a statement, for whoever sends it with the commit. */
export function auditStatement(tx: Tx, deps: Pick<Deps, "clock" | "random">, event: AuditEvent): Statement {
  const time = deps.clock.now();
  return insertAudit(tx, {
    id: deps.random.id(time),
    time,
    action: event.action,
    outcome: event.outcome,
    actorKind: event.actor.kind,
    actorId: event.actor.id ?? null,
    subjectKind: event.subject?.kind ?? null,
    subjectId: event.subject?.id ?? null,
    ip: event.caller?.ip ?? null,
    userAgent: event.caller?.userAgent ?? null,
    requestId: event.caller?.requestId ?? null,
    details: event.details ?? {},
    callerOf: callerOf(event),
  });
}

/** Records that somebody was refused, where nothing else was done. Where that cannot be, they stay refused. */
export async function auditRefusal(
  deps: Pick<Deps, "clock" | "random" | "db" | "log">,
  event: Omit<AuditEvent, "outcome">,
): Promise<void> {
  await deps.db
    .transaction((tx) => audit(tx, deps, { ...event, outcome: "failure" }))
    .catch((error) => {
      deps.log.warn("A refusal could not be recorded", { event: "audit.not_recorded", action: event.action, error });
    });
}

/** The user with whose erasure address and agent go: whoever acted, or else whom it was about. */
function callerOf({ actor, subject, details, caller }: AuditEvent): string | null {
  if (!caller) return null;
  if (actor.kind === "user") return actor.id ?? null;
  if (subject?.kind === "user") return subject.id;
  return actor.kind === "anonymous" && typeof details?.user_id === "string" ? details.user_id : null;
}
