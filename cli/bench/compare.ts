/** Whether a server has become faster or slower, told apart from the noise of the machine. */
import { readFileSync } from "node:fs";
import { misused, textOf } from "../../config/errors.ts";
import { type BenchReport, FORMAT, type Round, type ScenarioReport } from "./report.ts";
import type { Scenario } from "./scenarios.ts";

export type Verdict = "faster" | "slower" | "no difference";

export interface Comparison {
  readonly scenario: Scenario;
  readonly metric: string;
  /** Over 1 is better now: the middle of the ratios of every round now to every round then (Hodges and Lehmann). */
  readonly ratio: number;
  /** In which the true ratio is, in 98 of 100 cases. */
  readonly low: number;
  readonly high: number;
  /** How probable rounds that differ as much are where nothing has changed (Mann and Whitney). */
  readonly p: number;
  readonly verdict: Verdict;
}

/** As improbable as differences of mere chance have to be; five rounds against five can be. */
export const SIGNIFICANT = 0.02;
/** Of each side, so that the above can be reached. */
export const FEWEST_ROUNDS = 5;

interface Compared {
  readonly metric: string;
  /** A smaller difference is none: machines differ by as much from one hour to the next. */
  readonly least: number;
  /** More is better. */
  of(round: Round): number | null;
}

const perSecond: Compared = { metric: "throughput", least: 0.05, of: ({ throughput }) => throughput };
/** Where the machine is slower today, so is its ceiling, which was measured moments before. */
const ofCeiling: Compared = {
  metric: "throughput, as a share of the ceiling",
  least: 0.05,
  of: ({ throughput, ceiling }) => (ceiling === null ? null : throughput / ceiling),
};
const faster = (metric: "p50" | "p99", least: number): Compared => ({
  metric: `speed at ${metric}`,
  least,
  of: (round) => (round[metric] === 0 ? null : 1 / round[metric]),
});

/** Where the rate is given it says nothing; how long requests took does. */
const atRate = [faster("p50", 0.1), faster("p99", 0.25)];

/** Reads the report of an earlier bench. @throws OperatorError exit 2 */
export function readReport(path: string): BenchReport {
  let report: Partial<BenchReport>;
  try {
    report = JSON.parse(readFileSync(path, "utf8")) as Partial<BenchReport>;
  } catch (error) {
    throw misused(`--compare: ${path} cannot be read: ${textOf(error)}`, "It takes what --out FILE.json wrote.");
  }
  if (report?.format === FORMAT && Array.isArray(report.scenarios)) return report as BenchReport;
  throw misused(`--compare: ${path} is no report of this kind (${FORMAT}).`, "It takes what --out FILE.json wrote.");
}

/**
 * Sees before anything is measured that it can be compared.
 *
 * @throws OperatorError exit 2 where the load is another one, or rounds are too few for a verdict
 */
export function assertComparable(
  before: BenchReport,
  now: {
    readonly connections: number;
    readonly rate: number | null;
    readonly rounds: number;
    scenarios: readonly Scenario[];
  },
): void {
  const { load } = before;
  if (load.connections !== now.connections || load.rate !== now.rate) {
    const then = `--connections ${load.connections}${load.rate === null ? " and no --rate" : ` --rate ${load.rate}`}`;
    throw misused(`--compare: that report was made with another load: ${then}.`, "Use the same.");
  }
  const fewest = Math.min(load.rounds, now.rounds);
  if (fewest < FEWEST_ROUNDS) {
    throw misused(
      `--compare: there are ${fewest} rounds on one side, and chance is told from change by ${FEWEST_ROUNDS} at least.`,
      `Make both with --rounds ${FEWEST_ROUNDS} or more.`,
    );
  }
  if (now.scenarios.some((name) => before.scenarios.some(({ scenario }) => scenario === name))) return;
  throw misused(
    "--compare: that report has none of these scenarios.",
    `It has: ${before.scenarios.map(({ scenario }) => scenario).join(", ")}.`,
  );
}

/** Compares every scenario that both have. */
export function compareReports(before: BenchReport, now: BenchReport): Comparison[] {
  return now.scenarios.flatMap((scenario) => {
    const earlier = before.scenarios.find((entry) => entry.scenario === scenario.scenario);
    return earlier ? compareScenarios(earlier, scenario, now.load.rate !== null) : [];
  });
}

function compareScenarios(before: ScenarioReport, now: ScenarioReport, hasRate: boolean): Comparison[] {
  const hasCeiling = [...before.rounds, ...now.rounds].every(({ ceiling }) => ceiling !== null);
  return (hasRate ? atRate : [hasCeiling ? ofCeiling : perSecond]).map(({ metric, least, of }) => {
    const [old, current] = [before, now].map(({ rounds }) => rounds.map((round) => of(round) ?? 0));
    return { scenario: now.scenario, metric, ...compareSamples(old ?? [], current ?? [], least) };
  });
}

/** The two-sided rank test, and the interval of ratios that goes with it. @param least the smallest ratio that counts */
export function compareSamples(
  before: readonly number[],
  now: readonly number[],
  least: number,
): Pick<Comparison, "ratio" | "low" | "high" | "p" | "verdict"> {
  const ratios = now.flatMap((after) => before.map((old) => after / old)).sort((a, b) => a - b);
  const wins = ratios.filter((ratio) => ratio > 1).length + ratios.filter((ratio) => ratio === 1).length / 2;
  const below = rankDistribution(before.length, now.length);
  const p = Math.min(1, 2 * below(Math.floor(Math.min(wins, ratios.length - wins))));
  let outer = 0;
  while (2 * below(outer) <= SIGNIFICANT) outer++;
  const middle = ratios.length / 2;
  const ratio = ((ratios[Math.floor(middle - 0.5)] ?? 1) + (ratios[Math.ceil(middle - 0.5)] ?? 1)) / 2;
  const at = (index: number) => ratios[Math.min(ratios.length - 1, Math.max(0, index))] ?? 1;
  const differs = p <= SIGNIFICANT && (ratio >= 1 + least || ratio <= 1 / (1 + least));
  return {
    ratio,
    low: at(outer - 1),
    high: at(ratios.length - outer),
    p,
    verdict: differs ? (ratio > 1 ? "faster" : "slower") : "no difference",
  };
}

/**
 * How probable it is that U is this or less where both samples are of one kind (Mann and Whitney 1947): the number of ways
 * to lay out m and n values with U inversions, over all of them.
 */
function rankDistribution(m: number, n: number): (u: number) => number {
  // ways[j][u]: with j of the second sample and as many of the first as were taken so far
  let ways = Array.from({ length: n + 1 }, () => [1]);
  for (let first = 1; first <= m; first++) {
    const next: number[][] = [[1]];
    for (let second = 1; second <= n; second++) {
      const [before, without] = [ways[second] ?? [], next[second - 1] ?? []];
      // The largest is of the first sample, above all `second` of the other; or it is of the second.
      const length = first * second + 1;
      next.push(Array.from({ length }, (_, u) => (before[u - second] ?? 0) + (without[u] ?? 0)));
    }
    ways = next;
  }
  const counts = ways[n] ?? [1];
  const total = counts.reduce((sum, count) => sum + count, 0);
  return (u) => counts.slice(0, u + 1).reduce((sum, count) => sum + count, 0) / total;
}
