import { type TSchema, t } from "elysia";
import { ERRORS, type ErrorCode } from "../errors.ts";
import { KEY_PARAMETER } from "./idempotency.ts";
import { GENERAL, LIMITS_FIELD, type RouteLimit } from "./limits.ts";
import { oauthErrorOf } from "./oauth.ts";

/** What the documentation says of one route beside its path and its inputs. */
export interface RouteDescription {
  readonly summary: string;
  readonly description?: string;
  readonly tag: string;
  /** Whether the route asks for a bearer token; then it can answer what is wrong with one. */
  readonly bearer?: boolean | "optional";
  /** Whether the refresh cookie of a login in cookie mode will do, instead of a token in the body. */
  readonly cookie?: boolean;
  /** Whether it asks for a registered client instead, as the routes under /oauth2/ do; their errors are in OAuth's form. */
  readonly client?: boolean;
  /** The parameters of a body that is a form. */
  readonly form?: TSchema;
  /** Whether the route takes a JSON body; then it can answer what is wrong with one. */
  readonly takesBody?: boolean | "optional";
  /** Whether it honours an Idempotency-Key. */
  readonly takesKey?: boolean;
  /** The answers that are no errors: by status the schema, or the sentence of one without a body. */
  readonly answers: Readonly<Record<number, TSchema | string>>;
  /** The media type of those answers; JSON where nothing is said. */
  readonly mediaType?: string;
  /** Media types that are answered instead where that is asked for, with what they hold. */
  readonly otherMediaTypes?: Readonly<Record<string, TSchema>>;
  /** Errors beside those that every route can answer. */
  readonly errors?: readonly ErrorCode[];
  readonly example?: unknown;
  /** What it is limited by; "general" where nothing is said. */
  readonly limits?: readonly RouteLimit[];
}

/** Every route can answer these. */
const COMMON_ERRORS: readonly ErrorCode[] = ["BAD_REQUEST", "INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE"];

const TOKEN_ERRORS: readonly ErrorCode[] = [
  "AUTH_TOKEN_MISSING",
  "AUTH_TOKEN_INVALID",
  "AUTH_TOKEN_EXPIRED",
  "AUTH_TOKEN_REVOKED",
];
const BODY_ERRORS: readonly ErrorCode[] = ["VALIDATION_FAILED", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"];

export const ErrorSchema = t.Object({
  error: t.Object({
    code: t.String({ description: "Stable; programs decide by it" }),
    message: t.String({ description: "For people; may change" }),
    timestamp: t.String({ format: "date-time" }),
    request_id: t.String({ description: "Also in X-Request-Id and in every log line of the request" }),
    details: t.Optional(t.Record(t.String(), t.Unknown())),
  }),
});

/** RFC 6749, section 5.2: what the routes under /oauth2/ answer instead. */
export const OauthErrorSchema = t.Object({
  error: t.String({ description: "Stable; programs decide by it" }),
  error_description: t.String({ description: "For people; may change" }),
  request_id: t.String({ description: "Also in X-Request-Id and in every log line of the request" }),
});

/** The `detail` of a route for the OpenAPI document. */
export function describe(route: RouteDescription) {
  const limits = route.limits ?? GENERAL;
  const codes = [
    ...COMMON_ERRORS,
    ...(limits.length > 0 ? (["RATE_LIMIT_EXCEEDED"] as const) : []),
    ...(route.takesBody ? BODY_ERRORS : []),
    ...(route.bearer === true ? TOKEN_ERRORS : []),
    ...(route.errors ?? []),
  ];
  const responses: Record<string, unknown> = {};
  for (const [status, answer] of Object.entries(route.answers)) responses[status] = answerOf(answer, route);
  for (const status of [...new Set(codes.map((code) => ERRORS[code].status))].sort()) {
    const form = route.client ? OAUTH_FORM : ENVELOPE;
    responses[status] = errorsOf(
      codes.filter((code) => ERRORS[code].status === status),
      form,
    );
  }
  return {
    summary: route.summary,
    ...(route.description ? { description: route.description } : {}),
    tags: [route.tag],
    security: securityOf(route),
    ...(route.takesKey ? { parameters: [KEY_PARAMETER] } : {}),
    ...(route.form ? { requestBody: formBody(route.form) } : {}),
    [LIMITS_FIELD]: limits,
    ...(route.takesBody === "optional" ? { "x-body-optional": true } : {}),
    responses: responses as Record<string, never>,
  };
}

/** A client may authenticate in the form as well, which no scheme of OpenAPI describes. */
function securityOf({ bearer, client, cookie }: RouteDescription): Record<string, string[]>[] {
  if (client) return [{ basic: [] }, {}];
  const ways = [...(bearer ? [{ bearer: [] }] : []), ...(cookie ? [{ cookie: [] }] : [])];
  return bearer === "optional" || cookie ? [...ways, {}] : ways;
}

const formBody = (schema: TSchema) => ({
  required: true,
  content: { "application/x-www-form-urlencoded": { schema: schema as never } },
});

const REQUEST_ID_HEADER = {
  "X-Request-Id": { schema: { type: "string" }, description: "Names this request in the logs" },
};

function answerOf(answer: TSchema | string, route: RouteDescription) {
  if (typeof answer === "string") return { description: answer, headers: REQUEST_ID_HEADER };
  const { example, mediaType = "application/json", otherMediaTypes = {} } = route;
  const others = Object.entries(otherMediaTypes).map(([type, schema]) => [type, { schema }]);
  return {
    description: answer.description ?? "Done",
    headers: REQUEST_ID_HEADER,
    content: {
      [mediaType]: { schema: answer, ...(example === undefined ? {} : { example }) },
      ...Object.fromEntries(others),
    },
  };
}

const EXAMPLE_REQUEST_ID = "019b76da-a800-7000-8000-000000000000";

/** How errors are written: what names one, where its schema is, and how one looks. */
interface ErrorForm {
  readonly schema: string;
  name(code: ErrorCode): string;
  example(code: ErrorCode): unknown;
}

const ENVELOPE: ErrorForm = {
  schema: "Error",
  name: (code) => code,
  example: (code) => ({
    error: {
      code,
      message: ERRORS[code].message,
      timestamp: "2026-01-01T00:00:00.000Z",
      request_id: EXAMPLE_REQUEST_ID,
    },
  }),
};

const OAUTH_FORM: ErrorForm = {
  schema: "OAuthError",
  name: (code) => oauthErrorOf(code).error,
  example(code) {
    const { error, description } = oauthErrorOf(code);
    return { error, error_description: description, request_id: EXAMPLE_REQUEST_ID };
  },
};

function errorsOf(codes: readonly ErrorCode[], form: ErrorForm) {
  const examples = codes.map((code) => [form.name(code), { summary: ERRORS[code].message, value: form.example(code) }]);
  return {
    description: codes.map(form.name).join(" · "),
    headers: REQUEST_ID_HEADER,
    content: {
      "application/json": {
        schema: { $ref: `#/components/schemas/${form.schema}` },
        examples: Object.fromEntries(examples),
      },
    },
  };
}
