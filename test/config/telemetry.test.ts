import { describe, expect, test } from "bun:test";
import { hostPort, milliseconds, share } from "../../config/kinds.ts";
import { loadSettings } from "../../config/load.ts";
import { endpointsOf, pairsOf } from "../../config/telemetry.ts";

const settingsOf = (variables: Record<string, string>) => loadSettings("/nonexistent", variables).settings.telemetry;

// The standard variables count as everywhere (OpenTelemetry, "OTLP exporter configuration").
describe("where telemetry goes", () => {
  test.each([
    [{}, undefined, undefined],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318" }, "http://c:4318/v1/metrics", "http://c:4318/v1/traces"],
    [
      { OTEL_EXPORTER_OTLP_ENDPOINT: "http://vm:8428/opentelemetry/", OTEL_TRACES_SAMPLER_ARG: "0" },
      "http://vm:8428/opentelemetry/v1/metrics",
      undefined,
    ],
    [
      { OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318", OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: "http://vm:8428/push" },
      "http://vm:8428/push",
      "http://c:4318/v1/traces",
    ],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://tempo:4318/v1/traces" }, undefined, "http://tempo:4318/v1/traces"],
  ])("%p", (variables, metrics, traces) => {
    expect(endpointsOf(settingsOf(variables as Record<string, string>))).toEqual({ metrics, traces });
  });

  test("the interval may be in milliseconds, and is 15 s", () => {
    expect(settingsOf({ OTEL_METRIC_EXPORT_INTERVAL: "5000" }).export_interval).toBe(5000);
    expect(settingsOf({}).export_interval).toBe(15_000);
  });
});

test.each([
  ["", {}],
  ["authorization=Bearer%20abc,x-scope=a=b", { authorization: "Bearer abc", "x-scope": "a=b" }],
  [" a = 1 , b=2,broken", { a: "1", b: "2" }],
  ["rate=100%", { rate: "100%" }],
])("the pairs of %p", (text, pairs) => {
  expect(pairsOf(text)).toEqual(pairs);
});

test.each([
  [milliseconds("1s", "10m"), ["1s", "1000", "10m"], ["999", "11m", "abc", "-5"]],
  [share, ["0", "1", "0.25", 0.5, 1], ["1.5", "-0.1", "half", 2, ""]],
  [hostPort, ["127.0.0.1:9464", "[::1]:9464", "metrics.internal:80", ""], ["9464", ":9464", "::1:9464", "a:70000"]],
] as const)("%#: takes what fits and nothing else", (kind, good, bad) => {
  for (const raw of good) expect({ raw, fits: kind.parse(raw) !== undefined }).toEqual({ raw, fits: true });
  for (const raw of bad) expect({ raw, fits: kind.parse(raw) !== undefined }).toEqual({ raw, fits: false });
});
