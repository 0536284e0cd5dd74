import type { Tx } from "../../../db/database.ts";
import { listAuditOf } from "../../../db/queries/audit.ts";
import { findBaselineOf, listAnomaliesOf } from "../../../db/queries/baselines.ts";
import { listDevicesOf } from "../../../db/queries/devices.ts";
import { listInvitationsTo } from "../../../db/queries/invitations.ts";
import { listAllLogins } from "../../../db/queries/logins.ts";
import { findSession, listAllSessions } from "../../../db/queries/sessions.ts";
import { findPendingEmail } from "../../../db/queries/single-use-tokens.ts";
import { findUser, lockAccount, lockUser, updateUser } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import {
  type Authenticated,
  assertSteppedUp,
  isAlive,
  type Proven,
  provePassword,
  refuseChanged,
  withProof,
} from "../auth/service.ts";
import { queueMail } from "../mail/service.ts";
import { passGuess } from "../protection/service.ts";
import {
  type Actor,
  deactivateUser,
  endLinks,
  explainConflict,
  getUser,
  prepareNewPassword,
  record,
  replacePassword,
  requireEmail,
  requireUser,
  requireUsername,
  rightsOf,
  tellOldAddress,
  type UserView,
} from "../users/service.ts";
import { issueChangeToken, sendChangeVerification } from "./confirm-email.ts";

type Address = ReturnType<typeof requireEmail>;

const actorOf = ({ principal }: Authenticated, caller: Caller) =>
  ({ actor: { kind: "user", id: principal.id }, rights: principal, caller }) satisfies Actor;

/**
 * Changes one's own password. Every other session ends; a wrong current password counts as a failed login.
 *
 * @throws AppError AUTH_INVALID_CREDENTIALS, RATE_LIMIT_EXCEEDED, PASSWORD_TOO_WEAK
 */
export async function changePassword(
  deps: Deps,
  who: Authenticated,
  input: { readonly current_password: string; readonly new_password: string },
  caller: Caller,
): Promise<void> {
  const proven = await provePassword(deps, who.principal, input.current_password, "password.changed", caller);
  const isDone = await withProof(deps, proven, async () => {
    const fresh = await prepareNewPassword(deps, proven.account.user, input.new_password);
    return deps.db.change(async (tx) => {
      if (!(await lockAccount(tx, proven.account))) return false;
      await passGuess(tx, proven.guess);
      const keep = who.principal.sessionId ?? undefined;
      await replacePassword(tx, deps, proven.account.user, fresh, actorOf(who, caller), keep);
      return true;
    });
  });
  if (!isDone) await refuseChanged(deps, proven, caller);
}

export interface ProfileChange {
  readonly username?: string;
  readonly email?: string;
  /** Instead of a step-up, which a new address asks for. */
  readonly current_password?: string;
}

/**
 * Changes one's own user name and address. A new address counts once the link that is sent to it was used; until then the
 * old one does. An address that somebody else has is answered like any other, and its owner is told by mail.
 *
 * @throws AppError VALIDATION_FAILED, CONFLICT for a taken user name (or address, where addresses are not verified),
 * AUTH_STEP_UP_REQUIRED or AUTH_INVALID_CREDENTIALS
 */
export async function changeProfile(
  deps: Deps,
  who: Authenticated,
  change: ProfileChange,
  caller: Caller,
): Promise<UserView> {
  const { id } = who.principal;
  const username = change.username === undefined ? undefined : requireUsername(change.username);
  const address = change.email === undefined ? undefined : requireEmail(change.email);
  const proven = address ? await proveForAddress(deps, who, change, caller) : undefined;
  const by = actorOf(who, caller);
  const commit = () =>
    deps.db.change(async (tx) => {
      if (!(await isStillThem(tx, deps, who, proven))) return false;
      if (proven) await passGuess(tx, proven.guess);
      if (username !== undefined) {
        await updateUser(tx, id, { username, updatedAt: deps.clock.now() }).catch(explainConflict);
        await record(tx, deps, "user.changed", id, by, { changed: ["username"] });
      }
      if (address) await changeAddress(tx, deps, id, address, by);
      return true;
    });
  const isDone = await (proven ? withProof(deps, proven, commit) : commit());
  if (!isDone && proven) await refuseChanged(deps, proven, caller);
  if (!isDone) throw new AppError("AUTH_TOKEN_REVOKED", { internal: "The session has ended meanwhile" });
  return getUser(deps, id);
}

/** Whether nothing has happened since that would have kept them from asking; until the transaction ends, nothing does. */
async function isStillThem(tx: Tx, deps: Deps, { principal }: Authenticated, proven: Proven | undefined) {
  if (proven) return lockAccount(tx, proven.account);
  await lockUser(tx, principal.id);
  const found = principal.sessionId === null ? undefined : await findSession(tx, principal.sessionId);
  return found !== undefined && isAlive(deps, found);
}

async function changeAddress(
  tx: Tx,
  deps: Deps,
  id: string,
  address: Address,
  by: Actor & { readonly caller: Caller },
): Promise<void> {
  const { caller } = by;
  const before = await requireUser(tx, id);
  const isSame = before.user.email.toLowerCase() === address.email.toLowerCase();
  if (isSame || !deps.settings.registration.verify_email) {
    const emailVerifiedAt = isSame ? before.user.emailVerifiedAt : null;
    await updateUser(tx, id, { ...address, emailVerifiedAt, updatedAt: deps.clock.now() }).catch(explainConflict);
    await record(tx, deps, "email.changed", id, by, {});
    if (isSame) return;
    await endLinks(tx, before.user);
    await tellOldAddress(tx, deps, before.user, caller);
    return;
  }
  await record(tx, deps, "email.change_requested", id, by, {});
  const holder = await findUser(tx, { emailKey: address.emailKey });
  const isTaken = holder !== undefined && holder.user.id !== id && holder.user.status !== "pending";
  if (!isTaken) return void (await sendChangeVerification(tx, deps, id, address, caller));
  // What is kept on whoever asks, and how much they may cause, is the same for an address that has an account.
  await issueChangeToken(tx, deps, id, address.email);
  const mail = { template: "already_registered", user_id: holder.user.id, request_id: caller.requestId } as const;
  await queueMail(tx, deps, mail, { emailKey: address.emailKey, causedBy: id });
}

/** @returns the proof where the password was given; undefined where whoever asks has just proven who they are */
async function proveForAddress(
  deps: Deps,
  who: Authenticated,
  { current_password }: ProfileChange,
  caller: Caller,
): Promise<Proven | undefined> {
  if (current_password !== undefined) {
    return provePassword(deps, who.principal, current_password, "email.change_requested", caller);
  }
  assertSteppedUp(deps, who.claims);
  return undefined;
}

/** Gives up one's own account; a login within `accounts.erase_after` takes it back. @throws AppError CONFLICT */
export const deactivateOwn = (deps: Deps, who: Authenticated, caller: Caller) =>
  deactivateUser(deps, who.principal.id, actorOf(who, caller));

/** Everything that is kept on whoever asks (GDPR, article 15). Never a hash or a secret. */
export async function exportOwn(deps: Deps, who: Authenticated, caller: Caller) {
  const { id } = who.principal;
  const by = actorOf(who, caller);
  await deps.db.transaction((tx) => record(tx, deps, "account.exported", id, by, {}));
  const { orm } = deps.db;
  const found = await findUser(orm, { id });
  if (!found) throw new AppError("NOT_FOUND");
  return {
    exported_at: deps.clock.now().toISOString(),
    user: await getUser(deps, id),
    rights: await rightsOf(deps, id),
    sessions: await listAllSessions(orm, id),
    devices: await listDevicesOf(orm, id),
    pending_email: await findPendingEmail(orm, id, deps.clock.now()),
    invitations: await listInvitationsTo(orm, found.user.emailKey),
    logins: await listAllLogins(orm, id),
    usual_sign_ins: (await findBaselineOf(orm, id)) ?? null,
    unusual_hours: await listAnomaliesOf(orm, id),
    events: await listAuditOf(orm, id),
  };
}
