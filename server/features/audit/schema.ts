import { t } from "elysia";
import { PageQuery } from "../../http/shapes.ts";

const nullableText = (description?: string) => t.Nullable(t.String(description === undefined ? {} : { description }));

export const EventsQuery = t.Object(
  {
    ...PageQuery.properties,
    action: t.Optional(t.String({ minLength: 1, maxLength: 64, description: "Such as login" })),
    actor: t.Optional(
      t.String({
        minLength: 1,
        maxLength: 128,
        description: "Who did it: the id of a user or client; or operator, system or anonymous",
      }),
    ),
    subject: t.Optional(
      t.String({ minLength: 1, maxLength: 128, description: "The id of whom or what it was done to" }),
    ),
    // Not UnionEnum, which fills in its first value where none is given.
    outcome: t.Optional(t.Union([t.Literal("success"), t.Literal("failure")])),
    from: t.Optional(
      t.String({
        maxLength: 40,
        description: "From this time on: 2026-03-01T12:00:00Z or with an offset, or a date in UTC",
      }),
    ),
    to: t.Optional(t.String({ maxLength: 40, description: "Before this time" })),
    format: t.Optional(
      t.Union([t.Literal("json"), t.Literal("ndjson")], {
        description: "ndjson: all of them, a JSON document on each line, instead of a page",
      }),
    ),
  },
  { additionalProperties: false },
);

export const EventsAnswer = t.Object(
  {
    data: t.Array(
      t.Object({
        id: t.String({ format: "uuid" }),
        time: t.String({ format: "date-time" }),
        action: t.String(),
        outcome: t.UnionEnum(["success", "failure"]),
        actor: t.Object({
          kind: t.UnionEnum(["user", "client", "operator", "system", "anonymous"]),
          id: nullableText(),
        }),
        subject: t.Nullable(t.Object({ kind: t.String(), id: nullableText() })),
        ip: nullableText("Null where it is not known, or was erased with its user"),
        user_agent: nullableText(),
        request_id: nullableText(),
        details: t.Record(t.String(), t.Unknown()),
      }),
    ),
    next_cursor: nullableText(),
  },
  { description: "The newest events first" },
);

export const EventLines = t.String({ description: "A line for each event: JSON as in data" });
