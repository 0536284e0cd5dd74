import type { Tx, WithCommit } from "../../../db/database.ts";
import {
  findLiveToken,
  replaceSingleUseToken,
  type SingleUseTokenRow,
  spendToken,
} from "../../../db/queries/single-use-tokens.ts";
import { lockUser, type UserRow } from "../../../db/queries/users.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { hashSecret } from "./refresh-token.ts";

/** What the link in a mail may do. */
export type LinkPurpose = "verify_email" | "reset_password" | "end_session";

/** A token is good for its own purpose and no other. */
export type TokenPurpose = LinkPurpose | "change_password";

export interface TokenRequest {
  readonly purpose: TokenPurpose;
  readonly userId: string;
  /** What it is about: a session, an account, an attempt to register. Of each only the newest token works. */
  readonly subject: string;
  /** How long it works (milliseconds). */
  readonly ttlMs: number;
  readonly details?: Readonly<Record<string, unknown>>;
}

/**
 * Makes a token of 256 bits that works once: for the link in a mail, or for a login that has to set a new password. Only
 * its hash is kept, and one for the same purpose and subject from before does not work any more once the transaction has
 * committed.
 *
 * @param withCommit of the same transaction: the row goes with the commit and is not waited for by itself
 */
export async function issueSingleUseToken(
  tx: Tx,
  { clock, random }: Pick<Deps, "clock" | "random">,
  { purpose, userId, subject, ttlMs, details = {} }: TokenRequest,
  withCommit?: WithCommit,
): Promise<string> {
  const now = clock.now();
  const token = random.token();
  const statement = replaceSingleUseToken(tx, {
    id: random.id(now),
    purpose,
    subject,
    tokenHash: hashSecret(token),
    userId,
    details,
    createdAt: now,
    expiresAt: new Date(now.getTime() + ttlMs),
  });
  if (withCommit) withCommit(statement);
  else await statement;
  return token;
}

/** What is known of a token that still works, without using it. */
export const lookAtSingleUseToken = (
  tx: Tx,
  { clock }: Pick<Deps, "clock">,
  token: string,
): Promise<SingleUseTokenRow | undefined> => findLiveToken(tx, hashSecret(token), clock.now());

/** What a token that was used up was for, and whom it was given to, with their row locked until the transaction ends. */
export interface Spent {
  readonly token: SingleUseTokenRow;
  readonly user: UserRow;
}

/**
 * Uses a token up, in the transaction of what it is for. Wrong, used, replaced, expired and for something else are one
 * answer. The user is locked before the token, as by whoever ends a user's tokens: else the two would block each other.
 *
 * @throws AppError LINK_INVALID
 */
export async function consumeSingleUseToken(
  tx: Tx,
  { clock }: Pick<Deps, "clock">,
  token: string,
  purposes: readonly TokenPurpose[],
): Promise<Spent> {
  const tokenHash = hashSecret(token);
  const now = clock.now();
  const seen = await findLiveToken(tx, tokenHash, now);
  const found = seen?.userId ? await lockUser(tx, seen.userId) : undefined;
  const spent = found && (await spendToken(tx, tokenHash, purposes, now));
  if (!found || !spent) throw new AppError("LINK_INVALID");
  return { token: spent, user: found.user };
}
