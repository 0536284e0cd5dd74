import type { ObservableResult } from "@opentelemetry/api";
import { MeterProvider, MetricReader } from "@opentelemetry/sdk-metrics";

interface MetricSpec {
  /** What was counted since the process began, how it was spread, or how much there is at this moment. */
  readonly kind: "counter" | "histogram" | "gauge";
  readonly unit: string;
  readonly sentence: string;
  /** Each label with every value that it may have: a metric never grows with what is sent to it. */
  readonly labels: Readonly<Record<string, readonly string[]>>;
}

/** The queues of background jobs. */
const QUEUES = ["send-mail"] as const;

/** What is done again and again. */
const SCHEDULES = [
  "backup",
  "baselines",
  "clean-up",
  "daily-report",
  "deactivated-accounts",
  "freshness",
  "rotate-keys",
  "threat-lists",
  "unverified-accounts",
] as const;

/** What may be unlike what was usual before. */
const BASELINE_SIGNALS = ["new_hour", "new_country", "burst", "mostly_failures"] as const;

/** Where the buckets of durations end. */
const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** Every metric once. Counters and histograms begin with the process. */
export const METRICS = {
  "primer.tokens.verified": {
    kind: "counter",
    unit: "{token}",
    sentence: "Access tokens that were shown, by whose they are and whether they counted.",
    labels: { issuer: ["own", "legacy"], outcome: ["accepted", "refused"] },
  },
  "primer.sign_ins.unusual": {
    kind: "counter",
    unit: "{sign_in}",
    sentence: "Good sign-ins that were unusual, once by each thing that was.",
    labels: {
      signal: [
        ...BASELINE_SIGNALS,
        "bad_network",
        "new_device",
        "new_network",
        "failures_before",
        "many_failures_before",
        "impossible_travel",
      ],
    },
  },
  "primer.baselines.anomalies": {
    kind: "counter",
    unit: "{hour}",
    sentence: "Hours of accounts and networks that were unlike what is usual of them, once by each thing that was.",
    labels: { of: ["account", "network"], signal: BASELINE_SIGNALS },
  },
  "primer.threats.networks": {
    kind: "gauge",
    unit: "{network}",
    sentence: "Bad networks that this process knows from the lists in threats.sources.",
    labels: {},
  },
  "primer.threats.refreshes": {
    kind: "counter",
    unit: "{list}",
    sentence: "Tries to read such a list, by what came of each.",
    labels: { outcome: ["taken", "unchanged", "refused", "unreachable"] },
  },
  "primer.threats.refused": {
    kind: "counter",
    unit: "{request}",
    sentence: "Requests that were refused since they came from a bad network.",
    labels: { action: ["login", "register", "forgot_password", "resend_verification"] },
  },
  "primer.jobs.duration": {
    kind: "histogram",
    unit: "s",
    sentence: "How long background jobs ran in this process, by how each run ended.",
    labels: { queue: QUEUES, outcome: ["done", "retry", "dead", "given_back", "lost"] },
  },
  "primer.jobs.depth": {
    kind: "gauge",
    unit: "{job}",
    sentence: "Background jobs that wait, run, or were given up, of all processes together.",
    labels: { queue: QUEUES, state: ["waiting", "running", "dead"] },
  },
  "primer.jobs.oldest_age": {
    kind: "gauge",
    unit: "s",
    sentence: "Since when the oldest of those jobs has been there.",
    labels: { queue: QUEUES, state: ["waiting", "running", "dead"] },
  },
  "primer.backup.verified_age": {
    kind: "gauge",
    unit: "s",
    sentence: "How long ago the last backup was taken that has proven itself by a restore; none where there is none.",
    labels: {},
  },
  "primer.schedules.runs": {
    kind: "counter",
    unit: "{run}",
    sentence: "Runs of schedules in this process, by how each ended.",
    labels: { schedule: SCHEDULES, outcome: ["done", "retry", "failed", "interrupted"] },
  },
} as const satisfies Readonly<Record<string, MetricSpec>>;

export type MetricName = keyof typeof METRICS;
type NameOf<K extends MetricSpec["kind"]> = {
  [N in MetricName]: (typeof METRICS)[N]["kind"] extends K ? N : never;
}[MetricName];

export type LabelsOf<N extends MetricName> = {
  readonly [L in keyof (typeof METRICS)[N]["labels"]]: (typeof METRICS)[N]["labels"][L] extends readonly (infer V)[]
    ? V & string
    : never;
};

/** A metric as it stands. */
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
  /** Of a histogram: all of them together, and the largest one. */
  readonly sum?: number;
  readonly max?: number;
}

/** One amount with its labels. */
export interface Observation<N extends MetricName> {
  readonly value: number;
  readonly labels: LabelsOf<N>;
}

export interface Metrics {
  count<N extends NameOf<"counter">>(name: N, labels: LabelsOf<N>): void;
  record<N extends NameOf<"histogram">>(name: N, value: number, labels: LabelsOf<N>): void;
  /** From now on `look` is asked whenever somebody reads; where it fails, there is nothing to see for that time. */
  observe<N extends NameOf<"gauge">>(name: N, look: () => Promise<readonly Observation<N>[]>): void;
  read(): Promise<MetricReading[]>;
}

/** Is read when somebody asks, and sends nothing by itself. */
class ReadOnDemand extends MetricReader {
  protected async onForceFlush(): Promise<void> {}
  protected async onShutdown(): Promise<void> {}
}

export function createMetrics(): Metrics {
  const reader = new ReadOnDemand();
  const meter = new MeterProvider({ readers: [reader] }).getMeter("primer");
  const ofKind = <T>(kind: MetricSpec["kind"], create: (name: string, options: object) => T) =>
    new Map(
      Object.entries(METRICS)
        .filter(([, metric]) => metric.kind === kind)
        .map(([name, { unit, sentence }]) => [name, create(name, { unit, description: sentence })]),
    );
  const counters = ofKind("counter", (name, options) => meter.createCounter(name, options));
  const advice = { explicitBucketBoundaries: SECONDS };
  const histograms = ofKind("histogram", (name, options) => meter.createHistogram(name, { ...options, advice }));
  const gauges = ofKind("gauge", (name, options) => meter.createObservableGauge(name, options));
  return {
    count: (name, labels) => counters.get(name)?.add(1, labels),
    record: (name, value, labels) => histograms.get(name)?.record(value, labels),
    observe(name, look) {
      gauges.get(name)?.addCallback(async (result: ObservableResult) => {
        for (const { value, labels } of await look().catch(() => [])) result.observe(value, labels);
      });
    },
    async read() {
      const { resourceMetrics } = await reader.collect();
      const found = resourceMetrics.scopeMetrics.flatMap(({ metrics }) => metrics);
      return Object.entries(METRICS).map(([name, { unit, sentence: description }]) => ({
        name,
        unit,
        description,
        points: (found.find(({ descriptor }) => descriptor.name === name)?.dataPoints ?? []).map(pointOf),
      }));
    },
  };
}

function pointOf({ attributes, value }: { attributes: object; value: unknown }): MetricPoint {
  const labels = attributes as Record<string, string>;
  if (typeof value === "number") return { labels, value };
  const { count, sum, max } = value as { count: number; sum: number; max: number };
  return { labels, value: count, sum, max };
}
