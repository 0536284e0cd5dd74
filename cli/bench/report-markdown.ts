import type { BenchReport } from "./report.ts";
import { loadLine, machineLine, ms, number, percent, targetLine } from "./report-text.ts";

const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
const CEILING_NAMES: Readonly<Record<string, string>> = {
  login: "one password hash and one signature",
  refresh: "one signature",
  verify: "a bare GET of the framework",
  introspect: "a bare POST of the framework that parses the form",
  register: "one password hash and one signature",
  mixed: "the same for each of its requests",
};

/** The figures as a table for a README: what was reached, what was possible, on which machine. */
export function markdownReport(report: BenchReport): string {
  const head = ["scenario", "per second", "ceiling", "share", "p50", "p99", "CPU each", "memory"];
  const rows = report.scenarios.map((found) => [
    found.scenario,
    number(found.throughput),
    found.ceiling === null ? "unknown" : `${number(found.ceiling)} (${CEILING_NAMES[found.scenario]})`,
    percent(found.share_of_ceiling) || "unknown",
    ms(found.latency_ms.p50),
    ms(found.latency_ms.p99),
    found.server.cpu_seconds_per_operation === null ? "unknown" : ms(found.server.cpu_seconds_per_operation * 1000),
    found.server.peak_memory_mib === null ? "unknown" : `${found.server.peak_memory_mib} MiB`,
  ]);
  const about = `${targetLine(report)}; ${loadLine(report)}. Machine: ${machineLine(report)}, load generator included.`;
  return `${[row(head), row(head.map(() => "---")), ...rows.map(row)].join("\n")}\n\n${about}\n`;
}
