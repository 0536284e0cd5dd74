import { misused } from "../../config/errors.ts";
import type { BenchReport, ScenarioReport } from "./report.ts";
import { SCENARIOS, type Scenario } from "./scenarios.ts";

/** What must hold: "login.p99<200ms". */
export interface Assertion {
  readonly text: string;
  readonly scenario: Scenario;
  readonly metric: Metric;
  readonly operator: Operator;
  /** In the metric's own unit. */
  readonly value: number;
}

/** How an assertion turned out. */
export interface Judged {
  readonly assertion: string;
  readonly held: boolean;
  /** In the metric's own unit; null where it was not to be had. */
  readonly actual: number | null;
  readonly unit: string;
}

type Operator = "<" | "<=" | ">" | ">=";
const HOLDS: Readonly<Record<Operator, (actual: number, value: number) => boolean>> = {
  "<": (actual, value) => actual < value,
  "<=": (actual, value) => actual <= value,
  ">": (actual, value) => actual > value,
  ">=": (actual, value) => actual >= value,
};

interface MetricKind {
  /** What each unit is worth in the metric's own, which stands first. The unit must be given where it is not "". */
  readonly units: Readonly<Record<string, number>>;
  of(scenario: ScenarioReport): number | null;
}

const TIME = { ms: 1, us: 0.001, s: 1000 };
const time = (of: MetricKind["of"]): MetricKind => ({ units: TIME, of });

const METRICS = {
  mean: time(({ latency_ms }) => latency_ms.mean),
  p50: time(({ latency_ms }) => latency_ms.p50),
  p90: time(({ latency_ms }) => latency_ms.p90),
  p99: time(({ latency_ms }) => latency_ms.p99),
  "p99.9": time(({ latency_ms }) => latency_ms["p99.9"]),
  max: time(({ latency_ms }) => latency_ms.max),
  cpu: time(({ server }) =>
    server.cpu_seconds_per_operation === null ? null : server.cpu_seconds_per_operation * 1000,
  ),
  throughput: { units: { "/s": 1, "": 1 }, of: ({ throughput }) => throughput },
  errors: { units: { "%": 1 }, of: ({ error_share }) => error_share * 100 },
  share: {
    units: { "%": 1 },
    of: ({ share_of_ceiling }) => (share_of_ceiling === null ? null : share_of_ceiling * 100),
  },
  memory: { units: { MiB: 1, GiB: 1024 }, of: ({ server }) => server.peak_memory_mib },
} as const satisfies Readonly<Record<string, MetricKind>>;
type Metric = keyof typeof METRICS;

const FORM = /^([a-z]+)\.([a-z0-9.]+?)\s*(<=|>=|<|>)\s*(\d+(?:\.\d+)?)\s*(%|\/s|[a-zA-Z]*)$/;
const ALLOWED = `SCENARIO.METRIC OPERATOR VALUE, such as login.p99<200ms: scenarios ${SCENARIOS.join(", ")}; metrics ${Object.entries(
  METRICS,
)
  .map(
    ([name, { units }]) =>
      `${name} (${Object.keys(units)
        .filter((unit) => unit !== "")
        .join(", ")})`,
  )
  .join(", ")}; operators <, <=, >, >=`;

/** Reads an assertion. @throws OperatorError exit 2 saying what is allowed */
export function parseAssertion(text: string): Assertion {
  const refuse = (what: string) => misused(`--assert ${text}: ${what}.`, `Allowed is ${ALLOWED}.`);
  const [, name = "", metric = "", operator = "<", number = "", unit = ""] = FORM.exec(text.trim()) ?? [];
  if (name === "") throw refuse("this is no assertion");
  const scenario = SCENARIOS.find((known) => known === name);
  if (!scenario) throw refuse(`there is no scenario ${name}`);
  if (!isMetric(metric)) throw refuse(`there is no metric ${metric}`);
  const units: Readonly<Record<string, number>> = METRICS[metric].units;
  if (!Object.hasOwn(units, unit)) throw refuse(`${metric} is not measured in "${unit}"`);
  return { text, scenario, metric, operator: operator as Operator, value: Number(number) * (units[unit] ?? 1) };
}

const isMetric = (name: string): name is Metric => Object.hasOwn(METRICS, name);

/** @throws OperatorError exit 2 where one is of a scenario that is not run: it would hold nothing */
export function assertScenariosRun(assertions: readonly Assertion[], scenarios: readonly Scenario[]): void {
  const stray = assertions.find(({ scenario }) => !scenarios.includes(scenario));
  if (stray)
    throw misused(`--assert ${stray.text}: ${stray.scenario} is not run.`, `Run are: ${scenarios.join(", ")}.`);
}

/** Holds a report against what must hold. What could not be measured does not hold: of no request nothing is fast. */
export function judge(assertions: readonly Assertion[], { scenarios }: Pick<BenchReport, "scenarios">): Judged[] {
  return assertions.map(({ text, scenario, metric, operator, value }) => {
    const found = scenarios.find((entry) => entry.scenario === scenario);
    const isMeasured = found && (found.requests > 0 || metric === "throughput");
    const actual = isMeasured ? METRICS[metric].of(found) : null;
    const unit = Object.keys(METRICS[metric].units)[0] ?? "";
    return { assertion: text, held: actual !== null && HOLDS[operator](actual, value), actual, unit };
  });
}
