import { type AppError, ERRORS, type ErrorCode } from "../errors.ts";
import { pathOf } from "./context.ts";

/** Routes that speak OAuth: their bodies are forms, and their errors have its form. */
export const isOauthRequest = (request: Request): boolean => pathOf(request).startsWith("/oauth2/");

/** RFC 6749, section 5.2, with the id of the request beside it. */
export interface OauthErrorBody {
  readonly error: string;
  readonly error_description: string;
  readonly request_id: string;
}

/** How OAuth names what went wrong: RFC 6749, sections 5.2 and 4.1.2.1, where they have a name for it. */
const OAUTH_ERRORS: Partial<Record<ErrorCode, { readonly error: string; readonly description?: string }>> = {
  AUTH_INVALID_CREDENTIALS: { error: "invalid_client", description: "The client could not be authenticated" },
  UNSUPPORTED_MEDIA_TYPE: {
    error: "invalid_request",
    description: "The body must be a form (Content-Type: application/x-www-form-urlencoded)",
  },
  RATE_LIMIT_EXCEEDED: { error: "rate_limit_exceeded" },
  INTERNAL_SERVER_ERROR: { error: "server_error" },
  SERVICE_UNAVAILABLE: { error: "temporarily_unavailable" },
};

/** The name and the sentence of an error in OAuth's form. Whatever has no name of its own is a fault of the request. */
export function oauthErrorOf(code: ErrorCode): { readonly error: string; readonly description: string } {
  const { error = "invalid_request", description = ERRORS[code].message } = OAUTH_ERRORS[code] ?? {};
  return { error, description };
}

/** RFC 6749, section 5.2, lets no other characters into a description. */
const notInDescriptions = /[^\x20-\x21\x23-\x5b\x5d-\x7e]/g;

export function oauthErrorBody({ errorCode, details }: AppError, requestId: string): OauthErrorBody {
  const { error, description } = oauthErrorOf(errorCode);
  const reason = typeof details?.reason === "string" ? details.reason : description;
  return { error, error_description: reason.replace(notInDescriptions, "?"), request_id: requestId };
}
