import type { Tx } from "../../../db/database.ts";
import { listLiveSessionIds, revokeSessions } from "../../../db/queries/sessions.ts";
import type { Caller, Deps } from "../../deps.ts";
import { audit } from "../audit/service.ts";

/**
 * Makes room for one more session of a user, where `sessions.max_per_user` asks for it. The user's row must be locked, so
 * that of several logins each counts what the others have made.
 *
 * @param replacedId the session that ends with the login anyway
 * @returns false where there is no room and none is made (`sessions.when_full` is "refuse"); then nothing was written
 */
export async function makeRoomForSession(
  tx: Tx,
  deps: Pick<Deps, "settings" | "clock" | "random">,
  userId: string,
  caller: Caller,
  replacedId?: string,
): Promise<boolean> {
  const { max_per_user: most, when_full } = deps.settings.sessions;
  if (most === 0) return true;
  const now = deps.clock.now();
  const live = (await listLiveSessionIds(tx, userId, now)).filter((id) => id !== replacedId);
  if (live.length < most) return true;
  if (when_full === "refuse") return false;
  const oldest = live.slice(0, live.length - most + 1);
  for (const id of await revokeSessions(tx, { ids: oldest }, "session_limit", now)) {
    await audit(tx, deps, {
      action: "session.revoked",
      outcome: "success",
      actor: { kind: "system" },
      subject: { kind: "session", id },
      caller,
      details: { reason: "session_limit", user_id: userId, sessions_ended: 1 },
    });
  }
  return true;
}
