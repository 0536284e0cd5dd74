import { MeterProvider, MetricReader } from "@opentelemetry/sdk-metrics";

interface MetricSpec {
  readonly unit: string;
  readonly sentence: string;
  /** Each label with every value that it may have: a metric never grows with what is sent to it. */
  readonly labels: Readonly<Record<string, readonly string[]>>;
}

/** Every metric once. All of them count up from the start of the process. */
export const METRICS = {
  "primer.tokens.verified": {
    unit: "{token}",
    sentence: "Access tokens that were shown, by whose they are and whether they counted.",
    labels: { issuer: ["own", "legacy"], outcome: ["accepted", "refused"] },
  },
} as const satisfies Readonly<Record<string, MetricSpec>>;

export type MetricName = keyof typeof METRICS;

type LabelsOf<N extends MetricName> = {
  readonly [L in keyof (typeof METRICS)[N]["labels"]]: (typeof METRICS)[N]["labels"][L] extends readonly (infer V)[]
    ? V & string
    : never;
};

/** A metric as it stands. */
export interface MetricReading {
  readonly name: string;
  readonly unit: string;
  readonly description: string;
  readonly points: readonly { readonly labels: Readonly<Record<string, string>>; readonly value: number }[];
}

export interface Metrics {
  count<N extends MetricName>(name: N, labels: LabelsOf<N>): void;
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
  const counters = new Map(
    Object.entries(METRICS).map(([name, { unit, sentence }]) => [
      name,
      meter.createCounter(name, { unit, description: sentence }),
    ]),
  );
  return {
    count: (name, labels) => counters.get(name)?.add(1, labels),
    async read() {
      const { resourceMetrics } = await reader.collect();
      const found = resourceMetrics.scopeMetrics.flatMap(({ metrics }) => metrics);
      return Object.entries(METRICS).map(([name, { unit, sentence: description }]) => ({
        name,
        unit,
        description,
        points: (found.find(({ descriptor }) => descriptor.name === name)?.dataPoints ?? []).map((point) => ({
          labels: point.attributes as Record<string, string>,
          value: point.value as number,
        })),
      }));
    },
  };
}
