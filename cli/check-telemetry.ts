import { textOf } from "../config/errors.ts";
import type { Settings } from "../config/schema.ts";
import { endpointsOf, targetOf } from "../config/telemetry.ts";
import { broken, type Finding, ok } from "./findings.ts";

/** How long a collector has to answer (milliseconds). */
const ANSWER_WITHIN_MS = 5000;

/** Whether what metrics and traces are sent to takes them: it is sent an empty message of each, as OTLP allows. */
export async function checkTelemetry({ telemetry }: Settings): Promise<Finding[]> {
  const { metrics, traces } = endpointsOf(telemetry);
  const targets = [
    ["metrics", metrics],
    ["traces", traces],
  ] as const;
  return Promise.all(targets.flatMap(([what, url]) => (url === undefined ? [] : [check(telemetry, what, url)])));
}

async function check(settings: Settings["telemetry"], what: string, endpoint: string): Promise<Finding> {
  const { otlp_protocol } = settings;
  const { url, headers } = targetOf(settings, endpoint);
  const isJson = otlp_protocol === "http/json";
  const { host, pathname } = new URL(url);
  const mend = `Is it up, is its address right (OTEL_EXPORTER_OTLP_ENDPOINT), and does it read ${otlp_protocol} there? ${
    what === "traces"
      ? "Where it takes no traces, set telemetry.trace_ratio to 0."
      : "VictoriaMetrics: …/opentelemetry."
  }`;
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { ...headers, "content-type": isJson ? "application/json" : "application/x-protobuf" },
      body: isJson ? "{}" : new Uint8Array(),
      redirect: "manual",
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
    if (answer.ok) return ok(what, `${host}${pathname} takes them`);
    return broken(what, `${host}${pathname} answers ${answer.status}`, mend);
  } catch (error) {
    return broken(what, `${host}${pathname}: ${textOf(error)}`, mend);
  }
}
