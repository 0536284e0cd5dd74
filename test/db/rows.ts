import type { Tx } from "../../db/database.ts";
import { insertRefreshFamily, insertSession } from "../../db/queries/sessions.ts";
import type { refreshFamilies, sessions } from "../../db/schema/sessions.ts";
/** Rows as tests of the database need them: whole, and unlike any other unless told so. */
import type { credentials, users } from "../../db/schema/users.ts";
import { systemRandom } from "../../server/ports/random.ts";

export const NOW = new Date("2026-03-01T12:00:00.000Z");
export const later = (ms: number) => new Date(NOW.getTime() + ms);
export const newId = () => systemRandom.id(NOW);

let made = 0;

export function userRow(given: Partial<typeof users.$inferInsert>) {
  const username = `user${++made}`;
  return {
    id: newId(),
    username,
    email: `${username}@example.test`,
    emailKey: `${username}@example.test`,
    status: "active" as const,
    createdAt: NOW,
    updatedAt: NOW,
    ...given,
  };
}

export const credentialRow = (userId: string, kind: string): typeof credentials.$inferInsert => ({
  id: newId(),
  userId,
  kind,
  secret: "$argon2id$made-up",
  createdAt: NOW,
  updatedAt: NOW,
});

export const signingKeyRow = (state: "next" | "active" | "retiring" | "retired") => ({
  id: newId(),
  kid: `kid${++made}`,
  algorithm: "RS256",
  state,
  publicJwk: { kty: "RSA" },
  sealedPrivateKey: "sealed",
  createdAt: NOW,
});

export const secretKeyRow = (purpose: string, state: "active" | "retiring") => ({
  id: newId(),
  purpose,
  keyId: `key${++made}`,
  state,
  sealedKey: "sealed",
  createdAt: NOW,
});

/** A session of a user with its refresh family at generation 1. */
export function sessionRows(userId: string) {
  const session = {
    id: newId(),
    userId,
    clientId: "primer",
    amr: ["pwd"],
    authTime: NOW,
    createdAt: NOW,
    lastSeenAt: NOW,
    expiresAt: later(86_400_000),
  };
  const family = {
    id: newId(),
    sessionId: session.id,
    generation: 1,
    keyId: "key",
    secretHash: "hash1",
    createdAt: NOW,
    rotatedAt: NOW,
    idleExpiresAt: later(3_600_000),
  };
  return { session, family };
}

/** A session with its family, both in the transaction or on the database that is given. */
export async function insertSessionRows(
  tx: Tx,
  session: typeof sessions.$inferInsert,
  family: typeof refreshFamilies.$inferInsert,
): Promise<void> {
  await insertSession(tx, session);
  await insertRefreshFamily(tx, family);
}
