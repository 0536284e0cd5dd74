import { type TSchema, t } from "elysia";
import { ERRORS, type ErrorCode } from "../errors.ts";

/** What the documentation says of one route beside its path and its inputs. */
export interface RouteDescription {
  readonly summary: string;
  readonly description?: string;
  readonly tag: string;
  /** Whether the route asks for a bearer token. */
  readonly bearer?: boolean | "optional";
  /** Whether the route does with no body too. */
  readonly bodyOptional?: boolean;
  /** The answers that are no errors: by status the schema, or the sentence of one without a body. */
  readonly answers: Readonly<Record<number, TSchema | string>>;
  /** The media type of those answers; JSON where nothing is said. */
  readonly mediaType?: string;
  /** Errors beside those that every route can answer. */
  readonly errors?: readonly ErrorCode[];
  readonly example?: unknown;
}

/** Every route can answer these. */
const COMMON_ERRORS: readonly ErrorCode[] = ["BAD_REQUEST", "INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE"];

export const ErrorSchema = t.Object({
  error: t.Object({
    code: t.String({ description: "Stable; programs decide by it" }),
    message: t.String({ description: "For people; may change" }),
    timestamp: t.String({ format: "date-time" }),
    request_id: t.String({ description: "Also in X-Request-Id and in every log line of the request" }),
    details: t.Optional(t.Record(t.String(), t.Unknown())),
  }),
});

/** The `detail` of a route for the OpenAPI document. */
export function describe(route: RouteDescription) {
  const codes = [...COMMON_ERRORS, ...(route.errors ?? [])];
  const responses: Record<string, unknown> = {};
  for (const [status, answer] of Object.entries(route.answers)) responses[status] = answerOf(answer, route);
  for (const status of [...new Set(codes.map((code) => ERRORS[code].status))].sort()) {
    responses[status] = errorsOf(codes.filter((code) => ERRORS[code].status === status));
  }
  const security = route.bearer ? [{ bearer: [] }, ...(route.bearer === "optional" ? [{}] : [])] : [];
  return {
    summary: route.summary,
    ...(route.description ? { description: route.description } : {}),
    tags: [route.tag],
    security,
    ...(route.bodyOptional ? { "x-body-optional": true } : {}),
    responses: responses as Record<string, never>,
  };
}

const REQUEST_ID_HEADER = {
  "X-Request-Id": { schema: { type: "string" }, description: "Names this request in the logs" },
};

function answerOf(answer: TSchema | string, { example, mediaType = "application/json" }: RouteDescription) {
  if (typeof answer === "string") return { description: answer, headers: REQUEST_ID_HEADER };
  return {
    description: answer.description ?? "Done",
    headers: REQUEST_ID_HEADER,
    content: { [mediaType]: { schema: answer, ...(example === undefined ? {} : { example }) } },
  };
}

function errorsOf(codes: readonly ErrorCode[]) {
  const examples = codes.map((code) => [
    code,
    {
      summary: ERRORS[code].message,
      value: {
        error: {
          code,
          message: ERRORS[code].message,
          timestamp: "2026-01-01T00:00:00.000Z",
          request_id: "019b76da-a800-7000-8000-000000000000",
        },
      },
    },
  ]);
  return {
    description: codes.join(" · "),
    headers: REQUEST_ID_HEADER,
    content: {
      "application/json": { schema: { $ref: "#/components/schemas/Error" }, examples: Object.fromEntries(examples) },
    },
  };
}
