import { findRefreshFamily, findSession, revokeSessions, type SessionWithUser } from "../../../db/queries/sessions.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { audit } from "../audit/service.ts";
import { openRefreshToken, verifyAccessToken } from "../tokens/service.ts";
import { bearerToken, isAlive } from "./authenticate.ts";
import { decide } from "./refresh.ts";

type Found = Pick<SessionWithUser, "session" | "user">;

export interface LogoutInput {
  readonly refresh_token?: string;
  /**
   * End every session of the user, not only this one. That takes proof that still counts: by a refresh token that could
   * not be used any more, only its own session ends, and by what belongs to a session that has ended, nothing more.
   */
  readonly all?: boolean;
}

/**
 * Ends the session that a refresh token or else a bearer token belongs to. What proves it may be past its time: whoever
 * wants to leave is let go. Its access token is dead with it. Doing it twice is no error.
 *
 * @throws AppError AUTH_TOKEN_MISSING or AUTH_TOKEN_INVALID where neither names a session
 */
export async function logout(
  deps: Deps,
  input: LogoutInput,
  authorization: string | null,
  caller: Caller,
): Promise<void> {
  const meant = await sessionMeant(deps, input, authorization);
  const { id: sessionId, userId } = meant.session;
  await deps.db.change(async (tx) => {
    const which = input.all && meant.counts ? { userId } : { id: sessionId };
    const ended = await revokeSessions(tx, which, "logout", deps.clock.now());
    if (ended.length === 0) return;
    await audit(tx, deps, {
      action: "logout",
      outcome: "success",
      actor: { kind: "user", id: userId },
      subject: { kind: "session", id: sessionId },
      caller,
      details: { sessions_ended: ended.length },
    });
  });
}

/** What a proof names, and whether it still counts. */
async function sessionMeant(
  deps: Deps,
  { refresh_token }: LogoutInput,
  authorization: string | null,
): Promise<Found & { counts: boolean }> {
  if (refresh_token === undefined) {
    const found = await sessionOfAccessToken(deps, bearerToken(authorization));
    return { ...found, counts: isAlive(deps, found) };
  }
  const { found, pointer } = await openFamily(deps, refresh_token);
  const decision = decide(deps, found, pointer);
  return { ...found, counts: decision === "rotate" || decision === "repeat" };
}

async function openFamily(deps: Deps, token: string) {
  const pointer = await openRefreshToken(deps, token);
  const found = await findRefreshFamily(deps.db.orm, pointer.familyId);
  if (!found) throw new AppError("AUTH_TOKEN_INVALID");
  return { found, pointer };
}

/** The session that a refresh token of any generation was made for, ended or not. @throws AppError AUTH_TOKEN_INVALID */
export const sessionOfRefreshToken = async (deps: Deps, token: string): Promise<Found> =>
  (await openFamily(deps, token)).found;

/** The session that an access token, expired or not, was made for, ended or not. @throws AppError AUTH_TOKEN_INVALID */
export async function sessionOfAccessToken(deps: Deps, token: string): Promise<Found> {
  const claims = await verifyAccessToken(deps, token, { acceptExpired: true });
  const found = await findSession(deps.db.orm, claims.sid);
  if (!found || found.user.id !== claims.sub) throw new AppError("AUTH_TOKEN_INVALID");
  return found;
}
