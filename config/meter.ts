import { hostname } from "node:os";
import type { ObservableResult } from "@opentelemetry/api";
import { resourceFromAttributes } from "@opentelemetry/resources";
import {
  type DataPoint,
  DataPointType,
  type Histogram,
  MeterProvider,
  type MetricData,
  MetricReader,
} from "@opentelemetry/sdk-metrics";
import { type LabelsOf, METRICS, type MetricName, type NameOf } from "./metrics.ts";
import { VERSION } from "./version.ts";

/** Where the buckets of durations end, in seconds: from a token that is known to a job that takes minutes. */
const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

/** One amount with its labels. */
export interface Observation<N extends MetricName> {
  readonly value: number;
  readonly labels: LabelsOf<N>;
}

/** Metrics as OpenTelemetry's kit collects them: may be written as JSON, and read again. */
export type Collected = readonly MetricData[];

export interface Metrics {
  count<N extends NameOf<"counter">>(name: N, labels: LabelsOf<N>): void;
  record<N extends NameOf<"histogram">>(name: N, value: number, labels: LabelsOf<N>): void;
  /** From now on `look` is asked whenever somebody reads; where it fails, there is nothing to see for that time. */
  observe<N extends NameOf<"gauge" | "tally">>(name: N, look: () => Promise<readonly Observation<N>[]>): void;
  /** All of them as they stand in this process. */
  collect(): Promise<Collected>;
  /** Sends what is to be sent elsewhere, and stops doing so. */
  close(): Promise<void>;
}

/** Is read when somebody asks, and sends nothing by itself. */
class ReadOnDemand extends MetricReader {
  protected async onForceFlush(): Promise<void> {}
  protected async onShutdown(): Promise<void> {}
}

/** Whose telemetry it is (OpenTelemetry's resource). What is given by OTEL_RESOURCE_ATTRIBUTES adds to it. */
export const resourceOf = (environment: string, more: Readonly<Record<string, string>> = {}) =>
  resourceFromAttributes({
    "service.name": "primer",
    "service.version": VERSION,
    "service.instance.id": `${hostname()}-${process.pid}`,
    environment,
    ...more,
  });

export interface MeterOptions {
  readonly resource: ReturnType<typeof resourceOf>;
  /** What reads them from time to time and sends them somewhere. */
  readonly readers?: readonly MetricReader[];
}

export function createMetrics({ resource, readers = [] }: MeterOptions): Metrics {
  const reader = new ReadOnDemand();
  const provider = new MeterProvider({ resource, readers: [reader, ...readers] });
  const meter = provider.getMeter("primer");
  const ofKind = <T>(kind: string, create: (name: string, options: object) => T) =>
    new Map(
      Object.entries(METRICS)
        .filter(([, metric]) => metric.kind === kind)
        .map(([name, { unit, sentence }]) => [name, create(name, { unit, description: sentence })]),
    );
  const counters = ofKind("counter", (name, options) => meter.createCounter(name, options));
  const advice = { explicitBucketBoundaries: SECONDS };
  const histograms = ofKind("histogram", (name, options) => meter.createHistogram(name, { ...options, advice }));
  const observed = new Map([
    ...ofKind("gauge", (name, options) => meter.createObservableGauge(name, options)),
    ...ofKind("tally", (name, options) => meter.createObservableCounter(name, options)),
  ]);
  return {
    count: (name, labels) => counters.get(name)?.add(1, labels),
    record: (name, value, labels) => histograms.get(name)?.record(value, labels),
    observe(name, look) {
      observed.get(name)?.addCallback(async (result: ObservableResult) => {
        for (const { value, labels } of await look().catch(() => [])) result.observe(value, labels);
      });
    },
    async collect() {
      const { resourceMetrics } = await reader.collect();
      return resourceMetrics.scopeMetrics.flatMap(({ metrics }) => metrics);
    },
    close: () => provider.shutdown(),
  };
}

/** What the metrics of several processes of a node come to: what each has counted together, and amounts once. */
export function sumOf(collected: readonly Collected[]): Collected {
  const sums = new Map<string, { metric: MetricData; points: Map<string, DataPoint<unknown>> }>();
  for (const metric of collected.flat()) {
    const { name } = metric.descriptor;
    const sum = sums.get(name) ?? { metric, points: new Map() };
    sums.set(name, sum);
    for (const point of metric.dataPoints as DataPoint<unknown>[]) {
      const key = JSON.stringify(Object.entries(point.attributes).sort());
      const before = sum.points.get(key);
      sum.points.set(key, before ? { ...point, value: together(metric, before.value, point.value) } : point);
    }
  }
  return [...sums.values()].map(
    ({ metric, points }) => ({ ...metric, dataPoints: [...points.values()] }) as MetricData,
  );
}

function together({ dataPointType, descriptor }: MetricData, one: unknown, other: unknown): unknown {
  if (dataPointType === DataPointType.HISTOGRAM) return histogramOf(one as Histogram, other as Histogram);
  const [a, b] = [one as number, other as number];
  const metric = METRICS[descriptor.name as MetricName];
  return "across" in metric && metric.across === "max" ? Math.max(a, b) : a + b;
}

const histogramOf = (one: Histogram, other: Histogram): Histogram => ({
  buckets: {
    boundaries: one.buckets.boundaries,
    counts: one.buckets.counts.map((count, index) => count + (other.buckets.counts[index] ?? 0)),
  },
  count: one.count + other.count,
  sum: (one.sum ?? 0) + (other.sum ?? 0),
  max: Math.max(one.max ?? 0, other.max ?? 0),
});

/** A metric as people read it. */
export interface MetricReading {
  readonly name: string;
  readonly unit: string;
  readonly description: string;
  readonly points: readonly MetricPoint[];
}

export interface MetricPoint {
  readonly labels: Readonly<Record<string, string>>;
  /** The count or the amount; of a histogram how many there were. */
  readonly value: number;
  /** Of a histogram: all of them together, the largest one, and how large so many of a hundred were at most, about. */
  readonly sum?: number;
  readonly max?: number;
  readonly p50?: number;
  readonly p95?: number;
  readonly p99?: number;
}

/** Every metric there is, those without a point included. */
export const readingsOf = (collected: Collected): MetricReading[] =>
  Object.entries(METRICS).map(([name, { unit, sentence: description }]) => {
    const found = collected.find(({ descriptor }) => descriptor.name === name);
    const points = (found?.dataPoints ?? []) as readonly DataPoint<number | Histogram>[];
    return { name, unit, description, points: points.map(pointOf) };
  });

function pointOf({ attributes, value }: DataPoint<number | Histogram>): MetricPoint {
  const labels = attributes as Record<string, string>;
  if (typeof value === "number") return { labels, value };
  const { count, sum = 0, max = 0 } = value;
  const [p50, p95, p99] = [0.5, 0.95, 0.99].map((share) => quantileOf(value, share));
  return { labels, value: count, sum, max, ...(count > 0 ? { p50, p95, p99 } : {}) } as MetricPoint;
}

/** As Prometheus' histogram_quantile does it: in proportion within the bucket; in the last one the largest that was seen. */
function quantileOf({ buckets: { boundaries, counts }, count, max = 0 }: Histogram, share: number): number {
  let left = share * count;
  for (const [index, inBucket] of counts.entries()) {
    const [from, to] = [boundaries[index - 1] ?? 0, Math.min(boundaries[index] ?? max, max)];
    if (left <= inBucket && inBucket > 0) return from + (Math.max(to, from) - from) * (left / inBucket);
    left -= inBucket;
  }
  return max;
}
