import { eq, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import { knownDevices } from "../schema/logins.ts";

/** Remembers a device; one that is known is seen again. */
export const upsertDevice = (tx: Tx, row: typeof knownDevices.$inferInsert) =>
  tx
    .insert(knownDevices)
    .values(row)
    .onConflictDoUpdate({
      target: [knownDevices.userId, knownDevices.tokenHash],
      set: { lastSeenAt: row.lastSeenAt, userAgent: row.userAgent ?? null, ip: row.ip ?? null },
    });

/** Forgets all devices of a user but those that were seen last. */
export const deleteOldestDevices = (tx: Tx, userId: string, keep: number) =>
  tx.delete(knownDevices).where(
    sql`${knownDevices.id} IN (
      SELECT id FROM known_devices WHERE user_id = ${userId} ORDER BY last_seen_at DESC, id DESC OFFSET ${keep}
    )`,
  );

/** All devices of a user that are known, for themselves. */
export const listDevicesOf = (tx: Reader, userId: string) =>
  tx
    .select({
      user_agent: knownDevices.userAgent,
      ip: knownDevices.ip,
      created_at: knownDevices.createdAt,
      last_seen_at: knownDevices.lastSeenAt,
    })
    .from(knownDevices)
    .where(eq(knownDevices.userId, userId));

export const deleteDevicesOf = (tx: Tx, userId: string) =>
  tx.delete(knownDevices).where(eq(knownDevices.userId, userId));
