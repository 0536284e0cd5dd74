import { createHash } from "node:crypto";
import type { ChainedEvent, Seal } from "../../../db/queries/audit-chain.ts";

/** What stands before the first link. */
export const GENESIS = "0".repeat(64);
/** Of what is hashed: another form would get another name. */
const FORM = "primer audit 1";

const sha256 = (...parts: readonly (string | Uint8Array)[]): string => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
};

/**
 * What the chain has of address and agent: it can be checked as long as they are there, and tells nothing once they and
 * the salt are gone.
 */
export const callerDigestOf = ({ caller_salt, ip, user_agent }: ChainedEvent): string | null =>
  caller_salt === null ? null : sha256(JSON.stringify([caller_salt, ip, user_agent]));

/** The hash of a link: SHA-256 of the one before and of the row, as a JSON array of texts in a fixed order. */
export function linkHash(before: string, seal: Omit<Seal, "hash">, event: ChainedEvent): string {
  const row = [
    ...[FORM, seal.seq, seal.sealed_through, event.number, event.id, event.time, event.action, event.outcome],
    ...[event.actor_kind, event.actor_id, event.subject_kind, event.subject_id, event.request_id, event.details],
    ...[event.caller_of, seal.caller_digest],
  ];
  return sha256(Buffer.from(before, "hex"), JSON.stringify(row));
}
