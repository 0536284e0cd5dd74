import { t } from "elysia";
import { page } from "../../http/shapes.ts";
import { JOB_STATE_NAMES } from "./service.ts";

const strict = { additionalProperties: false } as const;

// Not UnionEnum, which makes the first one the default of a query.
const State = t.Union(
  JOB_STATE_NAMES.map((name) => t.Literal(name)),
  { description: "waiting: for its time or for a worker; dead: given up, it is not tried any more" },
);
const moment = (description: string) => t.Nullable(t.String({ format: "date-time", description }));
const nullableText = (description: string) => t.Nullable(t.String({ description }));

export const JobQuery = t.Object(
  {
    ...page,
    queue: t.Optional(t.String({ minLength: 1, maxLength: 64, description: "Only of this queue" })),
    state: t.Optional(State),
  },
  strict,
);

const properties = {
  id: t.String({ format: "uuid" }),
  queue: t.String(),
  state: State,
  attempts: t.Integer({ description: "How many times it was begun" }),
  max_attempts: t.Integer({ description: "After so many it is dead" }),
  created_at: t.String({ format: "date-time" }),
  due_at: moment("When a waiting one is due"),
  started_at: moment("When it was last begun"),
  finished_at: moment("When it was done or given up"),
  template: nullableText("Of a mail: which one"),
  user_id: nullableText("Of a mail: whose"),
  request_id: nullableText("The request that caused it"),
  last_error: t.Nullable(
    t.Object({
      code: t.String(),
      reason: nullableText("In words, where there are any"),
    }),
  ),
};

export const JobAnswer = t.Object(properties, { description: "The job, without what it carries" });

export const JobPage = t.Object(
  { data: t.Array(t.Object(properties)), next_cursor: t.Nullable(t.String()) },
  { description: "The newest jobs first" },
);
