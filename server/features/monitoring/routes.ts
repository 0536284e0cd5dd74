import { Elysia } from "elysia";
import type { Deps } from "../../deps.ts";
import { access } from "../../http/access.ts";
import { describe } from "../../http/openapi.ts";
import { CircuitBreakersAnswer, MetricsAnswer, MonitoringHealthAnswer } from "./schema.ts";
import { circuitBreakers, systemHealth } from "./service.ts";

const tag = "Monitoring";
/** Of most use while the database is away. */
const READ = { permission: "monitoring:read", evenStale: true };

export const monitoringRoutes = (deps: Deps) =>
  new Elysia({ name: "monitoring", prefix: "/api/v1/monitoring" })
    .use(access(deps))
    .get("/metrics", async () => ({ metrics: await deps.metrics.read() }), {
      access: READ,
      detail: describe({
        tag,
        summary: "What this process has counted and measured",
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
