import type { Tx } from "../../../db/database.ts";
import { listLiveSessionIds, revokeSessions } from "../../../db/queries/sessions.ts";
import type { Caller, Deps } from "../../deps.ts";
import { audit } from "../audit/service.ts";

/**
 * The sessions that count towards `sessions.max_per_user`; none where that sets no limit. The user's row must be locked, so
 * that of several logins each counts what the others have made.
 */
export const sessionsCounted = async (
  tx: Tx,
  { settings, clock }: Pick<Deps, "settings" | "clock">,
  userId: string,
): Promise<string[]> => (settings.sessions.max_per_user === 0 ? [] : listLiveSessionIds(tx, userId, clock.now()));

/**
 * Makes room for one more session of a user, where `sessions.max_per_user` asks for it.
 *
 * @param counted the {@link sessionsCounted}, but for one that ends with the login anyway
 * @returns false where there is no room and none is made (`sessions.when_full` is "refuse"); then nothing was written
 */
export async function makeRoomForSession(
  tx: Tx,
  deps: Pick<Deps, "settings" | "clock" | "random">,
  userId: string,
  caller: Caller,
  counted: readonly string[],
): Promise<boolean> {
  const { max_per_user: most, when_full } = deps.settings.sessions;
  if (most === 0 || counted.length < most) return true;
  if (when_full === "refuse") return false;
  const oldest = counted.slice(0, counted.length - most + 1);
  for (const id of await revokeSessions(tx, { ids: oldest }, "session_limit", deps.clock.now())) {
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
