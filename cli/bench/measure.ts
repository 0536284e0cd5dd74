/** Runs the rounds of a bench: in each, what the machine can do, and then every scenario. */
import type { ChildProcess } from "./child.ts";
import type { Load, LoadEvent, LoadResult } from "./load.ts";
import type { BenchOptions } from "./options.ts";
import { type Usage, usageOf } from "./process-usage.ts";
import { type Sample, totalOf } from "./prometheus.ts";
import { type Ceilings, mixOf, type Scenario } from "./scenarios.ts";
import { type BenchTarget, kindsOf } from "./target.ts";

/** What one scenario did in one round. */
export interface Measured {
  readonly scenario: Scenario;
  readonly load: Load;
  readonly result: LoadResult;
  readonly ceilings: Ceilings | null;
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
/** How long each limit of the machine is measured in a round: a quarter of a scenario's time, within these bounds. */
const [SHORTEST_CEILING_MS, LONGEST_CEILING_MS] = [100, 2000];
/** As long as a token and a client's secret in a form. */
const FORM = `token=${"t".repeat(1200)}&client_id=${"i".repeat(36)}&client_secret=${"s".repeat(47)}`;

export async function measureRound(
  options: BenchOptions,
  scenarios: readonly Scenario[],
  target: BenchTarget,
  generator: ChildProcess,
  yardstick: Yardstick | null,
  watcher: Watcher,
): Promise<Measured[]> {
  const ceilings = yardstick && (await measureCeilings(options, yardstick, watcher));
  const measured: Measured[] = [];
  // In a mix nobody is registered on a server that is not ours.
  const kinds = kindsOf(options.target).filter((kind) => options.target.kind === "own" || kind !== "register");
  for (const scenario of scenarios) {
    watcher.doing(`${scenario}: ${options.durationMs / 1000} s`);
    const load = loadOf(options, { mix: mixOf(scenario, kinds) });
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

async function measureCeilings(options: BenchOptions, yardstick: Yardstick, watcher: Watcher): Promise<Ceilings> {
  const durationMs = Math.min(LONGEST_CEILING_MS, Math.max(SHORTEST_CEILING_MS, options.durationMs / 4));
  watcher.doing("what this machine can do");
  const { bareAuthority: host } = yardstick;
  const bare = async (raw: string) => {
    const load = { ...loadOf(options, { raw }), rate: null, warmUpMs: durationMs / 2, durationMs };
    const { completed, seconds } = await yardstick.bare.ask<LoadResult>("run", load);
    return completed / seconds;
  };
  const type = "application/x-www-form-urlencoded";
  return {
    hash: await yardstick.hashRate(durationMs),
    sign: await yardstick.signRate(durationMs),
    get: await bare(`GET /get HTTP/1.1\r\nhost: ${host}\r\n\r\n`),
    post: await bare(
      `POST /form HTTP/1.1\r\nhost: ${host}\r\ncontent-type: ${type}\r\ncontent-length: ${FORM.length}\r\n\r\n${FORM}`,
    ),
  };
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
