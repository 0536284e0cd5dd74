import { revokeSessions } from "../../../db/queries/sessions.ts";
import type { Caller, Deps } from "../../deps.ts";
import { audit } from "../audit/service.ts";
import { consumeSingleUseToken } from "../tokens/service.ts";

/**
 * Ends the session that a mail told its owner of, by the link in it.
 *
 * @throws AppError LINK_INVALID
 */
export async function endSessionByLink(deps: Deps, token: string, caller: Caller): Promise<void> {
  await deps.db.change(async (tx) => {
    const { token: spent, user } = await consumeSingleUseToken(tx, deps, token, ["end_session"]);
    const [userId, sessionId] = [user.id, spent.subject ?? ""];
    const ended = await revokeSessions(tx, { id: sessionId, userId }, "ended_by_link", deps.clock.now());
    await audit(tx, deps, {
      action: "session.revoked",
      outcome: "success",
      actor: { kind: "user", id: userId },
      subject: { kind: "session", id: sessionId },
      details: { reason: "ended_by_link", sessions_ended: ended.length },
      caller,
    });
  });
}
