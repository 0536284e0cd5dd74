/** Metrics as installations have them over a hundred minutes, well or with one fault. */
import { METRICS, type MetricName } from "../../config/metrics.ts";

export const MINUTES = 100;
/** The minute in which faults begin. */
export const FAULT_AT = 40;
const STEPS_A_MINUTE = 2;
const DAY = 86_400;

/** How much there is, or how much a counter grows in a minute, by the minute; nothing comes where it is undefined. */
export type Course = number | ((minute: number) => number | undefined);
/** By the series, as PromQL writes it. */
export type Courses = Readonly<Record<string, Course>>;

const REQUESTS = 'method="GET",route="/api/v1/auth/verify"';

/** A course from the fault on, and another one before it. */
export const fault =
  (after: number | undefined, before = 0): Course =>
  (minute) =>
    minute >= FAULT_AT ? after : before;

/** An installation that is well and busy. */
export const HEALTHY: Courses = {
  'primer_info{kind="serve"}': 1,
  'primer_info{kind="worker"}': 1,
  [`http_server_request_duration_seconds_count{${REQUESTS},status="200"}`]: 600,
  [`http_server_request_duration_seconds_bucket{${REQUESTS},status="200",le="0.1"}`]: 594,
  [`http_server_request_duration_seconds_bucket{${REQUESTS},status="200",le="1"}`]: 598,
  [`http_server_request_duration_seconds_bucket{${REQUESTS},status="200",le="2.5"}`]: 600,
  [`http_server_request_duration_seconds_bucket{${REQUESTS},status="200",le="+Inf"}`]: 600,
  'primer_sign_ins_total{outcome="success",reason="password"}': 60,
  'primer_sign_ins_total{outcome="failure",reason="wrong_password"}': 3,
  'primer_tokens_verified_total{issuer="own",outcome="accepted"}': 600,
  'primer_tokens_verified_total{issuer="own",outcome="refused"}': 12,
  'primer_refreshes_total{outcome="accepted"}': 30,
  'primer_refreshes_total{outcome="reused"}': 0.02,
  'primer_limits_hit_total{limit="general",mode="enforce"}': 2,
  'primer_mails_total{outcome="sent"}': 5,
  'primer_mails_total{outcome="deferred"}': 0.1,
  'primer_jobs{queue="send-mail",state="waiting"}': 3,
  'primer_jobs{queue="send-mail",state="running"}': 1,
  'primer_jobs{queue="send-mail",state="dead"}': 0,
  'primer_schedule_runs_total{schedule="backup",outcome="done"}': 0.1,
  'primer_dependency_failures_total{dependency="database"}': 0,
  'primer_breaker_open{dependency="database"}': 0,
  primer_hashes_refused_total: 0.1,
  'primer_database_server_connections{state="open"}': 20,
  'primer_database_server_connections{state="limit"}': 100,
  'primer_host_cpu_seconds_total{state="busy"}': 30,
  'primer_host_cpu_seconds_total{state="idle"}': 90,
  'primer_host_memory_bytes{state="used"}': 4e9,
  'primer_host_memory_bytes{state="limit"}': 8e9,
  'primer_host_disk_bytes{state="free"}': 60e9,
  'primer_host_disk_bytes{state="size"}': 100e9,
  'primer_replica_lag_seconds{replica="replica_1"}': 0.2,
  'primer_key_age_seconds{use="signing"}': 80 * DAY,
  'primer_key_age_seconds{use="refresh"}': 200 * DAY,
  primer_key_rotation_interval_seconds: 91 * DAY,
  primer_backup_verified_age_seconds: 20 * 3600,
  primer_installation_age_seconds: 400 * DAY,
  primer_certificate_expires_seconds: 40 * DAY,
  primer_audit_unsealed_age_seconds: 2,
};

/** How metrics come in: two processes that send theirs, or one node that is asked for those of both. */
export const WAYS = {
  pushed: [{ "service.instance.id": "node-1-100" }, { "service.instance.id": "node-1-200" }],
  scraped: [{ instance: "node-1:8080", job: "primer" }],
} as const;

/** The series of an environment, for /api/v1/import. @param from when its first minute begins */
export function seriesOf(environment: string, courses: Courses, way: keyof typeof WAYS, from: Date): object[] {
  return Object.entries(courses).flatMap(([selector, course]) => {
    const [, name = "", text = ""] = /^(\w+)(?:\{(.*)\})?$/.exec(selector) ?? [];
    const labels = Object.fromEntries([...text.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, value]) => [key, value]));
    const metric = METRICS[name.replace(/_(bucket|count|sum)$/, "") as MetricName];
    const counts = metric.kind !== "gauge";
    // What all processes see alike each of them tells whole; of the rest each has its part.
    const parts = "across" in metric && metric.across === "max" ? 1 : WAYS[way].length;
    const points = pointsOf(course, counts, parts);
    const timestamps = points.map(([minute]) => from.getTime() + minute * 60_000);
    const values = points.map(([, value]) => value);
    return WAYS[way].map((process) => ({
      metric: { __name__: name, environment, ...labels, ...process },
      values,
      timestamps,
    }));
  });
}

function pointsOf(course: Course, counts: boolean, parts: number): [minute: number, value: number][] {
  let total = 0;
  return Array.from({ length: MINUTES * STEPS_A_MINUTE + 1 }, (_, step) => step / STEPS_A_MINUTE).flatMap((minute) => {
    const value = typeof course === "number" ? course : course(minute);
    if (value === undefined) return [];
    total += value / parts / STEPS_A_MINUTE;
    return [[minute, counts ? total : value / parts] as [number, number]];
  });
}
