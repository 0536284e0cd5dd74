/** Every error code that the API can answer, with its status and the message that people read. */
export const ERRORS = {
  VALIDATION_FAILED: { status: 422, message: "Some fields are missing or not as expected" },
  BAD_REQUEST: { status: 400, message: "The request cannot be understood" },
  PAYLOAD_TOO_LARGE: { status: 413, message: "The request body is too large" },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, message: "The body must be JSON (Content-Type: application/json)" },
  AUTH_INVALID_CREDENTIALS: { status: 401, message: "Invalid username or password" },
  AUTH_TOKEN_MISSING: { status: 401, message: "A bearer token is required" },
  AUTH_TOKEN_INVALID: { status: 401, message: "The token is not valid" },
  AUTH_TOKEN_EXPIRED: { status: 401, message: "The token has expired" },
  AUTH_TOKEN_REVOKED: { status: 401, message: "The session has ended" },
  AUTH_REFRESH_REUSED: { status: 401, message: "The refresh token was used before; the session has ended" },
  AUTH_ACCOUNT_DISABLED: { status: 403, message: "This account is disabled" },
  AUTH_EMAIL_NOT_VERIFIED: { status: 403, message: "The e-mail address of this account is not verified yet" },
  CSRF_REJECTED: { status: 403, message: "This request did not come from a page that may send it" },
  AUTH_PASSWORD_CHANGE_REQUIRED: { status: 403, message: "Set a new password first" },
  AUTH_STEP_UP_REQUIRED: { status: 403, message: "Prove who you are again" },
  FORBIDDEN: { status: 403, message: "You may not do this" },
  NOT_FOUND: { status: 404, message: "There is nothing here" },
  METHOD_NOT_ALLOWED: { status: 405, message: "This method is not allowed here" },
  SESSION_LIMIT_REACHED: {
    status: 409,
    message: "You are logged in as often as you may be; log out somewhere else first",
  },
  PRECONDITION_FAILED: { status: 412, message: "This was changed meanwhile" },
  LINK_INVALID: { status: 400, message: "This link is not valid any more" },
  CONFLICT: { status: 409, message: "This exists already" },
  PASSWORD_TOO_WEAK: { status: 422, message: "The password is too weak" },
  RATE_LIMIT_EXCEEDED: { status: 429, message: "Too many requests; try again later" },
  INTERNAL_SERVER_ERROR: { status: 500, message: "Something went wrong on our side" },
  SERVICE_UNAVAILABLE: { status: 503, message: "The service cannot answer now; try again shortly" },
} as const;

export type ErrorCode = keyof typeof ERRORS;

interface AppErrorParts {
  /** For the log only: what really happened. */
  readonly internal?: string;
  /** For the caller: what helps to mend the request. */
  readonly details?: Readonly<Record<string, unknown>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
}

/** What services throw. The one root handler turns it into the envelope; `internal` and `cause` go to the log alone. */
export class AppError extends Error {
  readonly internal: string | undefined;
  readonly details: Readonly<Record<string, unknown>> | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    readonly errorCode: ErrorCode,
    parts: AppErrorParts = {},
  ) {
    super(parts.internal ?? errorCode, { cause: parts.cause });
    this.name = "AppError";
    this.internal = parts.internal;
    this.details = parts.details;
    this.headers = parts.headers ?? {};
  }
}

/** 422 for one field: where it is, and what was expected there. */
export const invalidField = (path: string, message: string) =>
  new AppError("VALIDATION_FAILED", { details: { fields: [{ path, message }] } });

/** 503 with Retry-After in whole seconds. */
export const unavailable = (internal: string, cause?: unknown, retryAfterSeconds = 1) =>
  new AppError("SERVICE_UNAVAILABLE", { internal, cause, headers: { "retry-after": String(retryAfterSeconds) } });

/** 429 with the seconds after which the next request is let through, rounded up: to wait exactly that long is enough. */
export function rateLimited(waitMs: number, limit: number): AppError {
  const seconds = String(Math.max(1, Math.ceil(waitMs / 1000)));
  const headers = {
    "retry-after": seconds,
    "ratelimit-limit": String(limit),
    "ratelimit-remaining": "0",
    "ratelimit-reset": seconds,
  };
  return new AppError("RATE_LIMIT_EXCEEDED", { headers });
}
