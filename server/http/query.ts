import { AppError } from "../errors.ts";

/** Secrets in a URL end up in logs and histories, so they are refused there. */
const FORBIDDEN_PARAMETERS = new Set(["access_token", "api_key", "refresh_token", "password", "token"]);

/** @throws AppError BAD_REQUEST where a query parameter stands twice or carries a secret */
export function assertPlainQuery(url: string): void {
  const start = url.indexOf("?");
  if (start < 0) return;
  const seen = new Set<string>();
  for (const [name] of new URLSearchParams(url.slice(start + 1))) {
    const reason = FORBIDDEN_PARAMETERS.has(name)
      ? `${name} is never accepted in a URL`
      : seen.has(name)
        ? `${name} is given twice`
        : undefined;
    if (reason) throw new AppError("BAD_REQUEST", { internal: reason, details: { reason } });
    seen.add(name);
  }
}
