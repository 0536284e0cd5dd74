import { chosen, dashboard, WINDOW } from "../dashboard.ts";
import { lines, tile } from "../panels.ts";
import { sharesOf } from "../queries.ts";

const { of } = chosen;
const shares = sharesOf(chosen, WINDOW);

export const system = () =>
  dashboard({
    uid: "primer-system",
    title: "System health",
    description: "The processes, their machines, and what they depend on. Of several machines the worst one is shown.",
    panels: [
      tile({
        title: "Serving",
        about: "primer_info",
        alerts: ["ProcessesGone"],
        unit: "short",
        worry: [1, 0.5],
        query: `sum(${of("primer_info", { kind: "serve" })})`,
      }),
      tile({
        title: "Workers",
        about: "primer_info",
        alerts: ["ProcessesGone"],
        unit: "short",
        query: `sum(${of("primer_info", { kind: "worker" })})`,
      }),
      tile({
        title: "Dependencies away",
        about: "primer_dependency_up",
        alerts: ["BreakerOpen", "DatabaseConnectionFailures"],
        unit: "short",
        worry: [1, 1],
        query: `count(min by (dependency) (${of("primer_dependency_up")}) < 1)`,
      }),
      tile({
        title: "CPU",
        about: "primer_host_cpu_seconds_total",
        alerts: ["CpuHigh"],
        unit: "percentunit",
        worry: [0.6, 0.8],
        query: `max(${shares.cpu})`,
      }),
      tile({
        title: "Memory",
        about: "primer_host_memory_bytes",
        alerts: ["MemoryHigh"],
        unit: "percentunit",
        worry: [0.75, 0.85],
        query: `max(${shares.memory})`,
      }),
      tile({
        title: "Disk free",
        about: "primer_host_disk_bytes",
        alerts: ["DiskLow"],
        unit: "percentunit",
        worry: [0.3, 0.2],
        query: `min(${shares.diskFree})`,
      }),
      lines({
        title: "Cores in use",
        about: "process_cpu_seconds_total",
        alerts: ["CpuHigh"],
        unit: "short",
        queries: {
          "primer uses (cores)": `sum(rate(${of("process_cpu_seconds_total")}[${WINDOW}]))`,
          "cores of a machine": `max(${of("primer_host_cpus")})`,
        },
      }),
      lines({
        title: "Memory",
        about: "primer_host_memory_bytes",
        alerts: ["MemoryHigh"],
        unit: "bytes",
        queries: {
          "primer, all processes": `sum(${of("process_resident_memory_bytes")})`,
          "machine, {{state}}": `max by (state) (${of("primer_host_memory_bytes")})`,
        },
      }),
      lines({
        title: "Delay of the event loop",
        about: "primer_event_loop_delay_seconds",
        unit: "s",
        queries: { "quantile {{quantile}}": `max by (quantile) (${of("primer_event_loop_delay_seconds")})` },
      }),
      lines({
        title: "Open files",
        about: "process_open_fds",
        unit: "percentunit",
        queries: { "of those that may be": `max(${of("process_open_fds")} / ${of("process_max_fds")})` },
      }),
      lines({
        title: "Dependencies answer (1) or not (0)",
        about: "primer_dependency_up",
        alerts: ["BreakerOpen"],
        unit: "short",
        max: 1,
        queries: { "{{dependency}}": `min by (dependency) (${of("primer_dependency_up")})` },
      }),
      lines({
        title: "Time until they answer",
        about: "primer_dependency_latency_seconds",
        unit: "s",
        queries: { "{{dependency}}": `max by (dependency) (${of("primer_dependency_latency_seconds")})` },
      }),
      lines({
        title: "Failures",
        about: "primer_dependency_failures_total",
        alerts: ["DatabaseConnectionFailures"],
        unit: "opm",
        queries: {
          "{{dependency}}": `60 * sum by (dependency) (rate(${of("primer_dependency_failures_total")}[${WINDOW}]))`,
        },
      }),
      lines({
        title: "Circuit breakers (1 open, 0.5 trying)",
        about: "primer_breaker_open",
        alerts: ["BreakerOpen"],
        unit: "short",
        max: 1,
        queries: { "{{dependency}}": `max by (dependency) (${of("primer_breaker_open")})` },
      }),
      lines({
        title: "Database connections of primer",
        about: "primer_database_pool_connections",
        unit: "short",
        queries: { "{{state}}": `sum by (state) (${of("primer_database_pool_connections")})` },
      }),
      lines({
        title: "Connections that PostgreSQL has",
        about: "primer_database_server_connections",
        alerts: ["DatabaseConnectionsScarce"],
        unit: "short",
        queries: { "{{state}}": `max by (state) (${of("primer_database_server_connections")})` },
      }),
      lines({
        title: "Replicas behind",
        about: "primer_replica_lag_seconds",
        alerts: ["ReplicaBehind"],
        unit: "s",
        limit: 30,
        queries: { "{{replica}}": `max by (replica) (${of("primer_replica_lag_seconds")})` },
      }),
      lines({
        title: "Memory of Redis",
        about: "primer_redis_memory_bytes",
        unit: "bytes",
        queries: { "{{state}}": `max by (state) (${of("primer_redis_memory_bytes")}) > 0` },
      }),
    ],
  });
