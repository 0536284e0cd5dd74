import type { ClientRow } from "../../../db/queries/clients.ts";
import type { Deps } from "../../deps.ts";
import { isId } from "../../ports/random.ts";
import { fitsHash } from "../tokens/service.ts";

/**
 * The client that an id and one of its secrets belong to; undefined where either is wrong. A secret is 256 bits of
 * chance, so one fast hash of it is as good as a slow one.
 *
 * @param staleMs how old what is known of the client may be where the database cannot be reached
 */
export async function verifyClient(
  deps: Pick<Deps, "db" | "clients" | "clock">,
  id: string,
  secret: string,
  staleMs = 0,
): Promise<ClientRow | undefined> {
  const known = isId(id) ? await deps.clients.find(deps.db.orm, id, staleMs) : undefined;
  const now = deps.clock.now();
  const valid = known?.secrets.filter(({ expiresAt }) => expiresAt === null || now < expiresAt) ?? [];
  return valid.some(({ secretHash }) => fitsHash(secret, secretHash)) ? known?.client : undefined;
}
