import { chosen, dashboard } from "../dashboard.ts";
import { bars, lines, tile } from "../panels.ts";
import { answered5xx, overALimit, perMinute, requests, total } from "../shared-panels.ts";

const { of, counts } = chosen;

export const errors = () =>
  dashboard({
    uid: "primer-errors",
    title: "Errors",
    description: "Whatever did not work: requests, sign-ins, dependencies, jobs.",
    panels: [
      answered5xx(),
      tile({
        title: "Internal errors (500)",
        about: "http_server_request_duration_seconds",
        unit: "short",
        decimals: 0,
        worry: [1, 10],
        query: total(requests("500")),
      }),
      tile({
        title: "Unavailable (503)",
        about: "http_server_request_duration_seconds",
        unit: "short",
        decimals: 0,
        worry: [1, 100],
        query: total(requests("503")),
      }),
      tile({
        title: "Dependency failures",
        about: "primer_dependency_failures_total",
        alerts: ["DatabaseConnectionFailures"],
        unit: "short",
        decimals: 0,
        worry: [1, 10],
        query: total(of("primer_dependency_failures_total")),
      }),
      tile({
        title: "Dead jobs",
        about: "primer_jobs",
        alerts: ["DeadJobs"],
        unit: "short",
        worry: [1, 1],
        query: `sum(max by (queue) (${of("primer_jobs", { state: "dead" })}))`,
      }),
      tile({
        title: "Schedules failed",
        about: "primer_schedule_runs_total",
        alerts: ["ScheduleFailed"],
        unit: "short",
        decimals: 0,
        worry: [1, 1],
        query: total(of("primer_schedule_runs_total", { outcome: "failed" })),
      }),
      lines({
        title: "Answered 5xx, by route",
        about: "http_server_request_duration_seconds",
        alerts: ["ErrorRateHigh"],
        unit: "opm",
        stacked: true,
        queries: { "{{status}} {{method}} {{route}}": perMinute(requests("=~5.."), "status, method, route") },
      }),
      lines({
        title: "Answered 4xx, by status",
        about: "http_server_request_duration_seconds",
        unit: "opm",
        stacked: true,
        queries: { "{{status}}": perMinute(requests("=~4.."), "status") },
      }),
      bars({
        title: "Routes that refuse most",
        about: "http_server_request_duration_seconds",
        unit: "short",
        legend: "{{status}} {{method}} {{route}}",
        query: `sort_desc(topk(10, sum by (status, method, route) (increase(${requests("=~4..")}[$__range])) > 0))`,
      }),
      overALimit(),
      lines({
        title: "Failures of dependencies",
        about: "primer_dependency_failures_total",
        alerts: ["DatabaseConnectionFailures", "BreakerOpen"],
        unit: "opm",
        queries: { "{{dependency}}": perMinute(of("primer_dependency_failures_total"), "dependency") },
      }),
      lines({
        title: "Runs of jobs that did not end well",
        about: "primer_job_duration_seconds",
        alerts: ["DeadJobs"],
        unit: "opm",
        queries: {
          "{{queue}}, {{outcome}}": perMinute(
            counts("primer_job_duration_seconds", { outcome: "!=done" }),
            "queue, outcome",
          ),
        },
      }),
    ],
  });
