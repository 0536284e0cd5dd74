import { createHmac } from "node:crypto";
import { deriveKey } from "../../../config/secrets.ts";
import type { Tx, WithCommit } from "../../../db/database.ts";
import { violatedUniqueness } from "../../../db/errors.ts";
import { holdName } from "../../../db/queries/held-names.ts";
import { deleteTokensOf } from "../../../db/queries/single-use-tokens.ts";
import {
  findUser,
  insertUser,
  lockUser,
  roleReplacement,
  type UserWithRights,
  updateUser,
} from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { waitForFloor } from "../auth/service.ts";
import { spendInvitation } from "../invitations/service.ts";
import { queueMail } from "../mail/service.ts";
import { approvalRecord } from "../passwords/service.ts";
import { assertNotListed } from "../threats/service.ts";
import {
  keepPassword,
  type PreparedUser,
  prepareUser,
  recordStatement,
  removeUnconfirmed,
  requireUser,
  UNVERIFIED_KEPT_MS,
  type UserView,
  viewOf,
} from "../users/service.ts";
import { sendVerification } from "./confirm-email.ts";

export interface Registration {
  readonly username: string;
  readonly email: string;
  readonly password: string;
  /** What an invitation's link or mail carries. */
  readonly invitation?: string;
}

const DEFAULT_ROLES = ["user"] as const;

/**
 * Registers somebody. Where addresses are verified the answer is the same whether the address has an account already, after
 * the same time; its owner is told by mail. A registration that was not confirmed is replaced by the next one with its
 * address, password and all: only the newest link works, and makes valid what was typed with it.
 *
 * @returns the user where nothing is left to verify; undefined where a mail has been sent
 * @throws AppError FORBIDDEN where registration is closed, or from a bad network, LINK_INVALID for a wrong invitation, VALIDATION_FAILED,
 * PASSWORD_TOO_WEAK, CONFLICT for a taken user name, or address where addresses are not verified
 */
export async function register(deps: Deps, input: Registration, caller: Caller): Promise<UserView | undefined> {
  const arrived = deps.clock.elapsed();
  await assertNotListed(deps, "register", caller);
  const { mode, verify_email } = deps.settings.registration;
  const isInvited = input.invitation !== undefined;
  if (mode === "closed" || (mode === "invite" && !isInvited)) {
    const reason = mode === "closed" ? "registration_closed" : "invitation_required";
    throw new AppError("FORBIDDEN", { details: { reason } });
  }
  const prepared = await prepareUser(deps, { ...input, roles: DEFAULT_ROLES });
  const attempt = () =>
    deps.db.change((tx, withCommit) => registerIn(tx, withCommit, deps, prepared, input.invitation, caller));
  // Of two at the same moment with one address or name the second looks again, and finds the first.
  const made = await attempt().catch((error) => (isTaken(error) ? attempt() : Promise.reject(error)));
  if (made !== undefined) return viewOf(await requireUser(deps.db.orm, made));
  if (verify_email) await waitForFloor(deps, arrived);
  return undefined;
}

const isTaken = (error: unknown) => ["users_username_key", "users_email_key"].includes(violatedUniqueness(error) ?? "");

/** @returns the id of the user where nothing is left to verify */
async function registerIn(
  tx: Tx,
  withCommit: WithCommit,
  deps: Deps,
  prepared: PreparedUser,
  invitationToken: string | undefined,
  caller: Caller,
): Promise<string | undefined> {
  const { username, email } = prepared;
  // Before anything is known of the address: a wrong invitation is wrong, and a name held, for every address alike.
  const invitation =
    invitationToken === undefined ? undefined : await spendInvitation(tx, deps, invitationToken, email.emailKey);
  const known = await claimName(tx, deps, username, email.emailKey);
  const before = known && (await lockUser(tx, known.user.id));
  if (before && before.user.status !== "pending") {
    if (!deps.settings.registration.verify_email) throw new AppError("CONFLICT", { details: { field: "email" } });
    await tellOwner(tx, deps, before.user.id, email.emailKey, caller);
    return undefined;
  }
  const isProven = invitation !== undefined;
  const isActive = isProven || !deps.settings.registration.verify_email;
  const now = deps.clock.now();
  const id = before?.user.id ?? deps.random.id(now);
  const row = {
    id,
    username,
    ...email,
    status: isActive ? ("active" as const) : ("pending" as const),
    emailVerifiedAt: isProven ? now : null,
    createdAt: now,
    updatedAt: now,
  };
  const by = { actor: { kind: "system" }, caller } as const;
  withCommit(
    before ? updateUser(tx, id, row) : insertUser(tx, row),
    keepPassword(tx, deps, id, prepared.password, now, now),
    // A link that was sent for another attempt makes nothing of this one valid, also where no other can be sent.
    deleteTokensOf(tx, id, ["verify_email"]),
    ...roleReplacement(tx, id, invitation?.roles ?? prepared.roles, now),
    recordStatement(tx, deps, "user.registered", id, by, { invited: isProven }),
    ...approvalRecord(tx, deps, prepared.approval, { subject: { kind: "user", id }, ...by }),
  );
  if (isActive) return id;
  await sendVerification(tx, deps, row, caller, withCommit);
  return undefined;
}

/**
 * Holds a user name for an address for a day, as an unconfirmed registration does; also where the address has an account.
 *
 * @returns who has the address
 * @throws AppError CONFLICT where somebody else has the name, or has asked for it within the last day
 */
async function claimName(tx: Tx, deps: Deps, username: string, emailKey: string): Promise<UserWithRights | undefined> {
  const now = deps.clock.now();
  const holder = {
    username,
    holder: holderOf(deps, emailKey),
    heldUntil: new Date(now.getTime() + UNVERIFIED_KEPT_MS),
  };
  const isHeld = await holdName(tx, holder, now);
  const [has, known] = await Promise.all([findUser(tx, { username }), findUser(tx, { emailKey })]);
  const isFree = has === undefined || has.user.status === "pending";
  if (!isHeld || !isFree) throw new AppError("CONFLICT", { details: { field: "username" } });
  // Somebody asked for it more than a day ago and has not come back, or it is this address's own.
  if (has && has.user.emailKey !== emailKey) await removeUnconfirmed(tx, deps, has.user.id);
  return known;
}

/** Nobody reads from the table who has asked for a name. */
function holderOf({ secrets }: Deps, emailKey: string): string {
  const key = deriveKey(secrets.pepper[0], "addresses that hold user names");
  return createHmac("sha256", key).update(emailKey).digest("base64url");
}

const tellOwner = (tx: Tx, deps: Deps, userId: string, emailKey: string, caller: Caller) =>
  queueMail(tx, deps, { template: "already_registered", user_id: userId, request_id: caller.requestId }, { emailKey });
