import type { Tx } from "../../../db/database.ts";
import { deleteOldestDevices, findDevice, type KnownDeviceRow, upsertDevice } from "../../../db/queries/devices.ts";
import type { Caller, Deps } from "../../deps.ts";
import { hashSecret } from "../tokens/service.ts";

/** Nobody's: it is looked for all the same, so that time does not tell whether there is an account. */
const NOBODY = "00000000-0000-0000-0000-000000000000";

/** The device of a user that shows this token; undefined where it is none of theirs, or there is no such user. */
export const findKnownDevice = async (
  deps: Pick<Deps, "db">,
  userId: string | undefined,
  token: string | undefined,
): Promise<KnownDeviceRow | undefined> =>
  token === undefined ? undefined : findDevice(deps.db.orm, userId ?? NOBODY, hashSecret(token));

/** Devices that are remembered of one user; of more, those that were seen longest ago are forgotten. */
const MAX_DEVICES = 20;

/** Remembers the device of a login that was right, by the token that it will show the next time. */
export async function rememberDevice(
  tx: Tx,
  deps: Pick<Deps, "clock" | "random">,
  userId: string,
  token: string,
  caller: Caller,
): Promise<void> {
  const now = deps.clock.now();
  await upsertDevice(tx, {
    id: deps.random.id(now),
    userId,
    tokenHash: hashSecret(token),
    createdAt: now,
    lastSeenAt: now,
    userAgent: caller.userAgent,
    ip: caller.ip,
  });
  await deleteOldestDevices(tx, userId, MAX_DEVICES);
}
