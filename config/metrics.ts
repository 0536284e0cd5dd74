/** A label whose values are not written down here, with what bounds their number. */
interface Bounded {
  readonly boundedBy: string;
}

interface MetricSpec {
  /**
   * What was counted since the process began (a "tally" is counted by somebody else, and read), how it was spread, or how
   * much there is at this moment.
   */
  readonly kind: "counter" | "tally" | "histogram" | "gauge";
  /** As UCUM writes it; the name ends with it, as Prometheus has it. */
  readonly unit: string;
  readonly sentence: string;
  /** Each label with every value that it may have: a metric never grows with what is sent to it. */
  readonly labels: Readonly<Record<string, readonly string[] | Bounded>>;
  /**
   * What the gauges (and tallies) of several processes of a node come to. "max": each of them says the same, of the
   * database or of the machine.
   */
  readonly across?: "sum" | "max";
}

/** The queues of background jobs. */
const QUEUES = ["send-mail"] as const;

/** What is done again and again. */
const SCHEDULES = [
  "activity",
  "backup",
  "baselines",
  "clean-up",
  "daily-report",
  "deactivated-accounts",
  "freshness",
  "rotate-keys",
  "threat-lists",
  "unverified-accounts",
] as const;

/** What may be unlike what was usual before. */
const BASELINE_SIGNALS = ["new_hour", "new_country", "burst", "mostly_failures"] as const;

/** What of a request takes time; hashes, signatures and queries of background work count too. */
export const STAGES = ["parse", "limit", "query", "hash", "sign", "write"] as const;
export type Stage = (typeof STAGES)[number];

/** Whatever can be away. */
const DEPENDENCIES = { boundedBy: "the settings: database, replica_1 …, redis, breached_passwords, smtp …" };

/**
 * Every metric once, by the name that it has everywhere: at /metrics, by OTLP, in dashboards and alerts. All of them bear
 * the label `environment` as well. Counters and histograms begin with the process.
 */
export const METRICS = {
  http_server_request_duration_seconds: {
    kind: "histogram",
    unit: "s",
    sentence: "How long requests took from their headers to their answer.",
    labels: {
      method: ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "other"],
      route: { boundedBy: "the routes of the API, and `none` for paths that are none" },
      status: { boundedBy: "the statuses that the API answers" },
    },
  },
  primer_request_stage_duration_seconds: {
    kind: "histogram",
    unit: "s",
    sentence: "How long the stages of requests took; a hash without its wait for a slot.",
    labels: { stage: STAGES },
  },
  primer_sign_ins_total: {
    kind: "counter",
    unit: "",
    sentence: "Attempts to sign in that were decided, by what came of them and why.",
    labels: {
      outcome: ["success", "failure"],
      reason: [
        "password",
        "unknown_account",
        "no_password",
        "wrong_password",
        "disabled",
        "deactivated",
        "email_not_verified",
        "account_changed",
        "session_limit",
        "password_change_required",
        "locked",
      ],
    },
  },
  primer_tokens_issued_total: {
    kind: "counter",
    unit: "",
    sentence: "Access tokens that were signed, by what for.",
    labels: { grant: ["login", "refresh", "step_up"] },
  },
  primer_refreshes_total: {
    kind: "counter",
    unit: "",
    sentence: "Refresh tokens that were shown, by what came of it.",
    labels: { outcome: ["accepted", "invalid", "expired", "revoked", "reused", "limited"] },
  },
  primer_tokens_verified_total: {
    kind: "counter",
    unit: "",
    sentence: "Access tokens that were shown, by whose they are and whether they counted.",
    labels: { issuer: ["own", "legacy"], outcome: ["accepted", "refused"] },
  },
  primer_unusual_sign_ins_total: {
    kind: "counter",
    unit: "",
    sentence: "Good sign-ins that were unusual, once by each thing that was.",
    labels: {
      signal: [
        ...BASELINE_SIGNALS,
        "bad_network",
        "new_device",
        "new_network",
        "failures_before",
        "many_failures_before",
        "impossible_travel",
      ],
    },
  },
  primer_unusual_hours_total: {
    kind: "counter",
    unit: "",
    sentence: "Hours of accounts and networks that were unlike what is usual of them, once by each thing that was.",
    labels: { of: ["account", "network"], signal: BASELINE_SIGNALS },
  },
  primer_threat_networks: {
    kind: "gauge",
    unit: "",
    sentence: "Bad networks that this process knows from the lists in threats.sources.",
    labels: {},
    across: "max",
  },
  primer_threat_refreshes_total: {
    kind: "counter",
    unit: "",
    sentence: "Tries to read such a list, by what came of each.",
    labels: { outcome: ["taken", "unchanged", "refused", "unreachable"] },
  },
  primer_threats_refused_total: {
    kind: "counter",
    unit: "",
    sentence: "Requests that were refused since they came from a bad network.",
    labels: { action: ["login", "register", "forgot_password", "resend_verification"] },
  },
  primer_token_verification_duration_seconds: {
    kind: "histogram",
    unit: "s",
    sentence: "How long it took to find out whether an access token counts.",
    labels: {},
  },
  primer_hash_wait_seconds: {
    kind: "histogram",
    unit: "s",
    sentence: "How long those who need a password hash waited to be let in, and then for a slot.",
    labels: { line: ["admission", "slot"] },
  },
  primer_hash_queue: {
    kind: "gauge",
    unit: "",
    sentence:
      "Password hashes that run, and those who wait for one; as many as run at a time, and may wait for a slot.",
    labels: { state: ["running", "waiting", "slots", "queue_limit"] },
    across: "sum",
  },
  primer_hashes_refused_total: {
    kind: "counter",
    unit: "",
    sentence: "Password hashes that were not computed, since too many waited or their deadline had passed.",
    labels: {},
  },
  primer_limits_hit_total: {
    kind: "counter",
    unit: "",
    sentence: "Requests that were over a rate limit; `shadow` ones were let through.",
    labels: {
      limit: {
        boundedBy:
          "the names in rate_limits; `route` for those of single routes, `refused` for what is refused before those are looked at",
      },
      mode: ["enforce", "shadow"],
    },
  },
  primer_sessions: {
    kind: "gauge",
    unit: "",
    sentence: "Sessions that have not ended, as last counted.",
    labels: {},
    across: "max",
  },
  primer_active_users: {
    kind: "gauge",
    unit: "",
    sentence: "Users with a session that was used within the last hour or day, as last counted.",
    labels: { window: ["1h", "24h"] },
    across: "max",
  },
  primer_users: {
    kind: "gauge",
    unit: "",
    sentence: "Accounts by their status, as last counted.",
    labels: { status: ["active", "pending", "disabled", "deactivated"] },
    across: "max",
  },
  primer_dependency_up: {
    kind: "gauge",
    unit: "",
    sentence: "Whether a dependency answers: 1 or 0. What is not asked only to see is up while its breaker is closed.",
    labels: { dependency: DEPENDENCIES },
    across: "max",
  },
  primer_dependency_latency_seconds: {
    kind: "gauge",
    unit: "s",
    sentence: "How long a dependency took to answer just now.",
    labels: { dependency: DEPENDENCIES },
    across: "max",
  },
  primer_breaker_open: {
    kind: "gauge",
    unit: "",
    sentence:
      "Whether the circuit breaker of a dependency keeps everything from it: 1, or 0.5 while one attempt decides.",
    labels: { dependency: DEPENDENCIES },
    across: "max",
  },
  primer_dependency_failures_total: {
    kind: "tally",
    unit: "",
    sentence:
      "Times that a dependency could not be reached or did not answer in time, as its circuit breaker counts them.",
    labels: { dependency: DEPENDENCIES },
  },
  primer_database_pool_connections: {
    kind: "gauge",
    unit: "",
    sentence: "Connections to PostgreSQL that are at work, that may be opened, and what waits for one.",
    labels: { state: ["in_use", "size", "waiting"] },
    across: "sum",
  },
  primer_database_server_connections: {
    kind: "gauge",
    unit: "",
    sentence: "Connections that PostgreSQL has from everybody, and as many as it takes.",
    labels: { state: ["open", "limit"] },
    across: "max",
  },
  primer_replica_lag_seconds: {
    kind: "gauge",
    unit: "s",
    sentence: "How far a replica of PostgreSQL may be behind.",
    labels: { replica: { boundedBy: "database.replica_urls" } },
    across: "max",
  },
  primer_redis_memory_bytes: {
    kind: "gauge",
    unit: "By",
    sentence: "Memory that Redis uses, and as much as it may (0: as much as there is).",
    labels: { state: ["used", "limit"] },
    across: "max",
  },
  primer_jobs: {
    kind: "gauge",
    unit: "",
    sentence: "Background jobs that wait, run, or were given up, of all processes together.",
    labels: { queue: QUEUES, state: ["waiting", "running", "dead"] },
    across: "max",
  },
  primer_jobs_oldest_age_seconds: {
    kind: "gauge",
    unit: "s",
    sentence: "Since when the oldest of those jobs has been there.",
    labels: { queue: QUEUES, state: ["waiting", "running", "dead"] },
    across: "max",
  },
  primer_job_duration_seconds: {
    kind: "histogram",
    unit: "s",
    sentence: "How long background jobs ran, by how each run ended.",
    labels: { queue: QUEUES, outcome: ["done", "retry", "dead", "given_back", "lost"] },
  },
  primer_mails_total: {
    kind: "counter",
    unit: "",
    sentence: "Mails that were handed to a server, put off, refused for good, or not needed any more.",
    labels: { outcome: ["sent", "deferred", "refused", "obsolete"] },
  },
  primer_schedule_runs_total: {
    kind: "counter",
    unit: "",
    sentence: "Runs of schedules, by how each ended.",
    labels: { schedule: SCHEDULES, outcome: ["done", "retry", "failed", "interrupted"] },
  },
  primer_key_age_seconds: {
    kind: "gauge",
    unit: "s",
    sentence: "How long the key that is in use for something has existed.",
    labels: { use: ["signing", "refresh"] },
    across: "max",
  },
  primer_key_rotation_interval_seconds: {
    kind: "gauge",
    unit: "s",
    sentence:
      "How old signing keys become by keys.rotate_every and keys.publish_ahead; none where they are rotated by hand.",
    labels: {},
    across: "max",
  },
  primer_backup_verified_age_seconds: {
    kind: "gauge",
    unit: "s",
    sentence: "How long ago the last backup was taken that has proven itself by a restore; none where there is none.",
    labels: {},
    across: "max",
  },
  primer_installation_age_seconds: {
    kind: "gauge",
    unit: "s",
    sentence: "How long ago this installation was initialised: the age of what no backup has, where there is none.",
    labels: {},
    across: "max",
  },
  primer_certificate_expires_seconds: {
    kind: "gauge",
    unit: "s",
    sentence: "How long the certificate that is served is still good; none where another server ends TLS.",
    labels: {},
    across: "max",
  },
  primer_audit_unsealed_age_seconds: {
    kind: "gauge",
    unit: "s",
    sentence: "How old the oldest row of the audit log is that is not in its chain yet; 0 where all are.",
    labels: {},
    across: "max",
  },
  primer_info: {
    kind: "gauge",
    unit: "",
    sentence: "1 for each process, with its version and what it is there for.",
    labels: { version: { boundedBy: "the version of the program" }, kind: ["serve", "worker"] },
    across: "sum",
  },
  process_cpu_seconds_total: {
    kind: "tally",
    unit: "s",
    sentence: "Processor time that was used.",
    labels: {},
  },
  process_resident_memory_bytes: {
    kind: "gauge",
    unit: "By",
    sentence: "Memory that is resident.",
    labels: {},
    across: "sum",
  },
  process_open_fds: {
    kind: "gauge",
    unit: "",
    sentence: "File descriptors that are open.",
    labels: {},
    across: "sum",
  },
  process_max_fds: {
    kind: "gauge",
    unit: "",
    sentence: "File descriptors that may be open.",
    labels: {},
    across: "sum",
  },
  primer_event_loop_delay_seconds: {
    kind: "gauge",
    unit: "s",
    sentence: "How late the event loop was since the last look.",
    labels: { quantile: ["0.5", "0.99", "1"] },
    across: "max",
  },
  primer_host_cpus: {
    kind: "gauge",
    unit: "",
    sentence: "Processors that may be used.",
    labels: {},
    across: "max",
  },
  primer_host_cpu_seconds_total: {
    kind: "tally",
    unit: "s",
    sentence: "Processor time of the whole machine, at work and idle.",
    labels: { state: ["busy", "idle"] },
    across: "max",
  },
  primer_host_memory_bytes: {
    kind: "gauge",
    unit: "By",
    sentence:
      "Memory of the machine, or of the cgroup where that has a limit: what is used beside caches, and all of it.",
    labels: { state: ["used", "limit"] },
    across: "max",
  },
  primer_host_disk_bytes: {
    kind: "gauge",
    unit: "By",
    sentence: "The disk of the home: what is free to primer, and all of it.",
    labels: { state: ["free", "size"] },
    across: "max",
  },
} as const satisfies Readonly<Record<string, MetricSpec>>;

export type MetricName = keyof typeof METRICS;
type Spec<N extends MetricName> = (typeof METRICS)[N];
export type NameOf<K extends MetricSpec["kind"]> = {
  [N in MetricName]: Spec<N>["kind"] extends K ? N : never;
}[MetricName];

export type LabelsOf<N extends MetricName> = {
  readonly [L in keyof Spec<N>["labels"]]: Spec<N>["labels"][L] extends readonly (infer V)[] ? V & string : string;
};
