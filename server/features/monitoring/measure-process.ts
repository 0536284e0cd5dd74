import { readdirSync, readFileSync, statfsSync } from "node:fs";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Metrics } from "../../../config/meter.ts";
import { VERSION } from "../../../config/version.ts";
import type { ProcessKind } from "../../presence.ts";

/** How finely the event loop is watched (milliseconds). */
const LOOP_RESOLUTION_MS = 20;
/** The event loop's delay is that since the last look, and at least so old (milliseconds): several may look. */
const LOOP_WINDOW_MS = 5000;

/** Shows this process and its machine to whoever reads the metrics. @param home on whose disk everything is */
export function measureProcess({
  metrics,
  home,
  kind,
}: {
  readonly metrics: Metrics;
  readonly home: string;
  readonly kind: ProcessKind;
}): void {
  const own = (name: Parameters<Metrics["observe"]>[0], look: () => number | undefined) =>
    metrics.observe(name, async () => {
      const value = look();
      return value === undefined ? [] : [{ labels: {}, value }];
    });
  metrics.observe("primer_info", async () => [{ labels: { version: VERSION, kind }, value: 1 }]);
  own("process_cpu_seconds_total", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  own("process_resident_memory_bytes", () => process.memoryUsage.rss());
  own("process_open_fds", () => readdirSync("/proc/self/fd").length);
  own("process_max_fds", () => Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1]));
  const delay = loopDelay();
  metrics.observe("primer_event_loop_delay_seconds", async () => delay());
  own("primer_host_cpus", availableParallelism);
  metrics.observe("primer_host_cpu_seconds_total", async () => {
    const times = cpus().map((cpu) => cpu.times);
    const total = (...names: ("user" | "nice" | "sys" | "irq" | "idle")[]) =>
      times.reduce((sum, cpu) => sum + names.reduce((own, name) => own + cpu[name], 0), 0) / 1000;
    return [
      { labels: { state: "busy" }, value: total("user", "nice", "sys", "irq") },
      { labels: { state: "idle" }, value: total("idle") },
    ];
  });
  metrics.observe("primer_host_memory_bytes", async () => {
    const { used, limit } = memoryOfCgroup() ?? memoryOfHost();
    return [
      { labels: { state: "used" }, value: used },
      { labels: { state: "limit" }, value: limit },
    ];
  });
  metrics.observe("primer_host_disk_bytes", async () => {
    const { bavail, blocks, bsize } = statfsSync(home);
    return [
      { labels: { state: "free" }, value: bavail * bsize },
      { labels: { state: "size" }, value: blocks * bsize },
    ];
  });
}

function loopDelay() {
  let watch: ReturnType<typeof monitorEventLoopDelay> | undefined;
  let readAt = 0;
  let last: { labels: { quantile: "0.5" | "0.99" | "1" }; value: number }[] = [];
  return () => {
    if (!watch) {
      watch = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS }); // from the first look on
      watch.enable();
      readAt = performance.now();
      return last;
    }
    if (performance.now() - readAt < LOOP_WINDOW_MS) return last;
    const seconds = (nanoseconds: number) => nanoseconds / 1e9;
    last = [
      { labels: { quantile: "0.5" }, value: seconds(watch.percentile(50)) },
      { labels: { quantile: "0.99" }, value: seconds(watch.percentile(99)) },
      { labels: { quantile: "1" }, value: seconds(watch.max) },
    ];
    readAt = performance.now();
    watch.reset();
    return last;
  };
}

const CGROUP = "/sys/fs/cgroup";

/** Of a container with a limit of its own; caches of files do not count, as they are given back. */
function memoryOfCgroup(): { used: number; limit: number } | undefined {
  try {
    const limit = Number(readFileSync(`${CGROUP}/memory.max`, "utf8"));
    const cached = Number(/^inactive_file (\d+)/m.exec(readFileSync(`${CGROUP}/memory.stat`, "utf8"))?.[1] ?? 0);
    const used = Number(readFileSync(`${CGROUP}/memory.current`, "utf8")) - cached;
    return Number.isFinite(limit) && limit < totalmem() ? { used, limit } : undefined;
  } catch {
    return undefined;
  }
}

/** Linux counts what caches of files would give back as available. */
function memoryOfHost(): { used: number; limit: number } {
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(readText("/proc/meminfo"))?.[1];
  const free = available === undefined ? freemem() : Number(available) * 1024;
  return { used: totalmem() - free, limit: totalmem() };
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
