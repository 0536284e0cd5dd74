import { chosen, WINDOW } from "./dashboard.ts";
import { lines, tile } from "./panels.ts";
import { REAL_ROUTES } from "./queries.ts";

/** Requests to the API itself, of one status or those that a pattern fits, or of all. */
export const requests = (status?: string) =>
  chosen.counts("http_server_request_duration_seconds", { route: REAL_ROUTES, ...(status ? { status } : {}) });

/** How many of something there were in the time that is shown. */
export const total = (selector: string) => `sum(increase(${selector}[$__range]))`;

export const perMinute = (selector: string, by: string) => `60 * sum by (${by}) (rate(${selector}[${WINDOW}]))`;

export const answered5xx = () =>
  tile({
    title: "Answered 5xx (5 min)",
    about: "http_server_request_duration_seconds",
    alerts: ["ErrorRateHigh"],
    unit: "percentunit",
    worry: [0.01, 0.05],
    query: `sum(increase(${requests("=~5..")}[5m])) / sum(increase(${requests()}[5m]))`,
  });

export const overALimit = () =>
  lines({
    title: "Over a limit",
    about: "primer_limits_hit_total",
    alerts: ["LimitBreaches"],
    unit: "opm",
    stacked: true,
    queries: { "{{limit}} ({{mode}})": perMinute(chosen.of("primer_limits_hit_total"), "limit, mode") },
  });
