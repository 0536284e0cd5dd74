import type { LabelsOf, MetricName, NameOf } from "../../../config/metrics.ts";
import { withinDeadline } from "../../../db/deadline.ts";
import { findActivity } from "../../../db/queries/activity.ts";
import { findOldestUnsealed } from "../../../db/queries/audit-chain.ts";
import { findLastBackup } from "../../../db/queries/backups.ts";
import { findInstallation } from "../../../db/queries/installation.ts";
import type { Deps } from "../../deps.ts";
import { systemHealth } from "./dependency-health.ts";

/** How long a reader of metrics waits for the database (milliseconds). */
const MEASURE_WITHIN_MS = 1000;
/** What several metrics are made from is asked for once in this time (milliseconds), however many read. */
const FRESH_MS = 2000;
/** What reads all that came since the last link of the chain, which is much where nobody seals (milliseconds). */
const UNSEALED_FRESH_MS = 30_000;

type MeasureDeps = Pick<Deps, "metrics" | "db" | "clock" | "dependencies" | "keys" | "hashPool" | "settings">;
type Pairs<N extends MetricName> = readonly (readonly [labels: LabelsOf<N>, value: number | null | undefined])[];

/** Shows the installation to whoever reads the metrics: what it depends on, who uses it, its keys and its backups. */
export function measureInstallation(deps: MeasureDeps): void {
  /** What is not known is not shown. */
  const show = <N extends NameOf<"gauge" | "tally">>(name: N, look: () => Pairs<N> | Promise<Pairs<N>>) =>
    deps.metrics.observe(name, async () =>
      (await look()).flatMap(([labels, value]) => (value === null || value === undefined ? [] : [{ labels, value }])),
    );
  const { db, clock, dependencies } = deps;
  const health = remembered(async () => Object.entries((await systemHealth(deps)).dependencies));
  show("primer_dependency_up", async () =>
    (await health()).map(([dependency, { status }]) => [{ dependency }, status === "healthy" ? 1 : 0]),
  );
  show("primer_dependency_latency_seconds", async () =>
    (await health()).map(([dependency, { latency_ms }]) => [{ dependency }, seconds(latency_ms)]),
  );
  show("primer_replica_lag_seconds", async () =>
    (await health()).map(([replica, { lag_ms }]) => [{ replica }, seconds(lag_ms)]),
  );
  const breakers = () => dependencies.list().map(([dependency, { breaker }]) => ({ dependency, ...breaker.status() }));
  show("primer_breaker_open", () => breakers().map(({ dependency, state }) => [{ dependency }, OPEN[state]]));
  show("primer_dependency_failures_total", () =>
    breakers().map(({ dependency, failuresSoFar }) => [{ dependency }, failuresSoFar]),
  );
  show("primer_redis_memory_bytes", async () => {
    const redis = dependencies.list().find(([name]) => name === "redis");
    const memory = await redis?.[1].memory?.();
    return [
      [{ state: "used" }, memory?.used],
      [{ state: "limit" }, memory?.limit],
    ];
  });
  show("primer_database_pool_connections", () => {
    const use = db.poolUse?.();
    return (["in_use", "size", "waiting"] as const).map((state) => [{ state }, use?.[state]] as const);
  });
  show("primer_database_server_connections", async () => {
    if (db.kind === "pglite") return [];
    const [row] = await withinDeadline(
      db.query<{ open: number; limit: number }>(SERVER_CONNECTIONS),
      MEASURE_WITHIN_MS,
    );
    return (["open", "limit"] as const).map((state) => [{ state }, row?.[state]] as const);
  });
  show("primer_hash_queue", () => {
    const use = deps.hashPool.use();
    return (["running", "waiting", "slots", "queue_limit"] as const).map((state) => [{ state }, use[state]] as const);
  });
  const age = (from: Date | null | undefined) => from && Math.max(0, (clock.now().getTime() - from.getTime()) / 1000);
  show("primer_key_age_seconds", () =>
    (["signing", "refresh"] as const).map((use) => {
      const key = deps.keys.stages().find(({ purpose, state }) => purpose === use && state === "active");
      return [{ use }, age(key?.createdAt)] as const;
    }),
  );
  show("primer_key_rotation_interval_seconds", () => {
    const { rotate_every, publish_ahead } = deps.settings.keys;
    return [[{}, rotate_every === 0 ? null : (rotate_every + publish_ahead) / 1000]];
  });
  show("primer_backup_verified_age_seconds", async () => {
    const last = await withinDeadline(findLastBackup(db.orm, true), MEASURE_WITHIN_MS);
    return [[{}, age(last?.takenAt)]];
  });
  show("primer_installation_age_seconds", async () => {
    const found = await withinDeadline(findInstallation(db.orm), MEASURE_WITHIN_MS);
    return [[{}, age(found?.initialisedAt)]];
  });
  const unsealed = remembered(() => withinDeadline(findOldestUnsealed(db), MEASURE_WITHIN_MS), UNSEALED_FRESH_MS);
  show("primer_audit_unsealed_age_seconds", async () => [[{}, age(await unsealed()) ?? 0]]);
  const activity = remembered(() => withinDeadline(findActivity(db.orm), MEASURE_WITHIN_MS));
  show("primer_sessions", async () => [[{}, (await activity())?.sessions]]);
  show("primer_active_users", async () => {
    const counted = await activity();
    return [
      [{ window: "1h" }, counted?.activeHour],
      [{ window: "24h" }, counted?.activeDay],
    ];
  });
  show("primer_users", async () => {
    const counted = await activity();
    return (["active", "pending", "disabled", "deactivated"] as const).map(
      (status) => [{ status }, counted && (counted.users[status] ?? 0)] as const,
    );
  });
}

const OPEN = { closed: 0, half_open: 0.5, open: 1 } as const;
const seconds = (ms: number | null | undefined) => (ms === null || ms === undefined ? ms : ms / 1000);

const SERVER_CONNECTIONS = `SELECT (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend') AS open,
  current_setting('max_connections')::int AS limit`;

/** What was found out a moment ago, where it was. */
function remembered<T>(look: () => Promise<T>, freshMs = FRESH_MS): () => Promise<T> {
  let last: Promise<T> | undefined;
  let until = 0;
  return () => {
    if (!last || performance.now() > until) {
      until = performance.now() + freshMs;
      last = look();
    }
    return last;
  };
}
