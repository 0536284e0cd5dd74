import { timingSafeEqual } from "node:crypto";
import type { ResourceMetrics } from "@opentelemetry/sdk-metrics";
import { type Collected, resourceOf } from "../../../config/meter.ts";
import { hashSecret } from "../tokens/service.ts";

/** Prometheus' text format. */
export const PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Metrics as Prometheus reads them, each with the label `environment`. */
export async function prometheusText(metrics: Collected, environment: string): Promise<string> {
  const { PrometheusSerializer } = await import("@opentelemetry/exporter-prometheus");
  const serializer = new PrometheusSerializer(undefined, false, /^environment$/, true, true);
  const all = {
    resource: resourceOf(environment),
    scopeMetrics: [{ scope: { name: "primer" }, metrics: [...metrics] }],
  } satisfies ResourceMetrics;
  return serializer.serialize(all);
}

/** Whether a request bears the token, compared in a time that says nothing of it. */
export function bearsToken(authorization: string | null, token: string): boolean {
  const given = /^Bearer +(\S+)$/i.exec(authorization ?? "")?.[1] ?? "";
  return timingSafeEqual(Buffer.from(hashSecret(given)), Buffer.from(hashSecret(token)));
}
