import { findUser, findUserWithPassword, updateUser } from "../../../db/queries/users.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { checkGuess } from "../auth/service.ts";
import { queueMail } from "../mail/service.ts";
import { releaseGuess, reserveGuess } from "../protection/service.ts";
import { assertNotListed } from "../threats/service.ts";
import {
  consumeSingleUseToken,
  issueSingleUseToken,
  lookAtSingleUseToken,
  type TokenPurpose,
} from "../tokens/service.ts";
import { prepareNewPassword, record, replacePassword } from "../users/service.ts";
import { mailQuietly, sendVerification } from "./confirm-email.ts";

/** How long the link in a mail sets a new password (milliseconds). */
const RESET_LINK_MS = 3_600_000;

/** What sets a new password: the link in a mail, or what a login gives to whoever has to. */
const PURPOSES: readonly TokenPurpose[] = ["reset_password", "change_password"];

/**
 * Sends a link for a new password. An account that waits to be verified gets that link instead; one that is disabled, none.
 * The answer and its time are the same for all of them, and for an address that nobody has.
 *
 * @throws AppError VALIDATION_FAILED for what is no address, FORBIDDEN from a bad network
 */
export async function forgotPassword(deps: Deps, email: string, caller: Caller): Promise<void> {
  await assertNotListed(deps, "forgot_password", caller);
  await mailQuietly(deps, email, async (tx, user, emailKey) => {
    if (user.status === "pending") return void (await sendVerification(tx, deps, user, caller));
    if (user.status === "disabled") return;
    const token = () =>
      issueSingleUseToken(tx, deps, {
        purpose: "reset_password",
        userId: user.id,
        subject: user.id,
        ttlMs: RESET_LINK_MS,
      });
    const isSent = await queueMail(
      tx,
      deps,
      { template: "password_reset", user_id: user.id, request_id: caller.requestId },
      { emailKey, sealed: async () => ({ token: await token() }) },
    );
    if (isSent) {
      await record(tx, deps, "password.reset_requested", user.id, { actor: { kind: "system" }, caller }, {});
    }
  });
}

/**
 * Sets a new password by a token that works once. Every session ends, the account can be tried again at once, and nobody
 * is logged in. A password that is refused does not use the token up.
 *
 * @throws AppError LINK_INVALID, PASSWORD_TOO_WEAK, RATE_LIMIT_EXCEEDED after too many that were not the one they had to
 * change, SERVICE_UNAVAILABLE where the hash pool is full
 */
export async function resetPassword(deps: Deps, token: string, password: string, caller: Caller): Promise<void> {
  const meant = await lookAtSingleUseToken(deps.db.orm, deps, token);
  const found =
    meant?.userId && PURPOSES.some((purpose) => purpose === meant.purpose)
      ? await findUser(deps.db.orm, { id: meant.userId })
      : undefined;
  if (!found) throw new AppError("LINK_INVALID");
  const { id } = found.user;
  const fresh = await prepareNewPassword(deps, found.user, password, () => guessCurrent(deps, id, password));
  await deps.db.change(async (tx) => {
    const { token: spent, user } = await consumeSingleUseToken(tx, deps, token, PURPOSES);
    if (user.status === "disabled") throw new AppError("LINK_INVALID");
    await replacePassword(tx, deps, user, fresh, { actor: { kind: "system" }, caller });
    // Whoever has opened the link has read the mail.
    if (spent.purpose === "reset_password" && user.emailVerifiedAt === null) {
      await updateUser(tx, user.id, { emailVerifiedAt: deps.clock.now() });
    }
  });
}

/** Whoever has a link may not know the password, and would learn it by trying many at once: each is a guess like others. */
async function guessCurrent(deps: Deps, userId: string, password: string): Promise<boolean> {
  const guess = await reserveGuess(deps, { userId, lane: "new_password" });
  const account = await findUserWithPassword(deps.db.orm, { kind: "id", key: userId });
  const { correct } = await checkGuess(deps, guess, password, account?.password ?? undefined);
  if (correct) await releaseGuess(deps, guess);
  return correct;
}
