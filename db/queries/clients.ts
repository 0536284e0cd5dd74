import { and, desc, eq, inArray, isNotNull, isNull, lt } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import { clientSecrets, clients } from "../schema/clients.ts";

export type ClientRow = typeof clients.$inferSelect;
export type ClientSecretRow = typeof clientSecrets.$inferSelect;

export interface ClientWithSecrets {
  readonly client: ClientRow;
  /** Those that are kept; whether one still counts is told by its `expiresAt`. */
  readonly secrets: readonly ClientSecretRow[];
}

/** A client by id or name, with its secrets in one statement: first the one without an end (NULL sorts first). */
export async function findClient(
  tx: Tx,
  by: { id: string } | { name: string },
): Promise<ClientWithSecrets | undefined> {
  const rows = await tx
    .select({ client: clients, secret: clientSecrets })
    .from(clients)
    .leftJoin(clientSecrets, eq(clientSecrets.clientId, clients.id))
    .where("id" in by ? eq(clients.id, by.id) : eq(clients.name, by.name))
    .orderBy(desc(clientSecrets.expiresAt));
  const [first] = rows;
  return first && { client: first.client, secrets: rows.flatMap(({ secret }) => secret ?? []) };
}

/** Newest first, from after the id on: ids are in the order of time. */
export async function listClients(tx: Reader, page: { limit: number; after?: string }): Promise<ClientWithSecrets[]> {
  const rows = await tx
    .select()
    .from(clients)
    .where(page.after === undefined ? undefined : lt(clients.id, page.after))
    .orderBy(desc(clients.id))
    .limit(page.limit);
  if (rows.length === 0) return [];
  const ids = rows.map(({ id }) => id);
  const secrets = await tx
    .select()
    .from(clientSecrets)
    .where(inArray(clientSecrets.clientId, ids))
    .orderBy(desc(clientSecrets.expiresAt));
  return rows.map((client) => ({ client, secrets: secrets.filter(({ clientId }) => clientId === client.id) }));
}

/** Locks a client until the transaction ends, so that of several rotations at once each sees what the last one left. */
export const lockClient = (tx: Tx, id: string) =>
  tx.select({ id: clients.id }).from(clients).where(eq(clients.id, id)).for("update");

export const insertClient = (tx: Tx, row: typeof clients.$inferInsert) => tx.insert(clients).values(row);

export const insertClientSecret = (tx: Tx, row: typeof clientSecrets.$inferInsert) =>
  tx.insert(clientSecrets).values(row);

/** Lets the secret in use end then; one that was to end anyway is gone at once. */
export async function expireClientSecrets(tx: Tx, clientId: string, at: Date): Promise<void> {
  const own = eq(clientSecrets.clientId, clientId);
  await tx.delete(clientSecrets).where(and(own, isNotNull(clientSecrets.expiresAt)));
  await tx
    .update(clientSecrets)
    .set({ expiresAt: at })
    .where(and(own, isNull(clientSecrets.expiresAt)));
}

/** @returns what was deleted, its secrets with it; undefined where there was nothing */
export async function deleteClient(tx: Tx, id: string): Promise<ClientRow | undefined> {
  const [row] = await tx.delete(clients).where(eq(clients.id, id)).returning();
  return row;
}
