import { t } from "elysia";

const State = t.UnionEnum(["closed", "open", "half_open"], {
  description: "closed: it is used; open: it is left alone; half_open: one attempt decides",
});
const Status = t.UnionEnum(["healthy", "unhealthy"]);
const moment = (description: string) => t.Nullable(t.String({ format: "date-time", description }));

export const CircuitBreakersAnswer = t.Object(
  {
    circuit_breakers: t.Record(
      t.String(),
      t.Object({
        state: State,
        failure_count: t.Integer({ description: "Failures since the last success" }),
        last_failure: moment("When it last failed; null: not since the process began"),
        next_attempt: moment("When an open one lets the next attempt through"),
      }),
    ),
  },
  { description: "The breaker of each dependency, by name" },
);

export const MonitoringHealthAnswer = t.Object(
  {
    status: Status,
    timestamp: t.String({ format: "date-time" }),
    dependencies: t.Record(
      t.String(),
      t.Object({
        status: Status,
        latency_ms: t.Nullable(
          t.Number({ description: "Until it answered; null: it did not within a second, or is not asked for this" }),
        ),
        circuit_breaker: State,
        connections: t.Optional(
          t.Object({
            size: t.Integer({ description: "As many as this process opens at most" }),
            in_use: t.Integer({ description: "At work now" }),
            waiting: t.Integer({ description: "Statements and transactions that wait for one" }),
          }),
        ),
        lag_ms: t.Optional(
          t.Nullable(t.Integer({ description: "Of a replica: how far behind it may be; null: not known" })),
        ),
      }),
    ),
  },
  { description: "Each dependency, by name. The status is 200 also where one is away" },
);

export const MetricsAnswer = t.Object(
  {
    metrics: t.Array(
      t.Object({
        name: t.String(),
        unit: t.String(),
        description: t.String(),
        points: t.Array(
          t.Object({
            labels: t.Record(t.String(), t.String()),
            value: t.Number({ description: "The count or the amount; of durations how many there were" }),
            sum: t.Optional(t.Number({ description: "Of durations: all of them together" })),
            max: t.Optional(t.Number({ description: "Of durations: the longest one" })),
            p50: t.Optional(t.Number({ description: "Of durations: half of them took no longer, about" })),
            p95: t.Optional(t.Number({ description: "Of durations: 95 of a hundred took no longer, about" })),
            p99: t.Optional(t.Number({ description: "Of durations: 99 of a hundred took no longer, about" })),
          }),
        ),
      }),
    ),
  },
  { description: "Counts and durations since each process began, amounts as they are now" },
);

export const MetricsText = t.String({ description: "Every metric with a line of help" });
