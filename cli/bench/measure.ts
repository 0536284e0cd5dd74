/** Runs a round of a bench: every scenario, each right after what the machine can do of the same work. */
import type { ChildProcess } from "./child.ts";
import type { Load, LoadEvent, LoadResult } from "./load.ts";
import type { BenchOptions } from "./options.ts";
import { type Usage, usageOf } from "./process-usage.ts";
import { type Sample, totalOf } from "./prometheus.ts";
import { type Ceilings, type Limit, limitsOf, mixOf, type Scenario } from "./scenarios.ts";
import { type BenchTarget, kindsOf } from "./target.ts";

/** What one scenario did in one round. */
export interface Measured {
  readonly scenario: Scenario;
  readonly load: Load;
  readonly result: LoadResult;
  /** What the machine could do moments before, as far as this scenario depends on it. */
  readonly ceilings: Partial<Ceilings> | null;
  /** Processor time of the server in the measured time; null where it is not known. */
  readonly cpuSeconds: number | null;
  readonly peakMiB: number | null;
  readonly processes: number | null;
  readonly metrics: { readonly before: readonly Sample[]; readonly after: readonly Sample[] } | null;
}

/** What the machine's own limits are measured with. */
export interface Yardstick {
  hashRate(durationMs: number): Promise<number>;
  signRate(durationMs: number): Promise<number>;
  /** A generator that is open to the bare routes. */
  readonly bare: ChildProcess;
  readonly bareAuthority: string;
}

/** Tells how it goes. */
export interface Watcher {
  doing(what: string): void;
  live(what: string, event: Extract<LoadEvent, { at: "now" }>): void;
}

const SAMPLE_EVERY_MS = 200;
/** How long each limit of the machine is measured before a scenario: a quarter of its time, within these bounds. */
const [SHORTEST_CEILING_MS, LONGEST_CEILING_MS] = [100, 1500];
/** As long as what primer is sent: a token, and that with a client's secret in a form. */
const TOKEN = "t".repeat(1200);
const FORM = `token=${TOKEN}&client_id=${"i".repeat(36)}&client_secret=${"s".repeat(47)}`;

export async function measureRound(
  options: BenchOptions,
  scenarios: readonly Scenario[],
  target: BenchTarget,
  generator: ChildProcess,
  yardstick: Yardstick | null,
  watcher: Watcher,
): Promise<Measured[]> {
  const measured: Measured[] = [];
  // In a mix nobody is registered on a server that is not ours.
  const kinds = kindsOf(options.target).filter((kind) => options.target.kind === "own" || kind !== "register");
  for (const scenario of scenarios) {
    watcher.doing(`${scenario}: ${options.durationMs / 1000} s`);
    const mix = mixOf(scenario, kinds);
    const ceilings = yardstick && (await measureCeilings(options, limitsOf(mix), yardstick));
    const load = loadOf(options, { mix });
    measured.push({ scenario, load, ceilings, ...(await measureLoad(load, target, generator, watcher, scenario)) });
  }
  return measured;
}

const loadOf = (options: BenchOptions, what: Load["what"]): Load => ({
  what,
  connections: options.connections,
  rate: options.rate,
  warmUpMs: options.warmUpMs,
  durationMs: options.durationMs,
  timeoutMs: options.timeoutMs,
});

async function measureCeilings(
  options: BenchOptions,
  limits: readonly Limit[],
  yardstick: Yardstick,
): Promise<Partial<Ceilings>> {
  const durationMs = Math.min(LONGEST_CEILING_MS, Math.max(SHORTEST_CEILING_MS, options.durationMs / 4));
  const bare = async (raw: string) => {
    const load = { ...loadOf(options, { raw }), rate: null, warmUpMs: durationMs / 2, durationMs };
    const { completed, seconds } = await yardstick.bare.ask<LoadResult>("run", load);
    return completed / seconds;
  };
  const head = `host: ${yardstick.bareAuthority}\r\n`;
  const form = `content-type: application/x-www-form-urlencoded\r\ncontent-length: ${FORM.length}\r\n`;
  const measure: Readonly<Record<Limit, () => Promise<number>>> = {
    hash: () => yardstick.hashRate(durationMs),
    sign: () => yardstick.signRate(durationMs),
    get: () => bare(`GET /get HTTP/1.1\r\n${head}authorization: Bearer ${TOKEN}\r\n\r\n`),
    post: () => bare(`POST /form HTTP/1.1\r\n${head}${form}\r\n${FORM}`),
  };
  const found: [Limit, number][] = [];
  for (const limit of limits) found.push([limit, await measure[limit]()]);
  return Object.fromEntries(found);
}

type Costs = Pick<Measured, "result" | "cpuSeconds" | "peakMiB" | "processes" | "metrics">;

async function measureLoad(
  load: Load,
  target: BenchTarget,
  generator: ChildProcess,
  watcher: Watcher,
  scenario: Scenario,
): Promise<Costs> {
  const usage = watchUsage(target.pid);
  const before = await target.readMetrics();
  const result = await generator.ask<LoadResult>("run", load, (event: LoadEvent) => {
    if (event.at === "now") watcher.live(scenario, event);
    else usage[event.at]();
  });
  const after = await target.readMetrics();
  const told = before && after ? { before, after } : null;
  const { cpuSeconds, peakMiB, processes } = usage.found();
  return {
    result,
    cpuSeconds: cpuSeconds ?? (told && cpuByMetrics(told, result, load)),
    peakMiB: peakMiB ?? (told && memoryByMetrics(told)),
    processes,
    metrics: told,
  };
}

/** Follows the cost of a server's processes between the beginning and the end of the measured time. */
function watchUsage(pid: number | null) {
  let first: Usage | undefined;
  let last: Usage | undefined;
  let peakMiB = 0;
  let timer: ReturnType<typeof setInterval> | undefined;
  const look = () => {
    const usage = pid === null ? undefined : usageOf(pid);
    peakMiB = Math.max(peakMiB, usage?.residentMiB ?? 0);
    return usage;
  };
  return {
    begin() {
      first = look();
      if (first) timer = setInterval(look, SAMPLE_EVERY_MS);
    },
    end() {
      clearInterval(timer);
      last = look();
    },
    found: () => ({
      cpuSeconds: first && last ? last.cpuSeconds - first.cpuSeconds : null,
      peakMiB: peakMiB === 0 ? null : peakMiB,
      processes: last?.processes ?? null,
    }),
  };
}

type Told = NonNullable<Measured["metrics"]>;

/** The metrics are read around the warm-up as well, so that of their time only the measured part is taken. */
function cpuByMetrics(told: Told, result: LoadResult, load: Load): number | null {
  const [from, to] = [told.before, told.after].map((samples) => totalOf(samples, "process_cpu_seconds_total"));
  if (from === undefined || to === undefined) return null;
  return (to - from) * (result.seconds / (result.seconds + load.warmUpMs / 1000));
}

/** The larger of the two readings: what was in between nobody tells. */
function memoryByMetrics(told: Told): number | null {
  const found = [told.before, told.after].flatMap((samples) => totalOf(samples, "process_resident_memory_bytes") ?? []);
  return found.length === 0 ? null : Math.max(...found) / 1024 / 1024;
}
