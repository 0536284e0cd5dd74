import { REAL_ROUTES, selectors, sharesOf } from "./queries.ts";

/** Wakes somebody, or is looked at on the next working day. */
type Severity = "critical" | "warning";

interface Alert {
  readonly severity: Severity;
  /** Gives a value for each group of labels that is looked at; `environment` is always one of them. */
  readonly value: string;
  /** It fires while the value is over (or under) this. */
  readonly over?: number;
  readonly under?: number;
  /** ... for so long. */
  readonly for: string;
  /** How people read the value. */
  readonly shown: "share" | "duration" | "number";
  /** What there is to see; VALUE stands for the value, {label} for a label's. */
  readonly summary: string;
  readonly description: string;
  /** The line of the runbook. */
  readonly runbook: { readonly means: string; readonly look: string; readonly act: string };
}

const select = selectors("");
const { of, counts, buckets } = select;
const shares = sharesOf(select, "5m");

const HOUR = 3600;
const DAY = 24 * HOUR;
/** So old a key may become where nothing replaces it by itself (seconds). */
const KEY_AGE = 365 * DAY;

const more = (selector: string, window: string, by = "environment") =>
  `sum by (${by}) (increase(${selector}[${window}]))`;
const most = (selector: string, by = "environment") => `max by (${by}) (${selector})`;
/** Of all of them, where there were more than so few. */
const share = (part: string, all: string, window: string, moreThan: number) =>
  `${more(part, window)} / ${more(all, window)} and ${more(part, window)} > ${moreThan}`;

const requests = counts("http_server_request_duration_seconds", { route: REAL_ROUTES });
const failed = counts("http_server_request_duration_seconds", { route: REAL_ROUTES, status: "=~5.." });
const signIns = of("primer_sign_ins_total");
const refusedSignIns = of("primer_sign_ins_total", { outcome: "failure" });
const tokens = of("primer_tokens_verified_total");
const refusedTokens = of("primer_tokens_verified_total", { outcome: "refused" });
const mails = of("primer_mails_total");
const unsentMails = of("primer_mails_total", { outcome: "=~deferred|refused" });
const keyAges = (where?: { use: string }) => most(of("primer_key_age_seconds", where), "environment, use");
const keyInterval = most(of("primer_key_rotation_interval_seconds"));
const backupAge = most(of("primer_backup_verified_age_seconds"));
const processes = `group by (environment, kind) (${of("primer_info")})`;

/**
 * Every alert once: for vmalert, for Grafana and for the runbook. Rates count from a minimum on, so that three failures at
 * night wake nobody.
 */
export const ALERTS = {
  ErrorRateHigh: {
    severity: "critical",
    value: share(failed, requests, "5m", 10),
    over: 0.05,
    for: "2m",
    shown: "share",
    summary: "Requests fail",
    description: "VALUE of the requests of the last five minutes were answered 5xx.",
    runbook: {
      means: "More than 5 % of the requests (and more than 10) were answered 500 or 503 within 5 minutes.",
      look: "Errors by route; `BreakerOpen`; in the log `request.failed` and `request.unavailable`.",
      act: "Mend the dependency that is away. 503 alone: see `LoginsTurnedAway`. 500: it began with a release? Go back to the version before.",
    },
  },
  LatencyHigh: {
    severity: "warning",
    value: `histogram_quantile(0.95, sum by (environment, le) (rate(${buckets("http_server_request_duration_seconds", { route: REAL_ROUTES })}[5m])))`,
    over: 1,
    for: "5m",
    shown: "duration",
    summary: "Requests are slow",
    description: "One request of twenty takes longer than VALUE.",
    runbook: {
      means: "The 95th percentile of all requests was over a second for 5 minutes.",
      look: "Time by stage: `hash` is CPU, `query` the database, `limit` Redis; the wait for a hash; the event loop.",
      act: "More CPU or nodes for hashes; for queries look at PostgreSQL's load and locks.",
    },
  },
  DatabaseConnectionFailures: {
    severity: "critical",
    value: more(of("primer_dependency_failures_total", { dependency: "database" }), "5m"),
    over: 10,
    for: "1m",
    shown: "number",
    summary: "PostgreSQL cannot be reached",
    description: "VALUE attempts to reach PostgreSQL failed within five minutes.",
    runbook: {
      means: "PostgreSQL refused connections or did not answer within its deadline, more than 10 times in 5 minutes.",
      look: "`primer doctor`; PostgreSQL's log; its number of connections; the network between.",
      act: "Start it, or fail over. Nothing of primer has to be restarted: it asks again each second.",
    },
  },
  DatabaseConnectionsScarce: {
    severity: "warning",
    value: `${most(of("primer_database_server_connections", { state: "open" }))} / ${most(of("primer_database_server_connections", { state: "limit" }))}`,
    over: 0.85,
    for: "5m",
    shown: "share",
    summary: "PostgreSQL is running out of connections",
    description: "VALUE of the connections that PostgreSQL takes are open.",
    runbook: {
      means: "Over 85 % of PostgreSQL's `max_connections` are open, by primer and by everybody else.",
      look: "`pg_stat_activity` by application; how many processes there are, times `database.pool_size`.",
      act: "Lower `database.pool_size`, raise `max_connections`, or end what holds connections without need.",
    },
  },
  BreakerOpen: {
    severity: "warning",
    value: most(of("primer_breaker_open"), "environment, dependency"),
    over: 0,
    for: "1m",
    shown: "number",
    summary: "{dependency} is left alone by its circuit breaker",
    description: "The circuit breaker of {dependency} has not been closed for a minute (VALUE: 1 open, 0.5 trying).",
    runbook: {
      means:
        "A dependency failed five times in a row and is asked again once a second; what needs it is refused at once.",
      look: "`GET /api/v1/monitoring/health`; `breaker.opened` in the log says what goes on without it.",
      act: "Mend the dependency; the breaker closes by itself. Without Redis each process counts limits alone; without SMTP mails wait.",
    },
  },
  QueueBacklog: {
    severity: "warning",
    value: `sum by (environment) (${most(of("primer_jobs", { state: "waiting" }), "environment, queue")})`,
    over: 1000,
    for: "5m",
    shown: "number",
    summary: "Background jobs pile up",
    description: "VALUE background jobs wait.",
    runbook: {
      means: "More than 1000 jobs (mails, mostly) wait for a worker or for their next try.",
      look: "`primer jobs list`; whether workers run; `job.retry` in the log; the mail server.",
      act: "Start more workers (`primer worker`), raise `--concurrency`, or mend the mail server: nothing is lost meanwhile.",
    },
  },
  DeadJobs: {
    severity: "warning",
    value: most(of("primer_jobs", { state: "dead" }), "environment, queue"),
    over: 0,
    for: "5m",
    shown: "number",
    summary: "Background jobs were given up",
    description: "VALUE jobs of {queue} were given up and wait for somebody to decide.",
    runbook: {
      means: "Jobs failed for a day and more, were refused for good, or killed their workers five times.",
      look: "`primer jobs list --state dead`, `primer jobs show ID`.",
      act: "`primer jobs retry ID` when the cause is gone; `primer jobs purge` what nobody needs any more. Then it is over.",
    },
  },
  MailsNotSent: {
    severity: "warning",
    value: share(unsentMails, mails, "30m", 5),
    over: 0.5,
    for: "5m",
    shown: "share",
    summary: "Mails do not go out",
    description: "VALUE of the attempts to send a mail within half an hour failed.",
    runbook: {
      means:
        "More than half of the attempts (and more than 5) were put off or refused: people wait for links and codes.",
      look: "`primer doctor`; `primer mail test`; the mail server's log; blocklists.",
      act: "Mend the server or its password, or name another in `mail.smtp_fallback_urls`. What was put off goes out by itself.",
    },
  },
  ScheduleFailed: {
    severity: "warning",
    value: more(of("primer_schedule_runs_total", { outcome: "failed" }), "1h", "environment, schedule"),
    over: 0,
    for: "0s",
    shown: "number",
    summary: "The schedule {schedule} failed",
    description: "{schedule} failed for good, with all its tries (VALUE times within an hour).",
    runbook: {
      means: "What is done by the clock did not get done, after four tries within half an hour.",
      look: "`primer worker --list`; `schedule.failed` in the log.",
      act: "Mend what the log names, then `primer worker --run-once NAME`.",
    },
  },
  SignInFailures: {
    severity: "warning",
    value: share(refusedSignIns, signIns, "15m", 20),
    over: 0.1,
    for: "5m",
    shown: "share",
    summary: "Many sign-ins are refused",
    description: "VALUE of the attempts to sign in within a quarter of an hour were refused.",
    runbook: {
      means:
        "More than 10 % of the attempts, and more than 20 within 15 minutes, were refused: guessing, or a client with a fault.",
      look: "Refused sign-ins by reason; `primer audit export --action login --outcome failure | jq .ip`.",
      act: "From few addresses: block them at the proxy. Over many accounts: lower `rate_limits.login_ip`. After a release: look at the application.",
    },
  },
  LoginsTurnedAway: {
    severity: "warning",
    value: more(of("primer_hashes_refused_total"), "5m"),
    over: 20,
    for: "2m",
    shown: "number",
    summary: "Logins are told to come again",
    description: "VALUE passwords were not looked at within five minutes, since too many waited.",
    runbook: {
      means: "More people log in than this machine can hash passwords for; the rest gets 503 with Retry-After.",
      look: "CPU; the hash queue; whether it is an attack (`SignInFailures`, `LimitBreaches`).",
      act: "More cores or more nodes.",
    },
  },
  TokenFailures: {
    severity: "warning",
    value: share(refusedTokens, tokens, "10m", 50),
    over: 0.1,
    for: "5m",
    shown: "share",
    summary: "Many access tokens are refused",
    description: "VALUE of the access tokens that were shown within ten minutes were refused.",
    runbook: {
      means:
        "More than 10 % of the tokens, and more than 50 within 10 minutes, did not count: made up, expired, or of ended sessions.",
      look: "Requests answered 401 by route; `primer rotate-keys --status`: an emergency rotation? `primer doctor`: the clocks?",
      act: "One client that does not refresh: tell its owner. Made-up tokens: block the address. After an emergency rotation: wait.",
    },
  },
  RefreshTokensReused: {
    severity: "warning",
    value: more(of("primer_refreshes_total", { outcome: "reused" }), "15m"),
    over: 5,
    for: "0s",
    shown: "number",
    summary: "Refresh tokens were used twice",
    description: "VALUE refresh tokens were used a second time within a quarter of an hour; their sessions have ended.",
    runbook: {
      means:
        "Somebody used refresh tokens that had been used already: copies of them are about, or a client keeps old ones.",
      look: "`primer audit export --action refresh.reused`: one client's release, or many users' addresses?",
      act: "A client: mend how it stores tokens. Theft: `primer users compromise NAME`, and find out where tokens leak.",
    },
  },
  LimitBreaches: {
    severity: "warning",
    value: more(of("primer_limits_hit_total"), "5m", "environment, limit, mode"),
    over: 50,
    for: "0s",
    shown: "number",
    summary: "The limit {limit} is hit again and again",
    description: "VALUE requests were over the limit {limit} within five minutes (mode {mode}).",
    runbook: {
      means: "More than 50 requests within 5 minutes were over one limit; in the mode `shadow` they were let through.",
      look: "`limit.refused` in the log: one address, one account or many?",
      act: "An attack: block it at the proxy. Your own application or a proxy not in `server.trusted_proxies`: mend that, or raise the limit.",
    },
  },
  CpuHigh: {
    severity: "warning",
    value: `max by (environment) (${shares.cpu})`,
    over: 0.8,
    for: "10m",
    shown: "share",
    summary: "The CPU is busy",
    description: "VALUE of the CPU of a machine was in use for ten minutes.",
    runbook: {
      means: "A machine that runs primer used over 80 % of its processors for 10 minutes.",
      look: "Is it primer (CPU of processes) or something else? Sign-ins per second: each costs a hash.",
      act: "More cores or nodes; an attack is limited by `rate_limits.login_service`.",
    },
  },
  MemoryHigh: {
    severity: "warning",
    value: `max by (environment) (${shares.memory})`,
    over: 0.85,
    for: "10m",
    shown: "share",
    summary: "Memory is running out",
    description: "VALUE of the memory of a machine, or of its container, is in use.",
    runbook: {
      means: "Over 85 % of the machine's memory, or of the container's limit, was in use for 10 minutes.",
      look: "Resident memory by process: does it grow without end? The GeoIP file needs its size twice while it is renewed.",
      act: "Raise the limit. Where primer grows and grows, restart one process after the other, and report it.",
    },
  },
  DiskLow: {
    severity: "warning",
    value: `min by (environment) (${shares.diskFree})`,
    under: 0.2,
    for: "10m",
    shown: "share",
    summary: "The disk is filling up",
    description: "VALUE of the disk of a home is free.",
    runbook: {
      means: "Less than 20 % of the disk on which a home lies is free; full, the embedded database takes no writes.",
      look: "Log files, backups (`backup.keep`) and, on the embedded database, `retention.audit` and `retention.logins`.",
      act: "Make room or a larger disk; move backups elsewhere.",
    },
  },
  ReplicaBehind: {
    severity: "warning",
    value: most(of("primer_replica_lag_seconds"), "environment, replica"),
    over: 30,
    for: "5m",
    shown: "duration",
    summary: "{replica} is behind",
    description: "{replica} is VALUE behind and is not read from.",
    runbook: {
      means: "A replica of PostgreSQL was over 30 seconds behind for 5 minutes; primer reads from the primary instead.",
      look: "`pg_stat_replication` on the primary, `pg_last_xact_replay_timestamp()` on the replica; long reports that hold it up.",
      act: "Mend the replication before a failover needs it.",
    },
  },
  KeyTooOld: {
    severity: "warning",
    value: `${keyAges({ use: "signing" })} / on (environment) group_left () (${keyInterval} + ${DAY}) or ${keyAges()} / ${KEY_AGE}`,
    over: 1,
    for: "1h",
    shown: "share",
    summary: "The {use} key is too old",
    description: "The {use} key has VALUE of the age at which it should have been replaced.",
    runbook: {
      means:
        "By `keys.rotate_every` the signing key should have been replaced a day ago; a key that is replaced by hand is over a year old.",
      look: "`primer rotate-keys --status`; `primer audit export --action key.activated`.",
      act: "`primer rotate-keys`, and `--what refresh` for the refresh key: no token is refused by it.",
    },
  },
  BackupTooOld: {
    severity: "critical",
    value: `${backupAge} or (${most(of("primer_installation_age_seconds"))} unless on (environment) ${backupAge})`,
    over: 2 * DAY,
    for: "15m",
    shown: "duration",
    summary: "No backup has proven itself lately",
    description:
      "The last backup that was restored to prove it, or the installation where there is none, is VALUE old.",
    runbook: {
      means: "For 48 hours no backup was taken and verified, or there never was one.",
      look: "`primer worker --list` (schedule `backup`); `backup.folder` and `backup.key_file`; the disk it goes to.",
      act: "`primer backup FILE --passphrase-file F`, then `primer backup --verify FILE --passphrase-file F`. Set `backup.folder` to have one each day.",
    },
  },
  CertificateExpires: {
    severity: "critical",
    value: `min by (environment) (${of("primer_certificate_expires_seconds")})`,
    under: 14 * DAY,
    for: "15m",
    shown: "duration",
    summary: "The certificate expires",
    description: "The certificate that is served is good for VALUE more.",
    runbook: {
      means: "The certificate of `server.tls_cert` expires within 14 days, so its renewal does not work.",
      look: "What renews it (certbot, cert-manager); `certificate.refused` in the log: the new files are there and of no use.",
      act: "Renew it; primer takes new files within two seconds.",
    },
  },
  AuditUnsealed: {
    severity: "warning",
    value: most(of("primer_audit_unsealed_age_seconds")),
    over: 300,
    for: "5m",
    shown: "duration",
    summary: "The audit log is not sealed",
    description: "The oldest row of the audit log that is not in its chain yet is VALUE old.",
    runbook: {
      means:
        "Rows become links of the chain within five seconds; for 5 minutes they have not, so a change to them would not show.",
      look: "Whether a process does background work; `audit.` events in the log; `primer audit verify`.",
      act: "Start a worker. Where one runs, the log says what keeps it from sealing.",
    },
  },
  ProcessesGone: {
    severity: "critical",
    value: `(group by (environment, kind) (last_over_time(${of("primer_info")}[1d])) unless ${processes}) or absent(last_over_time(${of("primer_info")}[1d]))`,
    over: 0,
    for: "2m",
    shown: "number",
    summary: "No process of the kind {kind} tells of itself",
    description: "Within a day there was one, and now nothing comes from any process of the kind {kind}.",
    runbook: {
      means:
        "All processes of a kind are gone, or their metrics get lost on the way. Without any label: nothing has come for a day.",
      look: "`/livez`, `/readyz`; systemd or the orchestrator; `telemetry.not_sent` in the log; the collector.",
      act: "Start it, or mend the way of the metrics. Taken out of service for good: silence it for a day.",
    },
  },
} as const satisfies Readonly<Record<string, Alert>>;

export type AlertName = keyof typeof ALERTS;
export const ALERT_LIST: readonly (readonly [AlertName, Alert])[] = Object.entries(ALERTS) as [AlertName, Alert][];
export type { Alert };
