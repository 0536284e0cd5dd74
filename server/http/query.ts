import { AppError } from "../errors.ts";
import { pathOf } from "./context.ts";

/** Secrets in a URL end up in logs and histories, so they are refused there. */
const FORBIDDEN_PARAMETERS = new Set([
  "access_token",
  "api_key",
  "refresh_token",
  "password",
  "token",
  "client_secret",
]);

/** Gateways turn a 400 into a 500, so this route answers an unusable query itself, with 403. */
const ANSWERS_GATEWAYS = "/api/v1/auth/verify";

/** What is wrong with the query of a URL: a parameter that stands twice or carries a secret. */
export function queryFault(url: string): string | undefined {
  const start = url.indexOf("?");
  if (start < 0) return undefined;
  const seen = new Set<string>();
  for (const [name] of new URLSearchParams(url.slice(start + 1))) {
    if (FORBIDDEN_PARAMETERS.has(name)) return `${name} is never accepted in a URL`;
    if (seen.has(name)) return `${name} is given twice`;
    seen.add(name);
  }
  return undefined;
}

/** @throws AppError BAD_REQUEST where the query has a fault and the route does not see to it itself */
export function assertPlainQuery(request: Request): void {
  const reason = queryFault(request.url);
  if (reason === undefined || pathOf(request) === ANSWERS_GATEWAYS) return;
  throw new AppError("BAD_REQUEST", { internal: reason, details: { reason } });
}
