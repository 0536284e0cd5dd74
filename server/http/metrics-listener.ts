import type { Log } from "../../config/log.ts";
import type { Deps } from "../deps.ts";
import { bearsToken, PROMETHEUS_TYPE, prometheusText } from "../features/monitoring/service.ts";

/** A connection on which nothing happens is closed after this long (seconds). */
const IDLE_TIMEOUT_SECONDS = 10;

type ListenerDeps = Pick<Deps, "settings" | "nodeMetrics"> & { readonly log: Log };

/**
 * Answers /metrics at an address of its own, and nothing else. All processes of a node may share the address: each tells
 * the metrics of all. Throws the system's error where it cannot be listened on.
 */
export function openMetricsListener({ settings, nodeMetrics, log }: ListenerDeps): { stop(): void } | undefined {
  const { metrics_listen, metrics_token } = settings.telemetry;
  if (metrics_listen === "") return undefined;
  const colon = metrics_listen.lastIndexOf(":");
  const server = Bun.serve({
    hostname: metrics_listen.slice(0, colon).replace(/^\[|\]$/g, ""),
    port: Number(metrics_listen.slice(colon + 1)),
    reusePort: true,
    idleTimeout: IDLE_TIMEOUT_SECONDS,
    development: false,
    async fetch(request) {
      if (!/^\/metrics(\?.*)?$/.test(request.url.replace(/^https?:\/\/[^/]*/i, "")))
        return new Response(null, { status: 404 });
      if (metrics_token !== "" && !bearsToken(request.headers.get("authorization"), metrics_token))
        return new Response(null, { status: 401, headers: { "www-authenticate": "Bearer" } });
      const text = await prometheusText(await nodeMetrics.collect(), settings.environment);
      return new Response(text, { headers: { "content-type": PROMETHEUS_TYPE } });
    },
    error(error) {
      log.error("The metrics could not be told", { event: "metrics.failed", error });
      return new Response(null, { status: 500 });
    },
  });
  return { stop: () => void server.stop(true) };
}
