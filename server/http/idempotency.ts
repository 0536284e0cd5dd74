import { invalidField } from "../errors.ts";
import type { KeyedRequest } from "../features/idempotency/service.ts";
import type { Principal } from "../features/rights/service.ts";
import { pathOf } from "./context.ts";

const HEADER = "Idempotency-Key";
/** A string as structured fields have it (RFC 9651, section 3.3.3): what the draft asks for. */
const QUOTED = /^"((?:[ !#-[\]-~]|\\["\\])*)"$/;
const VISIBLE = /^[!-~]{1,255}$/;

/** As a route declares it. */
export const KEY_PARAMETER = {
  in: "header",
  name: HEADER,
  required: false,
  description:
    "1 to 255 visible ASCII characters, with or without double quotes around them, such as a UUID: sent again within 24 h with the same request, it is not done again, and the answer is the same. With another request: 422.",
  schema: { type: "string", maxLength: 512 },
} as const;

/**
 * A request with the key that it came with; undefined where it has none. Quoted or bare, a key is the same.
 *
 * @throws AppError VALIDATION_FAILED for what is no key
 */
export function keyedRequest(request: Request, principal: Principal, body: object): KeyedRequest | undefined {
  const header = request.headers.get(HEADER);
  if (header === null) return undefined;
  const key = QUOTED.exec(header)?.[1]?.replace(/\\(.)/g, "$1") ?? header;
  if (!VISIBLE.test(key)) throw invalidField(HEADER, "Expected 1 to 255 visible ASCII characters");
  return { callerId: principal.id, key, route: `${request.method} ${pathOf(request)}`, body: { ...body } };
}
