import type { Tx } from "../db/database.ts";
import { takeMailRoom } from "../db/queries/mail.ts";
import { listAllRoles } from "../db/queries/roles.ts";
import { listActiveHolders } from "../db/queries/users.ts";
import { type MailDeps, queueMail } from "../server/features/mail/service.ts";
import { can } from "../server/features/rights/service.ts";
import { permissionsOf } from "../server/features/roles/service.ts";

/** So many get reports and alerts at most: a role that everybody has must not mail everybody. */
const MAX_OPERATORS = 100;
const DAY_MS = 86_400_000;
const ONCE_A_DAY = { count: 1, ms: DAY_MS };

/** What operators ought to know of, and do. None of it may be secret. */
export interface Alert {
  /** Of one kind one alert a day is mailed. */
  readonly kind: string;
  readonly what: string;
  readonly why: string;
  readonly mend: string;
}

/** The ids of those who get reports and alerts: active, with the permission `reports:read` everywhere; 100 at most. */
export async function listOperators(tx: Tx): Promise<string[]> {
  const all = await listAllRoles(tx);
  const names = all.map(({ role }) => role.name);
  const telling = names.filter((name) => can({ permissions: permissionsOf(all, [name]) }, "reports:read"));
  return listActiveHolders(tx, telling, MAX_OPERATORS);
}

/** Mails an alert in the transaction of what it is about. @returns whether; not where there was one of its kind within a day */
export async function alertOperators(tx: Tx, deps: MailDeps, { kind, ...alert }: Alert): Promise<boolean> {
  const counter = { recipient: `operators:${kind}`, template: "operator_alert" };
  const limits = { shortly: ONCE_A_DAY, daily: ONCE_A_DAY };
  if (!(await takeMailRoom(tx, counter, limits, deps.clock.now()))) return false;
  for (const user_id of await listOperators(tx)) {
    await queueMail(tx, deps, { template: "operator_alert", user_id, request_id: null, ...alert });
  }
  return true;
}
