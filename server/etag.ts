import { createHash } from "node:crypto";
import { AppError } from "./errors.ts";

/** The entity tag of something in the form in which it is answered (RFC 9110, section 8.8.3). */
export const etagOf = (content: string): string =>
  `"${createHash("sha256").update(content).digest("base64url").slice(0, 22)}"`;

/** Whether an If-None-Match header names this tag (RFC 9110, section 13.1.2): a list, compared weakly. */
export const matchesEtag = (header: string | null, etag: string): boolean =>
  header?.split(",").some((tag) => tag.trim() === "*" || tag.trim().replace(/^W\//, "") === etag) ?? false;

/**
 * Refuses a change to something that is not any more as the caller knew it (RFC 9110, section 13.1.1). Look at it in the
 * transaction of the change, with the row locked.
 *
 * @param ifMatch the If-Match header; null where the caller does not mind
 * @throws AppError PRECONDITION_FAILED
 */
export function assertUnchanged(ifMatch: string | null, current: object): void {
  if (ifMatch === null) return;
  const etag = etagOf(JSON.stringify(current));
  const tags = ifMatch.split(",").map((tag) => tag.trim());
  if (!tags.includes("*") && !tags.includes(etag)) throw new AppError("PRECONDITION_FAILED");
}
