import { chosen, dashboard, WINDOW } from "../dashboard.ts";
import { bars, lines, tile } from "../panels.ts";
import { REAL_ROUTES } from "../queries.ts";

const { of, counts } = chosen;
const requests = (status?: string) =>
  counts("http_server_request_duration_seconds", { route: REAL_ROUTES, ...(status ? { status } : {}) });
const total = (selector: string) => `sum(increase(${selector}[$__range]))`;
const perMinute = (selector: string, by: string) => `60 * sum by (${by}) (rate(${selector}[${WINDOW}]))`;

export const errors = () =>
  dashboard({
    uid: "primer-errors",
    title: "Errors",
    description: "Whatever did not work: requests, sign-ins, dependencies, jobs.",
    panels: [
      tile({
        title: "Answered 5xx (5 min)",
        about: "http_server_request_duration_seconds",
        alerts: ["ErrorRateHigh"],
        unit: "percentunit",
        worry: [0.01, 0.05],
        query: `sum(increase(${requests("=~5..")}[5m])) / sum(increase(${requests()}[5m]))`,
      }),
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
      lines({
        title: "Over a limit",
        about: "primer_limits_hit_total",
        alerts: ["LimitBreaches"],
        unit: "opm",
        stacked: true,
        queries: { "{{limit}} ({{mode}})": perMinute(of("primer_limits_hit_total"), "limit, mode") },
      }),
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
