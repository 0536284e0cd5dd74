/** What a bench found, as --json prints it. Names and units are kept stable: files are compared across versions. */
import type { Kind, Mix, Scenario } from "./scenarios.ts";

export const FORMAT = "primer-bench/1";

export interface Latency {
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly "p99.9": number;
  readonly max: number;
}

export interface Round {
  /** Successes a second. */
  readonly throughput: number;
  readonly p50: number;
  readonly p99: number;
  /** Requests a second that the machine could do in this same round; null where that was not measured. */
  readonly ceiling: number | null;
}

export interface StageReport {
  readonly stage: string;
  readonly count: number;
  readonly mean_ms: number;
  readonly p50_ms: number | null;
  readonly p99_ms: number | null;
}

export interface ScenarioReport {
  readonly scenario: Scenario;
  readonly mix: Mix;
  readonly requests: number;
  /** Successes a second: the median of the rounds. */
  readonly throughput: number;
  /** From when a request was to be sent. */
  readonly latency_ms: Latency;
  /** In a closed loop: as the clients that were there saw it, without those that a stall kept from asking. */
  readonly uncorrected_latency_ms: Latency | null;
  readonly latency_by_kind_ms: Readonly<Partial<Record<Kind, Latency>>>;
  /** Requests by the upper end of what they took (milliseconds), as the histogram is drawn. */
  readonly histogram: readonly (readonly [number, number])[];
  readonly errors: Readonly<Record<string, number>>;
  readonly error_share: number;
  readonly ceiling: number | null;
  /** The median of the rounds' own shares. */
  readonly share_of_ceiling: number | null;
  readonly server: {
    readonly cpu_seconds_per_operation: number | null;
    readonly peak_memory_mib: number | null;
    readonly stages: readonly StageReport[] | null;
  };
  readonly generator: {
    /** How late requests were sent though a connection was free. Null in a closed loop, which has no schedule. */
    readonly late_p99_ms: number | null;
    readonly waited_for_connection: number;
    readonly cores: number;
  };
  readonly rounds: readonly Round[];
}

/** What this machine can do a second; null where no scenario depends on it. */
export interface CeilingReport {
  readonly hash_per_second: number | null;
  readonly sign_per_second: number | null;
  readonly bare_get_per_second: number | null;
  readonly bare_post_per_second: number | null;
}

export interface BenchReport {
  readonly format: typeof FORMAT;
  readonly primer: string;
  readonly started_at: string;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly memory_mib: number;
    readonly system: string;
    readonly runtime: string;
  };
  readonly target: {
    readonly kind: "own" | "url";
    readonly url: string;
    readonly version: string | null;
    readonly database: "embedded" | "postgresql" | null;
    readonly redis: boolean | null;
    readonly users: number | null;
    /** How many processes it was made to serve with; null where the server is not the bench's own. */
    readonly workers: number | null;
    /** All that it consists of. */
    readonly processes: number | null;
    /** Of the own server; of another one they are not known. */
    readonly password_hash: string | null;
    readonly signature: string | null;
  };
  readonly load: {
    readonly connections: number;
    readonly rate: number | null;
    readonly duration_s: number;
    readonly warm_up_s: number;
    readonly rounds: number;
  };
  readonly ceiling: CeilingReport | null;
  readonly scenarios: readonly ScenarioReport[];
  /** What stays behind, and what could not be measured. */
  readonly notes: readonly string[];
}
