import { codeOf } from "../config/errors.ts";

const CONNECTION_CODES = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ENOENT",
  "QUERY_DEADLINE",
  "CONNECT_TIMEOUT",
  "CONNECTION_CLOSED",
  "CONNECTION_DESTROYED",
  "CONNECTION_ENDED",
]);

/** SQLSTATEs of a server that is there and cannot serve now: shutting down, out of connections or disk, timed out, locked. */
const UNAVAILABLE_STATES = /^(08|40|53|57|58)|^(55P03|25006)$/;

/** Codes of a connection to a server whose certificate is not believed, or not any more. */
const CERTIFICATE_CODES = /^(ERR_TLS|CERT|UNABLE_TO|SELF_SIGNED|DEPTH_ZERO)_/;

/** What the embedded database throws, without a code, once it is closed. */
const EMBEDDED_GONE = /^PGlite is clos(ed|ing)/;

/** Whether an error says that the database cannot serve now, as opposed to that the statement was wrong. */
export function isConnectionError(error: unknown): boolean {
  for (let cause: unknown = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    const code = codeOf(cause) ?? "";
    if (EMBEDDED_GONE.test(cause.message)) return true;
    if (CONNECTION_CODES.has(code) || UNAVAILABLE_STATES.test(code) || CERTIFICATE_CODES.test(code)) return true;
  }
  return false;
}

/** The name of the unique constraint that an insert or update ran into, where it was that. */
export function violatedUniqueness(error: unknown): string | undefined {
  for (let cause: unknown = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    if (codeOf(cause) !== "23505") continue;
    const { constraint, constraint_name } = cause as { constraint?: string; constraint_name?: string };
    return constraint ?? constraint_name;
  }
  return undefined;
}
