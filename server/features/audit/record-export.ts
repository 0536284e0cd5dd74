import type { Deps } from "../../deps.ts";
import { isId } from "../../ports/random.ts";
import { type EventQuery, filterOf } from "./list-events.ts";
import { AUDIT_ACTIONS, type AuditEvent, audit } from "./record.ts";

/** Stands for what somebody has typed that is none of what it is asked for: it may be anything, and stays for good. */
const OTHER = "(other)";

/**
 * Records that somebody exports the audit log, before they get any of it: which part of it, as far as that is an id, a time
 * or a name of primer's own.
 *
 * @throws AppError VALIDATION_FAILED for a query that is none
 */
export async function recordExport(
  deps: Pick<Deps, "db" | "clock" | "random">,
  query: EventQuery,
  { format, ...by }: Pick<AuditEvent, "actor" | "caller"> & { readonly format: string },
): Promise<void> {
  const { action, outcome, actorId, actorKind, subjectId, from, to } = filterOf(query);
  const idOf = (text: string | undefined) => (text === undefined || isId(text) ? text : OTHER);
  const isKnown = action === undefined || AUDIT_ACTIONS.some((known) => known === action);
  const details = {
    format,
    action: isKnown ? action : OTHER,
    outcome,
    actor: actorKind ?? idOf(actorId),
    subject: idOf(subjectId),
    from: from?.toISOString(),
    to: to?.toISOString(),
  };
  await deps.db.transaction((tx) => audit(tx, deps, { action: "audit.exported", outcome: "success", ...by, details }));
}
