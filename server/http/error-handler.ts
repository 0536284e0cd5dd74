import { NotFoundError, ParseError, ValidationError } from "elysia";
import { isConnectionError } from "../../db/errors.ts";
import type { Deps } from "../deps.ts";
import { AppError, ERRORS, type ErrorCode, unavailable } from "../errors.ts";
import { contextOf, loggedPathOf } from "./context.ts";
import { isOauthRequest, type OauthErrorBody, oauthErrorBody } from "./oauth.ts";

export interface ErrorEnvelope {
  readonly error: {
    readonly code: ErrorCode;
    readonly message: string;
    readonly timestamp: string;
    readonly request_id: string;
    readonly details?: Readonly<Record<string, unknown>>;
  };
}

/** What of a failed request is answered: the envelope or OAuth's form, its status, and headers that belong to it. */
export interface ErrorAnswer {
  readonly status: number;
  readonly body: ErrorEnvelope | OauthErrorBody;
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * The one place where whatever was thrown becomes an answer. What is not an AppError is a 500 that says nothing but the
 * request id; the log has the rest.
 */
export function answerError(deps: Deps, thrown: unknown, request: Request): ErrorAnswer {
  const error = asAppError(deps, thrown);
  const { status, message } = ERRORS[error.errorCode];
  const { requestId } = contextOf(request);
  if (status >= 500) {
    deps.log[status === 500 ? "error" : "warn"](status === 500 ? "A request failed" : "A request could not be served", {
      event: status === 500 ? "request.failed" : "request.unavailable",
      request_id: requestId,
      method: request.method,
      path: loggedPathOf(request),
      error,
    });
  }
  if (isOauthRequest(request)) {
    const headers = { ...(status === 401 ? CLIENT_CHALLENGE : {}), ...error.headers };
    return { status, headers, body: oauthErrorBody(error, requestId) };
  }
  return {
    status,
    headers: { ...challenge(error.errorCode), ...error.headers },
    body: {
      error: {
        code: error.errorCode,
        message,
        timestamp: deps.clock.now().toISOString(),
        request_id: requestId,
        ...(error.details ? { details: error.details } : {}),
      },
    },
  };
}

/** Whoever is refused is sent back after one to this many seconds, by chance: not all come again in the same moment. */
const MAX_RETRY_AFTER_SECONDS = 5;

function asAppError({ random }: Deps, thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  if (thrown instanceof ParseError && thrown.cause instanceof AppError) return thrown.cause;
  if (thrown instanceof ValidationError)
    return new AppError("VALIDATION_FAILED", { details: { fields: fieldsOf(thrown) } });
  if (thrown instanceof NotFoundError) return new AppError("NOT_FOUND");
  if (isConnectionError(thrown)) {
    const retryAfterSeconds = 1 + ((random.bytes(1)[0] ?? 0) % MAX_RETRY_AFTER_SECONDS);
    return unavailable("The database cannot serve now", thrown, retryAfterSeconds);
  }
  return new AppError("INTERNAL_SERVER_ERROR", { cause: thrown });
}

/** Path and expectation of each fault; never the value, which may be a password. */
function fieldsOf(error: ValidationError): { path: string; message: string }[] {
  const fields = new Map<string, string>();
  for (const fault of error.all) {
    const { path, message, schema } = fault as { path?: string; message?: string; schema?: { error?: unknown } };
    const name = (path ?? "").replace(/^\//, "").replaceAll("/", ".");
    const text = typeof schema?.error === "string" ? schema.error : (message ?? "Not as expected");
    if (!fields.has(name)) fields.set(name, text);
  }
  return [...fields].map(([path, message]) => ({ path, message }));
}

/** RFC 6750, section 3: which challenge goes with which error. */
const CHALLENGES: Partial<Record<ErrorCode, string>> = {
  AUTH_TOKEN_MISSING: "Bearer",
  AUTH_TOKEN_INVALID: 'Bearer error="invalid_token"',
  AUTH_TOKEN_EXPIRED: 'Bearer error="invalid_token", error_description="The token has expired"',
  AUTH_TOKEN_REVOKED: 'Bearer error="invalid_token", error_description="The session has ended"',
  AUTH_REFRESH_REUSED: 'Bearer error="invalid_token"',
  FORBIDDEN: 'Bearer error="insufficient_scope"',
};

/** RFC 6749, section 5.2: how a client could have authenticated. */
const CLIENT_CHALLENGE = { "www-authenticate": 'Basic realm="primer"' };

function challenge(code: ErrorCode): Record<string, string> {
  const value = CHALLENGES[code];
  return value ? { "www-authenticate": value } : {};
}
