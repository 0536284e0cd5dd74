import type { ClientCredentials } from "../features/oauth/service.ts";
import { badRequest } from "./body.ts";
import { decodeFormText, type Form } from "./form.ts";

/**
 * What a client authenticates with (RFC 6749, section 2.3.1): HTTP Basic, both parts form-encoded, or client_id and
 * client_secret in the form. Undefined where there is neither, or nothing that could be right.
 *
 * @throws AppError BAD_REQUEST where a request uses both ways
 */
export function clientCredentials(authorization: string | null, form: Form): ClientCredentials | undefined {
  const [id, secret] = [form.get("client_id"), form.get("client_secret")];
  if (authorization === null) return id !== undefined && secret !== undefined ? { id, secret } : undefined;
  if (secret !== undefined) throw badRequest("The client authenticates in two ways");
  const basic = basicCredentials(authorization);
  if (basic && id !== undefined && id !== basic.id) throw badRequest("The client names itself in two ways");
  return basic;
}

/** RFC 7617, with the parts encoded as OAuth asks. */
function basicCredentials(authorization: string): ClientCredentials | undefined {
  const encoded = /^Basic +([A-Za-z0-9+/]+={0,2}) *$/i.exec(authorization)?.[1];
  const text = encoded === undefined ? "" : Buffer.from(encoded, "base64").toString("utf8");
  const colon = text.indexOf(":");
  if (colon < 0) return undefined;
  const [id, secret] = [decodeFormText(text.slice(0, colon)), decodeFormText(text.slice(colon + 1))];
  return id !== undefined && secret !== undefined ? { id, secret } : undefined;
}
