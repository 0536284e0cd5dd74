import type { Deps } from "../deps.ts";
import { AppError } from "../errors.ts";
import { auditRefusal } from "../features/audit/service.ts";
import { callerOf, contextOf } from "./context.ts";

/** Of one user so many are recorded, whatever they try; the log has a line of every request. */
const RECORDED = { limit: 30, windowMs: 60_000 };
/** What it refuses it refuses for another service, once for each request to that one. */
const ANSWERS_GATEWAYS = "/api/v1/auth/verify";

/** Records that somebody who is known asked for what they may not do. */
export async function auditRefused(deps: Deps, thrown: unknown, request: Request, route: string): Promise<void> {
  if (!(thrown instanceof AppError) || thrown.errorCode !== "FORBIDDEN" || route === ANSWERS_GATEWAYS) return;
  const { principal } = contextOf(request);
  if (!principal) return;
  const [room] = await deps.limiter.take([{ key: `audit_refused:user:${principal.id}`, rate: RECORDED }]);
  if (room && room.waitMs > 0) return;
  await auditRefusal(deps, {
    action: "access.refused",
    actor: { kind: principal.kind, id: principal.id },
    caller: callerOf(request),
    details: { method: request.method, route, ...thrown.details },
  });
}
