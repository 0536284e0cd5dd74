import { chosen, dashboard, WINDOW } from "../dashboard.ts";
import { bars, lines, tile } from "../panels.ts";
import { REAL_ROUTES } from "../queries.ts";
import { answered5xx, requests } from "../shared-panels.ts";

const { buckets, sums } = chosen;
const latency = (quantile: number, by = "", window = WINDOW) =>
  `histogram_quantile(${quantile}, sum by (${by}le) (rate(${buckets("http_server_request_duration_seconds", { route: REAL_ROUTES })}[${window}])))`;

export const api = () =>
  dashboard({
    uid: "primer-api",
    title: "API performance",
    description:
      "How many requests there are, how long they take, and where that time goes. Probes and streams are left out.",
    panels: [
      tile({
        title: "Requests",
        about: "http_server_request_duration_seconds",
        unit: "reqps",
        query: `sum(rate(${requests()}[${WINDOW}]))`,
      }),
      answered5xx(),
      ...([0.5, 0.95, 0.99] as const).map((quantile) =>
        tile({
          title: `p${quantile * 100}`,
          about: "http_server_request_duration_seconds",
          unit: "s",
          empty: "no requests",
          ...(quantile === 0.95 ? { alerts: ["LatencyHigh"] as const, worry: [0.5, 1] as const } : {}),
          query: latency(quantile),
        }),
      ),
      tile({
        title: "Over a limit",
        about: "http_server_request_duration_seconds",
        unit: "short",
        decimals: 0,
        query: `sum(increase(${requests("429")}[$__range]))`,
      }),
      lines({
        title: "Requests by status",
        about: "http_server_request_duration_seconds",
        unit: "reqps",
        stacked: true,
        queries: { "{{status}}": `sum by (status) (rate(${requests()}[${WINDOW}]))` },
      }),
      lines({
        title: "Time of a request",
        about: "http_server_request_duration_seconds",
        alerts: ["LatencyHigh"],
        unit: "s",
        limit: 1,
        queries: { p50: latency(0.5), p95: latency(0.95), p99: latency(0.99) },
      }),
      lines({
        title: "Requests by route (the ten most asked)",
        about: "http_server_request_duration_seconds",
        unit: "reqps",
        queries: { "{{method}} {{route}}": `topk(10, sum by (method, route) (rate(${requests()}[${WINDOW}])))` },
      }),
      bars({
        title: "p95 by route (the ten slowest)",
        about: "http_server_request_duration_seconds",
        unit: "s",
        legend: "{{method}} {{route}}",
        query: `sort_desc(topk(10, ${latency(0.95, "method, route, ", "$__range")} > 0))`,
      }),
      lines({
        title: "Where the time goes",
        about: "primer_request_stage_duration_seconds",
        unit: "percentunit",
        stacked: true,
        queries: {
          "{{stage}}": `sum by (stage) (rate(${sums("primer_request_stage_duration_seconds")}[${WINDOW}])) / ignoring (stage) group_left () sum(rate(${sums("primer_request_stage_duration_seconds")}[${WINDOW}]))`,
        },
      }),
      lines({
        title: "Stages (p95)",
        about: "primer_request_stage_duration_seconds",
        unit: "s",
        queries: {
          "{{stage}}": `histogram_quantile(0.95, sum by (stage, le) (rate(${buckets("primer_request_stage_duration_seconds")}[${WINDOW}])))`,
        },
      }),
    ],
  });
