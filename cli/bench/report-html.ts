/** The report as one page that needs nothing else: drawn here as SVG, without scripts, for light and dark, wide and narrow. */
import type { Judged } from "./assertions.ts";
import type { Comparison } from "./compare.ts";
import type { BenchReport, ScenarioReport } from "./report.ts";
import { loadLine, machineLine, ms, number, percent, targetLine } from "./report-text.ts";

const STYLE = `
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5c6875; --paper: #fff; --line: #d9dfe5; --bar: #1f5f8b; --rest: #dce6ee; --bad: #b3261e; --good: #1e7d45; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --soft: #9aa7b4; --paper: #14191f; --line: #2d3742; --bar: #6db3e2; --rest: #253341; --bad: #ff8a80; --good: #7fd6a0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p { color: var(--soft); margin: .25rem 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; } th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font: 18px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1.5rem; }
.bar { fill: var(--bar); } .rest { fill: var(--rest); } .bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); font-weight: 600; }
`;

const escaped = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  `<div class="scroll"><table><thead><tr>${head.map((cell) => `<th>${escaped(cell)}</th>`).join("")}</tr></thead><tbody>${rows
    .map((row) => `<tr>${row.map((cell) => `<td>${cell}</td>`).join("")}</tr>`)
    .join("")}</tbody></table></div>`;

export function htmlReport(report: BenchReport, comparisons: readonly Comparison[], judged: readonly Judged[]): string {
  const { scenarios, started_at, notes } = report;
  const parts = [
    `<h1>primer bench</h1>`,
    ...[started_at, targetLine(report), machineLine(report), loadLine(report)].map((line) => `<p>${escaped(line)}</p>`),
    judged.length === 0 ? "" : section("Assertions", assertionTable(judged)),
    comparisons.length === 0 ? "" : section("Compared with the earlier report", comparisonTable(comparisons)),
    report.ceiling === null ? "" : section("Share of what this machine can do", shareChart(scenarios)),
    section("Figures", figureTable(scenarios)),
    section("How long requests took", `<div class="grid">${scenarios.map(latencyChart).join("")}</div>`),
    scenarios.some(({ server }) => server.stages)
      ? section("Where the time goes in the server", stageTable(scenarios))
      : "",
    scenarios.some(({ errors }) => Object.keys(errors).length > 0) ? section("Errors", errorTable(scenarios)) : "",
    notes.length === 0 ? "" : section("Notes", notes.map((note) => `<p>${escaped(note)}</p>`).join("")),
  ];
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>primer bench, ${escaped(started_at)}</title><style>${STYLE}</style></head>
<body>${parts.join("\n")}</body></html>
`;
}

const section = (title: string, content: string) => `<h2>${escaped(title)}</h2>${content}`;

function figureTable(scenarios: readonly ScenarioReport[]): string {
  const head = [
    "scenario",
    "per second",
    "ceiling",
    "share",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "max",
    "errors",
    "CPU each",
    "memory",
  ];
  const rows = scenarios.map(({ scenario, throughput, ceiling, share_of_ceiling, latency_ms, error_share, server }) => [
    scenario,
    number(throughput),
    ceiling === null ? "unknown" : number(ceiling),
    percent(share_of_ceiling) || "unknown",
    ...[latency_ms.p50, latency_ms.p90, latency_ms.p99, latency_ms["p99.9"], latency_ms.max].map(ms),
    error_share === 0 ? "0" : `<span class="bad">${percent(error_share)}</span>`,
    server.cpu_seconds_per_operation === null ? "unknown" : ms(server.cpu_seconds_per_operation * 1000),
    server.peak_memory_mib === null ? "unknown" : `${server.peak_memory_mib} MiB`,
  ]);
  return table(head, rows);
}

const [WIDTH, NAME_WIDTH, ROW] = [640, 120, 36];

/** A bar for each scenario, in front of the whole that the machine could do. */
function shareChart(scenarios: readonly ScenarioReport[]): string {
  const full = WIDTH - NAME_WIDTH - 60;
  const rows = scenarios.map(({ scenario, share_of_ceiling }, index) => {
    const share = Math.min(1, share_of_ceiling ?? 0);
    const y = index * ROW;
    return `<text x="0" y="${y + 23}">${scenario}</text><rect class="rest" x="${NAME_WIDTH}" y="${y + 5}" width="${full}" height="22" rx="3"/><rect class="bar" x="${NAME_WIDTH}" y="${y + 5}" width="${(share * full).toFixed(1)}" height="22" rx="3"/><text x="${WIDTH}" y="${y + 23}" text-anchor="end">${percent(share_of_ceiling)}</text>`;
  });
  return chart(`Share of the ceiling of each scenario`, scenarios.length * ROW, rows.join(""));
}

const chart = (title: string, height: number, content: string) =>
  `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escaped(title)}"><title>${escaped(title)}</title>${content}</svg>`;

/** A histogram on a logarithmic axis, with its percentiles below. */
function latencyChart({ scenario, histogram, latency_ms }: ScenarioReport): string {
  const [height, bottom] = [200, 30];
  const highest = Math.max(1, ...histogram.map(([, count]) => count));
  const width = WIDTH / Math.max(1, histogram.length);
  const bars = histogram.map(([upTo, count], index) => {
    const tall = count === 0 ? 0 : Math.max(1, (count / highest) * (height - bottom - 10));
    const x = (index * width + 1).toFixed(1);
    return `<rect class="bar" x="${x}" y="${(height - bottom - tall).toFixed(1)}" width="${(width - 2).toFixed(1)}" height="${tall.toFixed(1)}"><title>up to ${ms(upTo)}: ${number(count)}</title></rect>`;
  });
  const label = (index: number, anchor: string, x: number) =>
    `<text class="soft" x="${x}" y="${height - 8}" text-anchor="${anchor}">${histogram[index] ? ms(histogram[index][0]) : ""}</text>`;
  const middle = Math.floor(histogram.length / 2);
  const axis =
    label(0, "start", 0) + label(middle, "middle", (middle + 0.5) * width) + label(histogram.length - 1, "end", WIDTH);
  const text = `p50 ${ms(latency_ms.p50)}, p99 ${ms(latency_ms.p99)}, max ${ms(latency_ms.max)}`;
  return `<figure style="margin:0"><strong>${scenario}</strong>${chart(`${scenario}: ${text}`, height, bars.join("") + axis)}<figcaption><p>${text}</p></figcaption></figure>`;
}

function stageTable(scenarios: readonly ScenarioReport[]): string {
  const rows = scenarios.flatMap(({ scenario, server }) =>
    (server.stages ?? []).map(({ stage, count, mean_ms, p50_ms, p99_ms }) => [
      `${scenario}: ${escaped(stage)}`,
      number(count),
      ms(mean_ms),
      ...[p50_ms, p99_ms].map((value) => (value === null ? "" : `≤ ${ms(value)}`)),
    ]),
  );
  return table(["stage", "times", "mean", "p50", "p99"], rows);
}

function errorTable(scenarios: readonly ScenarioReport[]): string {
  const rows = scenarios.flatMap(({ scenario, errors }) =>
    Object.entries(errors).map(([name, count]) => [scenario, escaped(name), number(count)]),
  );
  return table(["scenario", "error", "times"], rows);
}

function comparisonTable(comparisons: readonly Comparison[]): string {
  const tone = { faster: "good", slower: "bad", "no difference": "" };
  const rows = comparisons.map(({ scenario, metric, ratio, low, high, p, verdict }) => [
    scenario,
    escaped(metric),
    `<span class="${tone[verdict]}">${verdict}</span>`,
    ratio.toFixed(3),
    `${low.toFixed(3)} to ${high.toFixed(3)}`,
    p.toFixed(3),
  ]);
  return table(["scenario", "of", "verdict", "times", "spread", "p"], rows);
}

function assertionTable(judged: readonly Judged[]): string {
  const rows = judged.map(({ assertion, held, actual, unit }) => [
    escaped(assertion),
    `<span class="${held ? "good" : "bad"}">${held ? "holds" : "does not hold"}</span>`,
    actual === null ? "could not be measured" : `${Number(actual.toPrecision(4))} ${unit}`,
  ]);
  return table(["assertion", "", "measured"], rows);
}
