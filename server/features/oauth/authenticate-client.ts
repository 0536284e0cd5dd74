import type { ClientRow } from "../../../db/queries/clients.ts";
import { addressKey } from "../../address-key.ts";
import type { Caller, Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { isId } from "../../ports/random.ts";
import { auditRefusal } from "../audit/service.ts";
import { verifyClient } from "../clients/service.ts";
import { assertRoom, takeRoom } from "../protection/service.ts";

export interface ClientCredentials {
  readonly id: string;
  readonly secret: string;
}

/**
 * The registered client that sent a request (RFC 6749, section 2.3). Missing, unknown and wrong are one answer. Failures
 * are limited by address.
 *
 * @param staleMs how old what is known of the client may be where the database cannot be reached
 * @throws AppError AUTH_INVALID_CREDENTIALS or RATE_LIMIT_EXCEEDED
 */
export async function authenticateClient(
  deps: Deps,
  credentials: ClientCredentials | undefined,
  caller: Caller,
  staleMs = 0,
): Promise<ClientRow> {
  const address = addressKey(caller.ip);
  await assertRoom(deps, "client_failed", address);
  const client = credentials && (await verifyClient(deps, credentials.id, credentials.secret, staleMs));
  if (client) return client;
  deps.log.info("A service client was refused", {
    event: "client.refused",
    client_id: credentials && isId(credentials.id) ? credentials.id : null,
    request_id: caller.requestId,
    ip: caller.ip,
  });
  await takeRoom(deps, "client_failed", address);
  if (credentials && isId(credentials.id)) {
    const subject = { kind: "client", id: credentials.id };
    await auditRefusal(deps, { action: "client.refused", actor: { kind: "anonymous" }, subject, caller });
  }
  throw new AppError("AUTH_INVALID_CREDENTIALS", { internal: "The client could not be authenticated" });
}
