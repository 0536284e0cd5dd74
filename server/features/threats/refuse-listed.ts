import type { LabelsOf } from "../../../config/metrics.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { auditRefusal } from "../audit/service.ts";

/** What is refused to bad networks: whatever can be tried without being anybody. Sessions that are there go on. */
export type GuardedAction = LabelsOf<"primer_threats_refused_total">["action"];

/** Lists name thousands of addresses: so many refusals are recorded, of all together; log and metrics have every one. */
const RECORDED = { limit: 60, windowMs: 60_000 };

/**
 * Refuses whoever comes from a bad network, where `threats.action` says so, before anything else is looked at.
 *
 * @throws AppError FORBIDDEN with `details.reason`
 */
export async function assertNotListed(deps: Deps, action: GuardedAction, caller: Caller): Promise<void> {
  const { ip } = caller;
  if (deps.settings.threats.action !== "refuse" || ip === null || !deps.threats.isListed(ip)) return;
  const reason = "bad_network";
  deps.metrics.count("primer_threats_refused_total", { action });
  deps.log.info("A request from a bad network was refused", {
    event: "threats.refused",
    action,
    ip,
    request_id: caller.requestId,
  });
  const [room] = await deps.limiter.take([{ key: "audit_refused:listed", rate: RECORDED }]);
  const details = { action, reason };
  if (!room || room.waitMs === 0)
    await auditRefusal(deps, { action: "access.refused", actor: { kind: "anonymous" }, caller, details });
  throw new AppError("FORBIDDEN", { details: { reason } });
}
