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

/** What a breaker refuses with; it says nothing new about the database. */
const BREAKER_OPEN = "BREAKER_OPEN";

/** SQLSTATEs of a server that is there and cannot serve now: shutting down, out of connections or disk, timed out, locked. */
const UNAVAILABLE_STATES = /^(08|40|53|57|58)|^(55P03|25006)$/;

/** Codes of a connection to a server whose certificate is not believed, or not any more. */
const CERTIFICATE_CODES = /^(ERR_TLS|CERT|UNABLE_TO|SELF_SIGNED|DEPTH_ZERO)_/;

/** SQLSTATEs of a server that takes no connection or ends it, whatever is asked of it. */
const UNREACHABLE_STATES = /^08|^57P0[123]$|^53300$/;

/** SQLSTATEs of a transaction that lost against another one, was undone, and may succeed if it is run again. */
const LOST_STATES = new Set(["40001", "40P01"]);

/** SQLSTATEs of a prepared statement that the server has forgotten (DISCARD ALL), or whose answer would be another one now. */
const FORGOTTEN_STATES = new Set(["26000", "0A000"]);

/** What the embedded database throws, without a code, once it is closed. */
const EMBEDDED_GONE = /^PGlite is clos(ed|ing)/;

/** An error and what caused it, as far down as that is of use. */
function* causesOf(error: unknown): Generator<{ cause: Error; code: string }> {
  for (let cause: unknown = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    yield { cause, code: codeOf(cause) ?? "" };
  }
}

const anyCause = (error: unknown, fits: (code: string, cause: Error) => boolean): boolean =>
  causesOf(error).some(({ code, cause }) => fits(code, cause));

/** Whether an error says that the database cannot serve now, as opposed to that the statement was wrong. */
export const isConnectionError = (error: unknown): boolean =>
  anyCause(
    error,
    (code, { message }) =>
      EMBEDDED_GONE.test(message) ||
      CONNECTION_CODES.has(code) ||
      code === BREAKER_OPEN ||
      UNAVAILABLE_STATES.test(code) ||
      CERTIFICATE_CODES.test(code),
  );

/**
 * Whether an error says that there is no way to the server, or that it does not answer: of what {@link isConnectionError}
 * names, all that has nothing to do with what was asked.
 */
export const isUnreachable = (error: unknown): boolean =>
  anyCause(
    error,
    (code) => CONNECTION_CODES.has(code) || CERTIFICATE_CODES.test(code) || UNREACHABLE_STATES.test(code),
  );

/** Whether the server does not know a prepared statement any more, or not in the form in which it was prepared. */
export const isForgotten = (error: unknown): boolean => anyCause(error, (code) => FORGOTTEN_STATES.has(code));

/**
 * Whether a transaction was undone and may succeed if it is run again: for the sake of another one (a deadlock, or a failure
 * to serialize), or for a statement that was forgotten.
 */
export const isLostTransaction = (error: unknown): boolean =>
  anyCause(error, (code) => LOST_STATES.has(code)) || isForgotten(error);

/** Whether a statement waited too long for what another transaction holds. */
export const isLockTimeout = (error: unknown): boolean => anyCause(error, (code) => code === "55P03");

/** The name of the unique constraint that an insert or update ran into, where it was that. */
export function violatedUniqueness(error: unknown): string | undefined {
  for (const { cause, code } of causesOf(error)) {
    if (code !== "23505") continue;
    const { constraint, constraint_name } = cause as { constraint?: string; constraint_name?: string };
    return constraint ?? constraint_name;
  }
  return undefined;
}
