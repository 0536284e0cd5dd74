import type { ClientRow } from "../../../db/queries/clients.ts";
import { revokeSessions } from "../../../db/queries/sessions.ts";
import type { Caller, Deps } from "../../deps.ts";
import { audit } from "../audit/service.ts";
import { sessionOfAccessToken, sessionOfRefreshToken } from "../auth/service.ts";
import { assertRoom, takeRoom } from "../protection/service.ts";
import { looksLikeRefreshToken, unlessNotGood } from "./token-kind.ts";

/**
 * Ends the session of a token, with everything that belongs to it (RFC 7009). A refresh token of an earlier generation
 * and an expired access token will do: whoever lost the newest one must still be able to end it. A token that names no
 * session is as good as revoked.
 *
 * @throws AppError RATE_LIMIT_EXCEEDED where the client has sent too many that name no session
 */
export async function revoke(deps: Deps, client: ClientRow, token: string, caller: Caller): Promise<void> {
  await assertRoom(deps, "introspect_failed", client.id);
  const find = looksLikeRefreshToken(token) ? sessionOfRefreshToken : sessionOfAccessToken;
  const found = await unlessNotGood(find(deps, token));
  if (!found) return takeRoom(deps, "introspect_failed", client.id);
  await deps.db.change(async (tx) => {
    const ended = await revokeSessions(tx, { id: found.session.id }, "revoked_by_client", deps.clock.now());
    if (ended.length === 0) return;
    await audit(tx, deps, {
      action: "session.revoked",
      outcome: "success",
      actor: { kind: "client", id: client.id },
      subject: { kind: "session", id: found.session.id },
      caller,
      details: { user_id: found.user.id, reason: "revoked_by_client" },
    });
  });
}
