import type { Tx, WithCommit } from "../../../db/database.ts";
import { violatedUniqueness } from "../../../db/errors.ts";
import { findUser, lockUser, type UserRow, updateUser } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { waitForFloor } from "../auth/service.ts";
import { queueMail } from "../mail/service.ts";
import { assertNotListed } from "../threats/service.ts";
import { consumeSingleUseToken, hashSecret, issueSingleUseToken } from "../tokens/service.ts";
import {
  endLinks,
  parseEmail,
  record,
  removeUnconfirmed,
  requireEmail,
  tellOldAddress,
  UNVERIFIED_KEPT_MS,
} from "../users/service.ts";

/** How long the link in a mail proves the new address of an account (milliseconds). It lets nobody in. */
const CHANGE_LINK_MS = 24 * 3_600_000;

/**
 * Sends the link that proves the address of a new account, and works as long as the account waits for it: sent again, it
 * keeps neither the account nor its user name any longer. Any link from before is dead.
 *
 * @param withCommit of the same transaction: the mail goes with the commit
 */
export async function sendVerification(
  tx: Tx,
  deps: Deps,
  { id: userId, createdAt, emailKey }: Pick<UserRow, "id" | "createdAt" | "emailKey">,
  caller: Caller,
  withCommit?: WithCommit,
): Promise<void> {
  const ttlMs = createdAt.getTime() + UNVERIFIED_KEPT_MS - deps.clock.now().getTime();
  if (ttlMs <= 0) return; // it is about to be erased
  const subject = `account:${userId}`;
  const link = { purpose: "verify_email", userId, subject, ttlMs } as const;
  const sealed = async () => ({ token: await issueSingleUseToken(tx, deps, link, withCommit) });
  const mail = { template: "verify_email", user_id: userId, request_id: caller.requestId } as const;
  await queueMail(tx, deps, mail, { emailKey, sealed, ...(withCommit ? { withCommit } : {}) });
}

/** The token that makes an address a user's, once whoever reads there has confirmed it. */
export const issueChangeToken = (tx: Tx, deps: Deps, userId: string, email: string) =>
  issueSingleUseToken(tx, deps, {
    purpose: "verify_email",
    userId,
    subject: `change:${userId}`,
    ttlMs: CHANGE_LINK_MS,
    details: { email },
  });

/** Sends the link that proves the new address of an account; the old one counts until then. */
export const sendChangeVerification = (
  tx: Tx,
  deps: Deps,
  userId: string,
  address: { readonly email: string; readonly emailKey: string },
  caller: Caller,
) =>
  queueMail(
    tx,
    deps,
    { template: "verify_email", user_id: userId, request_id: caller.requestId },
    {
      emailKey: address.emailKey,
      causedBy: userId,
      sealed: async () => ({
        to: address.email,
        token: await issueChangeToken(tx, deps, userId, address.email),
      }),
    },
  );

/**
 * Takes an address as proven: that of a new account, or the new one of an account. Logs nobody in.
 *
 * @throws AppError LINK_INVALID, also where somebody else has the address by now
 */
export async function verifyEmail(deps: Deps, token: string, caller: Caller): Promise<void> {
  await deps.db.change(async (tx) => {
    const { token: spent, user } = await consumeSingleUseToken(tx, deps, token, ["verify_email"]);
    const { email } = spent.details;
    if (typeof email === "string") await takeAddress(tx, deps, user, email, caller);
    else await activate(tx, deps, user, caller);
  });
}

async function activate(tx: Tx, deps: Deps, user: UserRow, caller: Caller): Promise<void> {
  if (user.status !== "pending" && user.status !== "active") throw new AppError("LINK_INVALID");
  const now = deps.clock.now();
  await updateUser(tx, user.id, { status: "active", emailVerifiedAt: now, updatedAt: now });
  await record(tx, deps, "email.verified", user.id, { actor: { kind: "system" }, caller }, {});
}

async function takeAddress(tx: Tx, deps: Deps, user: UserRow, text: string, caller: Caller): Promise<void> {
  const address = parseEmail(text);
  if (!address || user.status !== "active") throw new AppError("LINK_INVALID");
  const now = deps.clock.now();
  const holder = await findUser(tx, { emailKey: address.emailKey });
  // A registration that nobody confirmed stands in nobody's way.
  if (holder?.user.status === "pending") await removeUnconfirmed(tx, deps, holder.user.id);
  await updateUser(tx, user.id, { ...address, emailVerifiedAt: now, updatedAt: now }).catch((error) => {
    throw violatedUniqueness(error) === "users_email_key" ? new AppError("LINK_INVALID") : error;
  });
  await endLinks(tx, user);
  await record(tx, deps, "email.changed", user.id, { actor: { kind: "system" }, caller }, {});
  await tellOldAddress(tx, deps, user, caller);
}

/**
 * Sends the link once more where an account waits for it. The answer and its time are the same where none does, or where
 * the address has had as many mails as it may.
 *
 * @throws AppError VALIDATION_FAILED for what is no address, FORBIDDEN from a bad network
 */
export async function resendVerification(deps: Deps, email: string, caller: Caller): Promise<void> {
  await assertNotListed(deps, "resend_verification", caller);
  await mailQuietly(deps, email, async (tx, user) => {
    if (user.status === "pending") await sendVerification(tx, deps, user, caller);
  });
}

/**
 * Does something by mail for the owner of an address, if it has one: to whoever asks, nothing differs.
 *
 * @param work what is done in one transaction for the user found
 * @throws AppError VALIDATION_FAILED for what is no address
 */
export async function mailQuietly(
  deps: Deps,
  text: string,
  work: (tx: Tx, user: UserRow, emailKey: string) => Promise<void>,
): Promise<void> {
  const arrived = deps.clock.elapsed();
  const { emailKey } = requireEmail(text);
  const rate = deps.settings.rate_limits.mail_address;
  const rooms = rate ? await deps.limiter.take([{ key: `mail_address:${hashSecret(emailKey)}`, rate }]) : [];
  const hasRoom = rooms.every(({ waitMs }) => waitMs === 0);
  await deps.db.transaction(async (tx) => {
    const found = await findUser(tx, { emailKey });
    if (!found || !hasRoom) return;
    const locked = await lockUser(tx, found.user.id); // before their tokens, as everywhere
    if (locked?.user.emailKey === emailKey) await work(tx, locked.user, emailKey);
  });
  await waitForFloor(deps, arrived);
}
