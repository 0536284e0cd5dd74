import { Elysia } from "elysia";
import { readingsOf } from "../../../config/meter.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { access } from "../../http/access.ts";
import { describe } from "../../http/openapi.ts";
import { CircuitBreakersAnswer, MetricsAnswer, MetricsText, MonitoringHealthAnswer } from "./schema.ts";
import { bearsToken, circuitBreakers, PROMETHEUS_TYPE, prometheusText, systemHealth } from "./service.ts";

const tag = "Monitoring";
/** Of most use while the database is away. */
const READ = { permission: "monitoring:read", evenStale: true };

export const monitoringRoutes = (deps: Deps) =>
  new Elysia({ name: "monitoring", prefix: "/api/v1/monitoring" })
    .use(access(deps))
    .get("/metrics", async () => ({ metrics: readingsOf(await deps.nodeMetrics.collect()) }), {
      access: READ,
      detail: describe({
        tag,
        summary: "What the processes of this node have counted and measured",
        description: "Asks for the permission monitoring:read.",
        bearer: true,
        answers: { 200: MetricsAnswer },
        errors: ["FORBIDDEN"],
      }),
    })
    .get("/health", () => systemHealth(deps), {
      access: READ,
      detail: describe({
        tag,
        summary: "How each dependency is",
        description: "Asks all of them at the same time. Asks for the permission monitoring:read.",
        bearer: true,
        answers: { 200: MonitoringHealthAnswer },
        errors: ["FORBIDDEN"],
        example: {
          status: "healthy",
          timestamp: "2026-01-01T00:00:00.000Z",
          dependencies: {
            database: {
              status: "healthy",
              latency_ms: 0.8,
              circuit_breaker: "closed",
              connections: { size: 10, in_use: 1, waiting: 0 },
            },
          },
        },
      }),
    })
    .get("/circuit-breakers", () => ({ circuit_breakers: circuitBreakers(deps) }), {
      access: READ,
      detail: describe({
        tag,
        summary: "The circuit breaker of each dependency",
        description: "Asks for the permission monitoring:read.",
        bearer: true,
        answers: { 200: CircuitBreakersAnswer },
        errors: ["FORBIDDEN"],
        example: {
          circuit_breakers: {
            database: {
              state: "open",
              failure_count: 5,
              last_failure: "2026-01-01T00:00:00.000Z",
              next_attempt: "2026-01-01T00:00:00.700Z",
            },
          },
        },
      }),
    });

/** For those who collect metrics; they have a token of their own and no account. */
export const metricsRoute = (deps: Deps) =>
  new Elysia({ name: "metrics" }).get(
    "/metrics",
    async ({ request, set }) => {
      const { metrics_token } = deps.settings.telemetry;
      if (metrics_token === "") throw new AppError("NOT_FOUND");
      if (!bearsToken(request.headers.get("authorization"), metrics_token)) throw new AppError("AUTH_TOKEN_INVALID");
      set.headers["content-type"] = PROMETHEUS_TYPE;
      return prometheusText(await deps.nodeMetrics.collect(), deps.settings.environment);
    },
    {
      detail: describe({
        tag,
        limits: [],
        summary: "The same in Prometheus' text format",
        description: "Asks for the token of telemetry.metrics_token; 404 where none is set.",
        answers: { 200: MetricsText },
        mediaType: "text/plain",
        errors: ["AUTH_TOKEN_INVALID", "NOT_FOUND"],
      }),
    },
  );
