import type { MetricReader } from "@opentelemetry/sdk-metrics";
import type { Log } from "./log.ts";
import { createMetrics, type Metrics, resourceOf } from "./meter.ts";
import type { Settings } from "./schema.ts";
import { switchTracing } from "./trace.ts";

/** A collector that says nothing is not waited for any longer (milliseconds); what it was to get is sent the next time, or dropped. */
const SEND_TIMEOUT_MS = 5000;
/** How long the last of it may take when the process ends (milliseconds). */
const LAST_SEND_MS = 3000;
/** Spans wait for this long to be sent together (milliseconds), and no more of them than this; further ones are dropped. */
const SPAN_PAUSE_MS = 2000;
const MOST_SPANS = 2048;

/** What a process tells of itself to those who watch it. */
export interface Telemetry {
  readonly metrics: Metrics;
  /** Sends what is left, for three seconds at most. */
  close(): Promise<void>;
}

type TelemetrySettings = Settings["telemetry"];

/** Where metrics and spans go; undefined where they go nowhere. The endpoint is the base of both, as OpenTelemetry has it. */
export function endpointsOf(settings: TelemetrySettings): { metrics: string | undefined; traces: string | undefined } {
  const { otlp_endpoint, otlp_metrics_endpoint, otlp_traces_endpoint } = settings;
  const under = (path: string) => (otlp_endpoint === "" ? undefined : `${otlp_endpoint.replace(/\/+$/, "")}/${path}`);
  return {
    metrics: otlp_metrics_endpoint || under("v1/metrics"),
    traces: settings.trace_ratio > 0 ? otlp_traces_endpoint || under("v1/traces") : undefined,
  };
}

/**
 * Starts to send metrics and spans to where the settings say, in the background: a collector that is away costs nobody
 * anything. The log tells when it goes away and when it is back.
 */
export async function openTelemetry(
  settings: Pick<Settings, "environment" | "telemetry">,
  log: Log,
): Promise<Telemetry> {
  const { telemetry } = settings;
  const endpoints = endpointsOf(telemetry);
  const attributes = pairsOf(telemetry.resource_attributes);
  const resource = resourceOf(settings.environment, { ...attributes, "service.name": telemetry.service_name });
  const readers = endpoints.metrics ? [await openReader(telemetry, endpoints.metrics, log)] : [];
  const spans = endpoints.traces ? await openTracing(telemetry, endpoints.traces, resource, log) : undefined;
  const metrics = createMetrics({ resource, readers });
  return {
    metrics,
    async close() {
      switchTracing(false);
      const sent = Promise.allSettled([metrics.close(), spans?.shutdown()]);
      await Promise.race([sent, Bun.sleep(LAST_SEND_MS)]);
    },
  };
}

/** "a=1,b=2", as OTEL_EXPORTER_OTLP_HEADERS and OTEL_RESOURCE_ATTRIBUTES are written: values may be percent-encoded. */
export const pairsOf = (text: string): Record<string, string> =>
  Object.fromEntries(
    text
      .split(",")
      .map((pair) => /^\s*([^=]+?)\s*=\s*(.*?)\s*$/.exec(pair))
      .flatMap((found) => (found ? [[found[1] ?? "", decoded(found[2] ?? "")]] : [])),
  );

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** How something is sent to an endpoint: what stands before the @ of its URL is sent as a header (RFC 7617). */
export function targetOf({ otlp_headers }: TelemetrySettings, endpoint: string) {
  const url = new URL(endpoint);
  const [user, password] = [url.username, url.password].map(decoded);
  url.username = "";
  url.password = "";
  const basic = user === "" ? {} : { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}` };
  return { url: url.href, headers: { ...basic, ...pairsOf(otlp_headers) } };
}

const exporterOptions = (settings: TelemetrySettings, endpoint: string) => ({
  ...targetOf(settings, endpoint),
  timeoutMillis: SEND_TIMEOUT_MS,
});

async function openReader(settings: TelemetrySettings, url: string, log: Log): Promise<MetricReader> {
  const [{ PeriodicExportingMetricReader }, { OTLPMetricExporter }] = await Promise.all([
    import("@opentelemetry/sdk-metrics"),
    settings.otlp_protocol === "http/json"
      ? import("@opentelemetry/exporter-metrics-otlp-http")
      : import("@opentelemetry/exporter-metrics-otlp-proto"),
  ]);
  return new PeriodicExportingMetricReader({
    exporter: telling(new OTLPMetricExporter(exporterOptions(settings, url)), "metrics", url, log),
    exportIntervalMillis: settings.export_interval,
    exportTimeoutMillis: Math.min(settings.export_interval, SEND_TIMEOUT_MS),
  });
}

async function openTracing(
  settings: TelemetrySettings,
  url: string,
  resource: ReturnType<typeof resourceOf>,
  log: Log,
): Promise<{ shutdown(): Promise<void> }> {
  const [api, sdk, { AsyncLocalStorageContextManager }, { W3CTraceContextPropagator }, { OTLPTraceExporter }] =
    await Promise.all([
      import("@opentelemetry/api"),
      import("@opentelemetry/sdk-trace"),
      import("@opentelemetry/context-async-hooks"),
      import("@opentelemetry/core"),
      settings.otlp_protocol === "http/json"
        ? import("@opentelemetry/exporter-trace-otlp-http")
        : import("@opentelemetry/exporter-trace-otlp-proto"),
    ]);
  const exporter = telling(new OTLPTraceExporter(exporterOptions(settings, url)), "spans", url, log);
  const ratio = new sdk.TraceIdRatioBasedSampler(settings.trace_ratio);
  const provider = new sdk.TracerProvider({
    resource,
    // Also of the traces that callers begin: anybody may call, and say that everything or nothing is to be traced.
    sampler: new sdk.ParentBasedSampler({ root: ratio, remoteParentSampled: ratio, remoteParentNotSampled: ratio }),
    spanProcessors: [
      new sdk.BatchSpanProcessor({
        exporter,
        maxQueueSize: MOST_SPANS,
        scheduledDelayMillis: SPAN_PAUSE_MS,
        exportTimeoutMillis: SEND_TIMEOUT_MS,
      }),
    ],
  });
  api.context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  api.propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  api.trace.setGlobalTracerProvider(provider);
  switchTracing(true);
  return provider;
}

interface Exporter<T> {
  export(batch: T, done: (result: { code: number; error?: Error }) => void): void;
}

/** The same exporter, of which the log tells when it cannot send any more, and when it can again. */
function telling<T, E extends Exporter<T>>(exporter: E, what: string, url: string, log: Log): E {
  let fails = false;
  const send = exporter.export.bind(exporter);
  exporter.export = (batch, done) =>
    send(batch, (result) => {
      const isLost = result.code !== 0;
      if (isLost !== fails) {
        fails = isLost;
        const fields = { what, endpoint: new URL(url).origin };
        if (isLost) {
          const { error } = result;
          log.warn("Telemetry cannot be sent now; it goes on without", {
            event: "telemetry.not_sent",
            ...fields,
            error,
          });
        } else log.info("Telemetry is sent again", { event: "telemetry.sent", ...fields });
      }
      done(result);
    });
  return exporter;
}
