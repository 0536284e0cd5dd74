import type { Statement, Tx } from "../../../db/database.ts";
import { deleteOldestDevices, upsertDevice } from "../../../db/queries/devices.ts";
import type { Caller, Deps } from "../../deps.ts";
import { hashSecret } from "../tokens/service.ts";

/** Devices that are remembered of one user; of more, those that were seen longest ago are forgotten. */
const MAX_DEVICES = 20;

/** What remembers the device of a login that was right, by the token that it will show the next time. */
export function rememberDevice(
  tx: Tx,
  { clock, random }: Pick<Deps, "clock" | "random">,
  userId: string,
  token: string,
  { userAgent, ip }: Caller,
): Statement[] {
  const now = clock.now();
  const seen = { createdAt: now, lastSeenAt: now, userAgent, ip };
  return [
    upsertDevice(tx, { id: random.id(now), userId, tokenHash: hashSecret(token), ...seen }),
    deleteOldestDevices(tx, userId, MAX_DEVICES),
  ];
}
