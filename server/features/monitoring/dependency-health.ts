import type { BreakerState } from "../../../db/breaker.ts";
import { withinDeadline } from "../../../db/deadline.ts";
import type { SlotUse } from "../../../db/slots.ts";
import type { Dependency } from "../../dependencies.ts";
import type { Deps } from "../../deps.ts";

/** How long a dependency has to show that it is there (milliseconds). */
const PING_TIMEOUT_MS = 1000;

type MonitoringDeps = Pick<Deps, "dependencies" | "clock">;
type Health = "healthy" | "unhealthy";

/** A breaker as the API shows it. */
export interface BreakerView {
  readonly state: BreakerState;
  /** Failures since the last success. */
  readonly failure_count: number;
  readonly last_failure: string | null;
  /** When an open one lets the next attempt through. */
  readonly next_attempt: string | null;
}

/** How a dependency is just now. */
export interface DependencyHealth {
  readonly status: Health;
  /** Until it answered, in milliseconds; null where it did not, or is not asked only to see. */
  readonly latency_ms: number | null;
  readonly circuit_breaker: BreakerState;
  readonly connections?: SlotUse;
  /** For a replica: how far it may be behind, in milliseconds; null where that is not known. */
  readonly lag_ms?: number | null;
}

export interface SystemHealth {
  readonly status: Health;
  readonly timestamp: string;
  readonly dependencies: Readonly<Record<string, DependencyHealth>>;
}

/** The breaker of every dependency. Asks none of them. */
export function circuitBreakers({ dependencies, clock }: MonitoringDeps): Record<string, BreakerView> {
  const now = clock.now().getTime();
  const at = (fromNowMs: number | null) => (fromNowMs === null ? null : new Date(now + fromNowMs).toISOString());
  const views = dependencies.list().map(([name, { breaker }]): [string, BreakerView] => {
    const { state, failureCount, lastFailureAgoMs, nextAttemptInMs } = breaker.status();
    const last_failure = at(lastFailureAgoMs === null ? null : -lastFailureAgoMs);
    return [name, { state, failure_count: failureCount, last_failure, next_attempt: at(nextAttemptInMs) }];
  });
  return Object.fromEntries(views);
}

/** Asks every dependency at the same time; what does not answer within a second is unhealthy. Why, only the log says. */
export async function systemHealth(deps: MonitoringDeps): Promise<SystemHealth> {
  const asked = deps.dependencies.list().map(async ([name, one]) => [name, await ask(deps, one)] as const);
  const dependencies = Object.fromEntries(await Promise.all(asked));
  const isHealthy = Object.values(dependencies).every(({ status }) => status === "healthy");
  return { status: isHealthy ? "healthy" : "unhealthy", timestamp: deps.clock.now().toISOString(), dependencies };
}

async function ask({ clock }: MonitoringDeps, dependency: Dependency): Promise<DependencyHealth> {
  const began = clock.elapsed();
  const circuit_breaker = () => dependency.breaker.status().state;
  const answered =
    dependency.ping &&
    (await withinDeadline(dependency.ping(), PING_TIMEOUT_MS).then(
      () => true,
      () => false,
    ));
  const connections = dependency.poolUse?.();
  const lag = dependency.lagMs?.();
  return {
    status: (answered ?? circuit_breaker() === "closed") ? "healthy" : "unhealthy",
    latency_ms: answered ? Math.round((clock.elapsed() - began) * 10) / 10 : null,
    circuit_breaker: circuit_breaker(),
    ...(connections ? { connections } : {}),
    ...(lag === undefined ? {} : { lag_ms: lag === null ? null : Math.round(lag) }),
  };
}
