import { Elysia, t } from "elysia";
import type { Deps } from "../../deps.ts";
import { access } from "../../http/access.ts";
import { describe } from "../../http/openapi.ts";

const Reading = t.Object({
  name: t.String(),
  unit: t.String(),
  description: t.String(),
  points: t.Array(t.Object({ labels: t.Record(t.String(), t.String()), value: t.Number() })),
});

const MetricsAnswer = t.Object({ metrics: t.Array(Reading) }, { description: "Since the start of this process" });

export const monitoringRoutes = (deps: Deps) =>
  new Elysia({ name: "monitoring", prefix: "/api/v1/monitoring" })
    .use(access(deps))
    .get("/metrics", async () => ({ metrics: await deps.metrics.read() }), {
      access: { permission: "monitoring:read" },
      detail: describe({
        tag: "Monitoring",
        summary: "What this process has counted",
        description: "Asks for the permission monitoring:read.",
        bearer: true,
        answers: { 200: MetricsAnswer },
        errors: ["FORBIDDEN"],
      }),
    });
