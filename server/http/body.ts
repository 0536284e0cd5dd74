import { type JSONVisitor, visit } from "jsonc-parser";
import type { Settings } from "../../config/schema.ts";
import { AppError } from "../errors.ts";

const MAX_DEPTH = 20;
const MAX_KEYS = 1000;
const FORBIDDEN_KEYS = new Set(["__proto__", "constructor", "prototype"]);

/** @param internal what is wrong: for the log, and for the caller too */
export const badRequest = (internal: string, cause?: unknown) =>
  new AppError("BAD_REQUEST", { internal, cause, details: { reason: internal } });

/** How much a body may hold, and how long it may take to arrive (milliseconds). */
export type BodyLimits = Pick<Settings["server"], "max_body_bytes" | "request_timeout">;

/**
 * Reads a JSON body: bounded in bytes, time and depth, UTF-8 only, every key once. Undefined where there is no body.
 *
 * @throws AppError UNSUPPORTED_MEDIA_TYPE, PAYLOAD_TOO_LARGE or BAD_REQUEST
 */
export async function readJsonBody(request: Request, limits: BodyLimits): Promise<unknown> {
  if (!request.headers.has("content-type") && !hasBody(request)) return undefined;
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?$/i.test(type))
    throw new AppError("UNSUPPORTED_MEDIA_TYPE");
  return parseJson(await readText(request, limits));
}

/** The length that a request tells; undefined where it tells none, or several: those are as good as none. */
function toldLength(request: Request): number | undefined {
  const told = request.headers.get("content-length");
  return told !== null && /^\d+$/.test(told) ? Number(told) : undefined;
}

/** Asks for the body itself only where no header tells: that makes a stream of it, which takes longer than all else of a request. */
export const hasBody = (request: Request): boolean => {
  const length = toldLength(request);
  return length === undefined ? request.body !== null : length > 0;
};

/** A body as text. @throws AppError PAYLOAD_TOO_LARGE, or BAD_REQUEST where it is not UTF-8, breaks off or takes too long */
export async function readText(request: Request, limits: BodyLimits): Promise<string> {
  const length = toldLength(request);
  if (length !== undefined && length > limits.max_body_bytes) throw tooLarge(limits.max_body_bytes);
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(tooSlow(limits.request_timeout)), limits.request_timeout);
  try {
    // One whose length was told is not longer than that.
    const bytes = length === undefined ? readChunks(request, limits, late.promise) : request.bytes().catch(brokeOff);
    return decodeUtf8(await Promise.race([bytes, late.promise]));
  } finally {
    clearTimeout(timer);
  }
}

const tooLarge = (maxBytes: number) => new AppError("PAYLOAD_TOO_LARGE", { details: { max_bytes: maxBytes } });

async function readChunks(request: Request, limits: BodyLimits, late: Promise<never>): Promise<Uint8Array> {
  const reader = request.body?.getReader();
  if (!reader) return new Uint8Array();
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read().catch(brokeOff), late]);
      if (done) return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
      size += value.byteLength;
      if (size > limits.max_body_bytes) throw tooLarge(limits.max_body_bytes);
      chunks.push(value);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Whoever sent it has gone, which is no fault of ours. */
function brokeOff(cause: unknown): never {
  throw badRequest("The body broke off", cause);
}

/** The rest of the body may never come, so the connection is of no more use. */
function tooSlow(timeoutMs: number): AppError {
  const internal = `The body was not there within ${timeoutMs} ms`;
  return new AppError("BAD_REQUEST", { internal, details: { reason: internal }, headers: { connection: "close" } });
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw badRequest("The body is not UTF-8", error);
  }
}

/** Standard JSON, with what JSON.parse lets pass refused: repeated and dangerous keys, and depth without end. */
function parseJson(text: string): unknown {
  assertShallow(text);
  const open: Set<string>[] = [];
  const visitor: JSONVisitor = {
    onObjectBegin: () => void open.push(new Set()),
    onObjectEnd: () => void open.pop(),
    onObjectProperty(key) {
      const keys = open.at(-1);
      if (FORBIDDEN_KEYS.has(key)) throw badRequest(`The key ${key} is not allowed`);
      if (keys?.has(key)) throw badRequest("A key stands twice in the same object");
      keys?.add(key);
      if ((keys?.size ?? 0) > MAX_KEYS) throw badRequest("An object has too many keys");
    },
  };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw badRequest("The body is not JSON", error);
  }
  visit(text, visitor);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new AppError("VALIDATION_FAILED", { details: { fields: [{ path: "", message: "Expected object" }] } });
}

/** Before anything recursive sees it: counts the brackets that stand outside of strings. */
function assertShallow(text: string): void {
  let depth = 0;
  let inString = false;
  for (let index = 0; index < text.length; index++) {
    const character = text[index];
    if (inString) {
      if (character === "\\") index++;
      else if (character === '"') inString = false;
    } else if (character === '"') inString = true;
    else if (character === "{" || character === "[") depth++;
    else if (character === "}" || character === "]") depth--;
    if (depth > MAX_DEPTH) throw badRequest(`The body is nested more than ${MAX_DEPTH} deep`);
  }
}
