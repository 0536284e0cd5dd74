import { AppError } from "../errors.ts";
import { type BodyLimits, badRequest, hasBody, readText } from "./body.ts";

/** The parameters of a form, each there once and with a value. */
export type Form = ReadonlyMap<string, string>;

const MAX_PARAMETERS = 100;

/**
 * Reads a form as OAuth has it (RFC 6749, section 3.2 and appendix B): bounded in bytes and time, UTF-8, every parameter once; one without
 * a value is as if it were not there. Undefined where there is no body.
 *
 * @throws AppError UNSUPPORTED_MEDIA_TYPE, PAYLOAD_TOO_LARGE or BAD_REQUEST
 */
export async function readFormBody(request: Request, limits: BodyLimits): Promise<Form | undefined> {
  if (!request.headers.has("content-type") && !hasBody(request)) return undefined;
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/x-www-form-urlencoded\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?$/i.test(type))
    throw new AppError("UNSUPPORTED_MEDIA_TYPE");
  const pairs = (await readText(request, limits)).split("&", MAX_PARAMETERS + 1).filter((pair) => pair !== "");
  if (pairs.length > MAX_PARAMETERS) throw badRequest("The form has too many parameters");
  const form = new Map<string, string>();
  for (const pair of pairs) {
    const equals = pair.includes("=") ? pair.indexOf("=") : pair.length;
    const name = decodeFormText(pair.slice(0, equals));
    const value = decodeFormText(pair.slice(equals + 1));
    if (name === undefined || value === undefined) throw badRequest("The form is not percent-encoded UTF-8");
    if (form.has(name)) throw badRequest("A parameter is given twice");
    form.set(name, value);
  }
  for (const [name, value] of form) if (value === "") form.delete(name);
  return form;
}

/** A name or a value of a form; undefined where it is not properly encoded. Nothing is repaired: two texts could become one. */
export function decodeFormText(text: string): string | undefined {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return undefined;
  }
}
