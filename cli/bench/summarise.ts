/** Makes the report of a scenario from what its rounds measured. */
import { createHistogram, type Histogram, type StoredHistogram } from "./histogram.ts";
import type { Measured } from "./measure.ts";
import { stagesBetween } from "./prometheus.ts";
import type { CeilingReport, Latency, Round, ScenarioReport } from "./report.ts";
import { type Ceilings, ceilingOf, type Kind, type Mix } from "./scenarios.ts";

const BARS = 16;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

const rounded = (value: number, digits = 3) => Number(value.toFixed(digits));

/** @param rounds of one scenario, at least one */
export function summarise(rounds: readonly [Measured, ...Measured[]]): ScenarioReport {
  const [{ scenario, load }] = rounds;
  const mix = "mix" in load.what ? load.what.mix : {};
  const results = rounds.map(({ result }) => result);
  const closed = load.rate === null;
  const raw = merged(results.map(({ latency }) => latency));
  // Where kinds are mixed, one that takes long is no stall: nobody else waits for it.
  const corrects = closed && Object.keys(mix).length === 1;
  const latency = corrects ? merged(results.map((result) => correctedOf(result.latency))) : raw;
  const each = rounds.map((measured) => roundOf(measured, mix, corrects));
  const shares = each.flatMap(({ throughput, ceiling }) => (ceiling === null ? [] : [throughput / ceiling]));
  const ceilings = each.flatMap(({ ceiling }) => (ceiling === null ? [] : [ceiling]));
  const requests = sum(results.map((result) => result.requests));
  const failures = sum(results.flatMap(({ errors }) => Object.values(errors)));
  return {
    scenario,
    mix,
    requests,
    throughput: rounded(median(each.map(({ throughput }) => throughput)), 1),
    latency_ms: latencyOf(latency),
    uncorrected_latency_ms: corrects ? latencyOf(raw) : null,
    latency_by_kind_ms: byKind(rounds),
    histogram: barsOf(latency),
    errors: added(results.map(({ errors }) => errors)),
    error_share: requests === 0 ? 0 : rounded(failures / requests, 6),
    ceiling: ceilings.length === 0 ? null : rounded(median(ceilings), 1),
    share_of_ceiling: shares.length === 0 ? null : rounded(median(shares)),
    server: serverOf(rounds),
    generator: {
      late_p99_ms: closed ? null : rounded(merged(results.map(({ lateness }) => lateness)).percentileMs(0.99)),
      waited_for_connection: sum(results.map(({ waited }) => waited)),
      cores: rounded(Math.max(...results.map(({ cores }) => cores))),
    },
    rounds: each,
  };
}

/** The median of what the machine could do in each round. */
export function ceilingReport(found: readonly Ceilings[]): CeilingReport | null {
  if (found.length === 0) return null;
  const of = (pick: (ceilings: Ceilings) => number) => rounded(median(found.map(pick)), 1);
  return {
    hash_per_second: of(({ hash }) => hash),
    sign_per_second: of(({ sign }) => sign),
    bare_get_per_second: of(({ get }) => get),
    bare_post_per_second: of(({ post }) => post),
  };
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

function added(records: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const [name, count] of records.flatMap(Object.entries<number>)) total[name] = (total[name] ?? 0) + count;
  return total;
}

function merged(stored: readonly StoredHistogram[]): Histogram {
  const all = createHistogram();
  for (const one of stored) all.add(one);
  return all;
}

function correctedOf(stored: StoredHistogram): StoredHistogram {
  const histogram = createHistogram(stored);
  return histogram.corrected(histogram.meanMs()).store();
}

function latencyOf(histogram: Histogram): Latency {
  const at = (share: number) => rounded(histogram.percentileMs(share));
  return {
    mean: rounded(histogram.meanMs()),
    p50: at(0.5),
    p90: at(0.9),
    p99: at(0.99),
    "p99.9": at(0.999),
    max: rounded(histogram.maxMs()),
  };
}

function roundOf({ result, ceilings }: Measured, mix: Mix, corrects: boolean): Round {
  const histogram = createHistogram(corrects ? correctedOf(result.latency) : result.latency);
  return {
    throughput: rounded(result.completed / result.seconds, 1),
    p50: rounded(histogram.percentileMs(0.5)),
    p99: rounded(histogram.percentileMs(0.99)),
    ceiling: ceilings && rounded(ceilingOf(mix, ceilings), 1),
  };
}

function byKind(rounds: readonly Measured[]): Partial<Record<Kind, Latency>> {
  const kinds = [...new Set(rounds.flatMap(({ result }) => Object.keys(result.byKind) as Kind[]))];
  if (kinds.length < 2) return {};
  return Object.fromEntries(
    kinds.map((kind) => [kind, latencyOf(merged(rounds.flatMap(({ result }) => result.byKind[kind] ?? [])))]),
  );
}

function serverOf(rounds: readonly [Measured, ...Measured[]]): ScenarioReport["server"] {
  const cpu = rounds.flatMap(({ cpuSeconds }) => (cpuSeconds === null ? [] : [cpuSeconds]));
  const peaks = rounds.flatMap(({ peakMiB }) => (peakMiB === null ? [] : [peakMiB]));
  const done = sum(rounds.map(({ result }) => result.completed));
  const told = rounds.flatMap(({ metrics }) => (metrics ? [metrics] : []));
  const [first, last] = [told[0], told.at(-1)];
  // What other scenarios did between the rounds would be in it, so of several rounds the last one counts.
  const stages = first && last ? stagesBetween(last.before, last.after) : [];
  return {
    cpu_seconds_per_operation: cpu.length < rounds.length || done === 0 ? null : rounded(sum(cpu) / done, 9),
    peak_memory_mib: peaks.length === 0 ? null : Math.round(Math.max(...peaks)),
    stages:
      stages.length === 0
        ? null
        : stages.map(({ stage, count, meanMs, p50Ms, p99Ms }) => ({
            stage,
            count,
            mean_ms: rounded(meanMs),
            p50_ms: p50Ms,
            p99_ms: p99Ms,
          })),
  };
}

/** Bars of equal ratio from the fastest to the slowest: latencies spread over orders of magnitude. */
function barsOf(histogram: Histogram): [number, number][] {
  if (histogram.count === 0) return [];
  const low = Math.max(0.001, histogram.percentileMs(0.0001) * 0.99);
  const high = Math.max(low * 1.01, histogram.maxMs() * 1.01);
  const step = (high / low) ** (1 / BARS);
  return Array.from({ length: BARS }, (_, index) => {
    const [from, to] = [index === 0 ? 0 : low * step ** index, low * step ** (index + 1)];
    return [rounded(to), histogram.countBetween(from, to)];
  });
}
