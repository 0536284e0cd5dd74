import type { Tx } from "../../../db/database.ts";
import { findDevice, type KnownDeviceRow, upsertDevice } from "../../../db/queries/devices.ts";
import type { Caller, Deps } from "../../deps.ts";
import { hashSecret } from "../tokens/service.ts";

/** The device of a user that shows this token; undefined where it is none of theirs. */
export const findKnownDevice = async (
  deps: Pick<Deps, "db">,
  userId: string,
  token: string | undefined,
): Promise<KnownDeviceRow | undefined> =>
  token === undefined ? undefined : findDevice(deps.db.orm, userId, hashSecret(token));

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
}
