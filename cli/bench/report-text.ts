/** The report for a terminal. */
import { bold, dim, green, type Io, red, table, yellow } from "../io.ts";
import type { Judged } from "./assertions.ts";
import type { Comparison } from "./compare.ts";
import type { BenchReport, ScenarioReport } from "./report.ts";

type Paper = Pick<Io, "color" | "columns">;

/** A duration in milliseconds with the unit that suits it. */
export function ms(value: number): string {
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  if (value >= 100) return `${value.toFixed(0)} ms`;
  if (value >= 1) return `${value.toFixed(1)} ms`;
  return `${(value * 1000).toFixed(0)} µs`;
}

/** A count or rate: whole, in groups of three; with a decimal where it is small. */
export const number = (value: number): string =>
  value < 100 && !Number.isInteger(value) ? value.toFixed(1) : Math.round(value).toLocaleString("en-US");

export const percent = (share: number | null): string =>
  share === null ? "" : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;

export function machineLine({ machine }: Pick<BenchReport, "machine">): string {
  const { cpu, cores, memory_mib, system, runtime } = machine;
  return `${cores} cores of ${cpu}, ${(memory_mib / 1024).toFixed(0)} GiB, ${system}, ${runtime}`;
}

export function targetLine({ target }: Pick<BenchReport, "target">): string {
  const { kind, url, version, database, redis, users, workers, password_hash, signature, processes } = target;
  const own = [
    database === "embedded" ? "embedded database" : "PostgreSQL",
    redis ? "Redis" : "",
    users === null ? "" : `${number(users)} users`,
    password_hash ?? "",
    signature ?? "",
    workers !== null && workers > 1 ? `--workers ${workers}` : "",
    processes !== null && processes > 1 ? `${processes} processes` : "",
  ].filter((part) => part !== "");
  return kind === "own" ? `primer ${version}, own server: ${own.join(", ")}` : `primer ${version} at ${url}`;
}

export function loadLine({ load }: Pick<BenchReport, "load">): string {
  const { connections, rate, duration_s, warm_up_s, rounds } = load;
  const how =
    rate === null
      ? `${connections} connections, each sends when it is answered`
      : `${rate} requests/s, whatever the server does, over ${connections} connections`;
  return `${how}; ${rounds === 1 ? "" : `${rounds} rounds of `}${duration_s} s after ${warm_up_s} s of warm-up`;
}

export function textReport(
  paper: Paper,
  report: BenchReport,
  comparisons: readonly Comparison[],
  judged: readonly Judged[],
): string {
  const { scenarios, notes } = report;
  return [
    `${machineLine(report)}\n${targetLine(report)}\n${loadLine(report)}\n`,
    ceilingLine(report),
    figures(scenarios),
    ...scenarios.map((scenario) => details(paper, scenario)),
    comparisons.length === 0 ? "" : compared(paper, comparisons),
    judged.length === 0 ? "" : assertions(paper, judged),
    notes.map((note) => `${yellow(paper, "!!")} ${note}\n`).join(""),
  ]
    .filter((part) => part !== "")
    .join("\n");
}

function ceilingLine({ ceiling }: BenchReport): string {
  if (!ceiling) return "";
  const limits: [string, number | null][] = [
    ["password hashes/s", ceiling.hash_per_second],
    ["signatures/s", ceiling.sign_per_second],
    ["bare GET/s", ceiling.bare_get_per_second],
    ["bare POST/s", ceiling.bare_post_per_second],
  ];
  const known = limits.flatMap(([name, rate]) => (rate === null ? [] : [`${number(rate)} ${name}`]));
  return `This machine at best: ${known.join(", ")}\n`;
}

const figures = (scenarios: readonly ScenarioReport[]): string =>
  table(
    ["SCENARIO", "PER SECOND", "OF CEILING", "P50", "P90", "P99", "P99.9", "MAX", "ERRORS", "CPU EACH", "MEMORY"],
    scenarios.map(({ scenario, throughput, share_of_ceiling, latency_ms: latency, error_share, server }) => [
      scenario,
      number(throughput),
      percent(share_of_ceiling),
      ...[latency.p50, latency.p90, latency.p99, latency["p99.9"], latency.max].map(ms),
      error_share === 0 ? "0" : percent(error_share),
      server.cpu_seconds_per_operation === null ? "unknown" : ms(server.cpu_seconds_per_operation * 1000),
      server.peak_memory_mib === null ? "unknown" : `${server.peak_memory_mib} MiB`,
    ]),
  );

function details(paper: Paper, report: ScenarioReport): string {
  const {
    scenario,
    errors,
    server,
    generator,
    uncorrected_latency_ms: uncorrected,
    latency_by_kind_ms,
    latency_ms,
  } = report;
  const lines = [
    bold(paper, scenario),
    ...drawn(paper, report),
    ...Object.entries(errors).map(([name, count]) => `  ${red(paper, "error")}  ${name}: ${number(count)}`),
    ...Object.entries(latency_by_kind_ms).map(
      ([kind, latency]) =>
        `  ${kind.padEnd(10)}  p50 ${ms(latency.p50)}, p99 ${ms(latency.p99)}, max ${ms(latency.max)}`,
    ),
    uncorrected && uncorrected.p99 < latency_ms.p99 * 0.95
      ? dim(
          paper,
          `  p99 as the ${number(report.requests)} requests saw it ${ms(uncorrected.p99)}; above, those count too that stalls kept from being sent`,
        )
      : "",
    server.stages === null
      ? ""
      : `  stages      ${server.stages.map(({ stage, mean_ms, p99_ms }) => `${stage} ${ms(mean_ms)}${p99_ms === null ? "" : ` (p99 ≤ ${ms(p99_ms)})`}`).join(", ")}`,
    dim(paper, `  generator   ${generatorLine(generator)}`),
  ];
  return `${lines.filter((line) => line !== "").join("\n")}\n`;
}

function generatorLine({ late_p99_ms, waited_for_connection, cores }: ScenarioReport["generator"]): string {
  const busy = `${(cores * 100).toFixed(0)} % of a core`;
  const full = cores > 0.95 ? "; it may have been the bottleneck itself" : "";
  if (late_p99_ms === null) return `${busy}${full}`;
  const waited =
    waited_for_connection === 0 ? "" : `; ${number(waited_for_connection)} requests found no free connection`;
  return `late by ${ms(late_p99_ms)} at p99, ${busy}${full}${waited}`;
}

const EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

function drawn({ columns }: Paper, { histogram }: ScenarioReport): string[] {
  const highest = Math.max(1, ...histogram.map(([, count]) => count));
  const width = Math.max(10, Math.min(60, columns - 30));
  return histogram.map(([upTo, count]) => {
    const eighths = Math.round((count / highest) * width * 8);
    const bar = "█".repeat(Math.floor(eighths / 8)) + (EIGHTHS[eighths % 8] ?? "") || (count > 0 ? "▏" : "");
    return `  ${ms(upTo).padStart(8)}  ${bar}${count === 0 ? "" : ` ${number(count)}`}`;
  });
}

function compared(paper: Paper, comparisons: readonly Comparison[]): string {
  const paint = { faster: green, slower: red, "no difference": dim };
  const lines = comparisons.map(({ scenario, metric, ratio, low, high, p, verdict }) => {
    const spread = `${ratio.toFixed(3)} times (${low.toFixed(3)} to ${high.toFixed(3)}, p ${p.toFixed(3)})`;
    return `  ${scenario.padEnd(10)}  ${paint[verdict](paper, verdict.padEnd(13))}  ${metric}: ${spread}`;
  });
  return `${bold(paper, "Compared")}\n${lines.join("\n")}\n`;
}

function assertions(paper: Paper, judged: readonly Judged[]): string {
  const lines = judged.map(({ assertion, held, actual, unit }) => {
    const was = actual === null ? "could not be measured" : `${Number(actual.toPrecision(4))} ${unit}`;
    return `  ${held ? green(paper, "holds") : red(paper, "does not hold")}  ${assertion}  (${was})`;
  });
  return `${bold(paper, "Assertions")}\n${lines.join("\n")}\n`;
}
