import { expect } from "bun:test";
import { ERRORS, type ErrorCode } from "../../../server/errors.ts";
import { oauthErrorOf } from "../../../server/http/oauth.ts";
import type { TestAnswer, TestApp } from "../../support/app.ts";
import { faultsOf, type Schema, undocumented } from "./json-schema.ts";

interface MediaType {
  readonly schema: Schema;
  readonly examples?: Readonly<Record<string, unknown>>;
}

export interface Operation {
  readonly summary?: string;
  readonly security?: readonly Readonly<Record<string, readonly string[]>>[];
  readonly parameters?: readonly { name: string; in: string; required?: boolean; schema: Schema }[];
  readonly requestBody?: { readonly required?: boolean; readonly content: Readonly<Record<string, MediaType>> };
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, MediaType>> }>>;
}

export interface OpenApiDocument {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
}

/** The document as the application itself serves it. */
export async function servedDocument(app: Pick<TestApp, "request">): Promise<OpenApiDocument> {
  const answer = await app.request("GET", "/docs/json");
  if (answer.status !== 200) throw new Error(`/docs/json answered ${answer.status}`);
  return answer.body as OpenApiDocument;
}

/** The path of the document that a request's path is an instance of; a path without parameters goes first. */
export function documentedPath(document: OpenApiDocument, path: string): string | undefined {
  const plain = path.split("?")[0] ?? "";
  if (document.paths[plain]) return plain;
  const fits = (template: string) => new RegExp(`^${template.replace(/\{[^}]+\}/g, "[^/]+")}$`).test(plain);
  return Object.keys(document.paths).find((template) => template.includes("{") && fits(template));
}

/** The headers of every answer, errors included, and what each must be. */
export const EVERY_ANSWER: Readonly<Record<string, RegExp>> = {
  "x-request-id": /^[A-Za-z0-9._-]{8,128}$/,
  "cache-control": /^(no-store|public, max-age=\d+)$/,
  "content-security-policy": /default-src 'none'.*base-uri 'none'.*object-src 'none'/,
  "cross-origin-opener-policy": /^same-origin$/,
  "permissions-policy": /camera=\(\)/,
  "referrer-policy": /^no-referrer$/,
  "x-content-type-options": /^nosniff$/,
  "x-frame-options": /^DENY$/,
};

/** What no error may ever show: stacks, source files, SQL, stored hashes. */
const NEVER_IN_AN_ERROR =
  /\n\s+at |\.ts:\d|node_modules|\b(SELECT|INSERT|UPDATE|DELETE)\b\s|params:|\$argon2|\$2[aby]\$|pbkdf2/;

const EnvelopeSchema: Schema = {
  type: "object",
  required: ["error"],
  additionalProperties: false,
  properties: {
    error: {
      type: "object",
      required: ["code", "message", "timestamp", "request_id"],
      additionalProperties: false,
      properties: {
        code: { enum: Object.keys(ERRORS) },
        message: { type: "string", minLength: 1 },
        timestamp: { type: "string", format: "date-time" },
        request_id: { type: "string", minLength: 8 },
        details: { type: "object" },
      },
    },
  },
};

/** RFC 6749, section 5.2: what the routes under /oauth2/ answer instead of the envelope. */
const OauthErrorSchema: Schema = {
  type: "object",
  required: ["error", "error_description", "request_id"],
  additionalProperties: false,
  properties: {
    error: { type: "string", minLength: 1 },
    error_description: { type: "string", minLength: 1 },
    request_id: { type: "string", minLength: 8 },
  },
};

const isOauth = (path: string) => path.startsWith("/oauth2/");

/** The path of the document that a path of a request is one of. */

/** Checks an answer against everything that holds for any answer of ours, and against what the document says of it. */
export function assertContract(document: OpenApiDocument, method: string, path: string, answer: TestAnswer): void {
  const call = `${method} ${path.slice(0, 80)} → ${answer.status}`;
  for (const [name, form] of Object.entries(EVERY_ANSWER)) {
    if (!form.test(answer.headers.get(name) ?? "")) throw new Error(`${call}: ${name} is ${answer.headers.get(name)}`);
  }
  if (answer.status >= 400) (isOauth(path) ? assertOauthError : assertEnvelope)(call, answer, method);
  const operation = document.paths[documentedPath(document, path) ?? ""]?.[method.toLowerCase()];
  if (operation) assertDocumented(call, operation, answer);
}

function assertEnvelope(call: string, answer: TestAnswer, method: string): void {
  if (NEVER_IN_AN_ERROR.test(answer.text)) throw new Error(`${call} shows its inside: ${answer.text}`);
  if (method === "HEAD") return;
  expect({ call, faults: faultsOf(answer.body, EnvelopeSchema) }).toEqual({ call, faults: [] });
  const { code, request_id } = answer.body.error;
  expect({ call, code, status: ERRORS[code as ErrorCode].status as number }).toEqual({
    call,
    code,
    status: answer.status,
  });
  expect(request_id).toBe(answer.headers.get("x-request-id"));
}

function assertOauthError(call: string, answer: TestAnswer, method: string): void {
  if (NEVER_IN_AN_ERROR.test(answer.text)) throw new Error(`${call} shows its inside: ${answer.text}`);
  if (method === "HEAD") return;
  expect({ call, faults: faultsOf(answer.body, OauthErrorSchema) }).toEqual({ call, faults: [] });
  const codes = (Object.keys(ERRORS) as ErrorCode[]).filter((code) => ERRORS[code].status === answer.status);
  const { error, error_description, request_id } = answer.body;
  expect({ call, names: codes.map((code) => oauthErrorOf(code).error) }).toEqual({
    call,
    names: expect.arrayContaining([error]),
  });
  expect(error_description).toMatch(/^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/);
  expect(request_id).toBe(answer.headers.get("x-request-id"));
}

function assertDocumented(call: string, operation: Operation, answer: TestAnswer): void {
  const response = operation.responses[String(answer.status)];
  expect({ call, documented: Object.keys(operation.responses) }).toEqual({
    call,
    documented: expect.arrayContaining([String(answer.status)]),
  });
  const media = response?.content?.["application/json"];
  const events = response?.content?.["text/event-stream"];
  const [type = ""] = (answer.headers.get("content-type") ?? "").split(";");
  if (answer.status >= 400) {
    const codes = Object.keys(media?.examples ?? {});
    expect({ call, codes }).toEqual({
      call,
      codes: expect.arrayContaining([answer.body.error.code ?? answer.body.error]),
    });
  } else if (events) {
    expect({ call, type: answer.headers.get("content-type") }).toEqual({ call, type: "text/event-stream" });
    expect({ call, faults: faultsOf(answer.text, events.schema) }).toEqual({ call, faults: [] });
  } else if (type !== "application/json" && response?.content?.[type]) {
    expect({ call, faults: faultsOf(answer.text, response.content[type].schema) }).toEqual({ call, faults: [] });
  } else if (media) {
    const faults = [...faultsOf(answer.body, media.schema), ...undocumented(answer.body, media.schema)];
    expect({ call, faults }).toEqual({ call, faults: [] });
  } else {
    expect({ call, text: answer.text }).toEqual({ call, text: "" });
  }
}
