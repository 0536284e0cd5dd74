import {
  color,
  duration,
  flag,
  hostList,
  hostPort,
  integer,
  type Kind,
  locale,
  mailbox,
  milliseconds,
  networkList,
  oneOf,
  origin,
  originList,
  pageUrl,
  rate,
  routeRates,
  secureUrl,
  share,
  someOf,
  text,
  threatSources,
  timeOfDay,
  timestamp,
  timeZone,
  url,
  urlList,
} from "./kinds.ts";
import { LOG_LEVELS } from "./log.ts";

export const ENVIRONMENTS = ["development", "staging", "production"] as const;
export type Environment = (typeof ENVIRONMENTS)[number];

/** The signature algorithms that primer signs with; a key has exactly one. */
export const SIGNATURE_ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"] as const;
export type SignatureAlgorithm = (typeof SIGNATURE_ALGORITHMS)[number];

type RawValue = string | number | boolean | readonly string[];

/** Kinds of characters that a password can be made to have. */
export const CHARACTER_CLASSES = ["letter", "upper", "lower", "digit", "symbol"] as const;
export type CharacterClass = (typeof CHARACTER_CLASSES)[number];

/** One setting: what it may hold, what it holds when nobody says anything, and one sentence on what it does. */
export interface Setting<T> {
  readonly kind: Kind<T>;
  readonly default: RawValue | Readonly<Record<Environment, RawValue>>;
  readonly sentence: string;
  /** Never printed; written to secrets.env and not to primer.toml. */
  readonly secret?: boolean;
  /** The name that this setting goes by everywhere else, such as DATABASE_URL. */
  readonly alias?: string;
}

function setting<T>(
  kind: Kind<T>,
  fallback: Setting<T>["default"],
  sentence: string,
  more: { secret?: boolean; alias?: string } = {},
): Setting<T> {
  return { kind, default: fallback, sentence, ...more };
}

/**
 * Every setting of primer, once. The file primer.toml, the PRIMER_<TABLE>__<KEY> variables, the reference in the README,
 * `primer config` and the checks at start all read this table.
 */
export const SETTINGS = {
  server: {
    host: setting(text(255), "127.0.0.1", "Address to listen on."),
    port: setting(integer(1, 65535), 8080, "TCP port to listen on."),
    public_url: setting(
      origin,
      "",
      "The origin that people and applications reach primer at. Empty: HOST:PORT over http, or over https with tls_cert; in development only.",
    ),
    tls_cert: setting(
      text(4096),
      "",
      "PEM file with the certificate and the intermediate ones after it; with it primer serves https itself. A path in the home, or an absolute one. Read again when it changes.",
    ),
    tls_key: setting(text(4096), "", "PEM file with the private key of that certificate, without a passphrase."),
    tls_min_version: setting(oneOf("1.3", "1.2"), "1.3", "The oldest version of TLS that a client may speak."),
    trusted_proxies: setting(
      networkList,
      [],
      "Networks of your reverse proxies. Only a request from one of them may say who the client is (X-Forwarded-For).",
    ),
    cors_origins: setting(originList, [], "Browser origins that may call the API from a page of theirs."),
    max_body_bytes: setting(integer(1024, 1_048_576), 65_536, "Largest request body accepted, in bytes."),
    request_timeout: setting(duration("1s", "25s"), "10s", "How long the body of a request may take to arrive."),
    max_connections: setting(
      integer(50, 1_000_000),
      10_000,
      "Connections that one process has at most; while it has as many, further ones are refused. Never more than its limit of open files allows.",
    ),
    drain_delay: setting(
      duration("0s", "60s"),
      { development: "0s", staging: "5s", production: "5s" },
      "How long the listener stays open after SIGTERM while /readyz already answers 503, so that balancers notice.",
    ),
    stop_timeout: setting(duration("1s", "10m"), "20s", "How long requests under way may finish after SIGTERM."),
  },
  database: {
    url: setting(
      url("postgres", "postgresql"),
      "",
      "PostgreSQL 15 or later. Empty: the embedded PGlite database in the home.",
      { secret: true, alias: "DATABASE_URL" },
    ),
    admin_url: setting(
      url("postgres", "postgresql"),
      "",
      "The same database as the role that owns its tables: for migrations and the retention of the audit log. With it `database.url` can be a role that may add to the audit log and never change it. Empty: database.url does both.",
      { secret: true, alias: "DATABASE_ADMIN_URL" },
    ),
    pool_size: setting(integer(1, 500), 10, "Connections that one process opens to PostgreSQL at most."),
    connect_timeout: setting(duration("1s", "60s"), "5s", "How long to wait for a connection to PostgreSQL."),
    statement_timeout: setting(duration("100ms", "10m"), "2s", "PostgreSQL ends a statement that takes longer."),
    tls_ca: setting(
      text(4096),
      "",
      "PEM file with the CA that signed PostgreSQL's certificate, where the system does not know it; with it the connection is always TLS. A path in the home, or an absolute one.",
    ),
    replica_urls: setting(
      urlList("postgres", "postgresql"),
      [],
      "Streaming replicas of that PostgreSQL. Lists for administrators are read from them; logins, tokens and sessions never.",
      { secret: true },
    ),
    replica_max_lag: setting(
      duration("2s", "10m"),
      "5s",
      "A replica that may be further behind than this is not read from; PostgreSQL itself is.",
    ),
  },
  resilience: {
    verify_stale: setting(
      duration("0s", "5m"),
      "30s",
      "While the database is away, access tokens of sessions seen within this time are still good. 0s: they are refused.",
    ),
  },
  redis: {
    url: setting(url("redis", "rediss"), "", "Redis or Valkey. Empty: limits and caches are kept in the process.", {
      secret: true,
      alias: "REDIS_URL",
    }),
    cluster: setting(flag, false, "The URL is that of one node of a Redis Cluster; the others are found through it."),
    sentinels: setting(
      hostList,
      [],
      "Redis Sentinels, as host:port. They say where the server is; the URL gives that one's user and password.",
    ),
    sentinel_master: setting(text(255), "mymaster", "The name under which the Sentinels watch it."),
    sentinel_username: setting(text(255), "", "Whom the Sentinels know, where they ask for more than a password."),
    sentinel_password: setting(text(1024), "", "What the Sentinels ask for. Empty: they ask for nothing.", {
      secret: true,
    }),
  },
  mail: {
    smtp_url: setting(
      url("smtp", "smtps"),
      "",
      "Mail server. Empty: mails are kept and can be read on the machine, none is lost.",
      { secret: true, alias: "SMTP_URL" },
    ),
    smtp_fallback_urls: setting(
      urlList("smtp", "smtps"),
      [],
      "Further mail servers, tried in this order while the one before does not take mails.",
      { secret: true },
    ),
    tls: setting(
      oneOf("required", "opportunistic", "off"),
      "required",
      "With smtp:// in the URL: demand STARTTLS (of this machine itself only with mail.tls_ca), use it where it is offered, or never. Certificates are checked.",
    ),
    tls_ca: setting(
      text(4096),
      "",
      "PEM file with the CA that signed the mail server's certificate, where the system does not know it. A path in the home, or an absolute one.",
    ),
    connections: setting(integer(1, 50), 4, "Connections that one process opens to one mail server at most."),
    from: setting(
      mailbox,
      "",
      "Where mails come from, with the name that is shown or without. Empty: primer@ the host of the public URL.",
    ),
    reply_to: setting(mailbox, "", "Where answers go. Empty: to where mails come from."),
    product_name: setting(text(64), "primer", "What the product is called in mails."),
    logo: setting(
      text(4096),
      "",
      "Picture over each mail: an https URL, or a PNG, JPEG or GIF file of up to 200 KB that is sent along. A path in the home, or an absolute one.",
    ),
    color: setting(color, "#1f5f8b", "Colour of buttons in mails."),
    locale: setting(
      locale,
      "en",
      "Language of mails. English is built in; others, and changes to it, are files in mail/LOCALE/ in the home.",
    ),
    time_zone: setting(timeZone, "UTC", "Time zone of the times in mails."),
    notify_login: setting(
      oneOf("new_device", "every", "off"),
      "new_device",
      "Which sign-ins their owner gets a mail about: on a new device, every one, none. Of a suspicious one they always do.",
    ),
  },
  links: {
    verify_email: setting(
      pageUrl,
      "",
      "The page that mails link to for confirming an address; it finds the token behind #token=. Empty: /account/verify-email of primer.",
    ),
    reset_password: setting(pageUrl, "", "The same for setting a new password. Empty: /account/reset-password."),
    end_session: setting(
      pageUrl,
      "",
      "The same for ending a session that was not one's own. Empty: /account/end-session.",
    ),
    invitation: setting(
      pageUrl,
      "",
      "The same for registering by an invitation; it is a page of your own. Empty: the mail has the code of the invitation.",
    ),
  },
  telemetry: {
    otlp_endpoint: setting(
      url("http", "https"),
      "",
      "OpenTelemetry endpoint that metrics and traces are sent to, at /v1/metrics and /v1/traces under it. Empty: none.",
      { secret: true, alias: "OTEL_EXPORTER_OTLP_ENDPOINT" },
    ),
    otlp_metrics_endpoint: setting(
      url("http", "https"),
      "",
      "The whole URL that metrics are sent to, where it is another one.",
      { secret: true, alias: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" },
    ),
    otlp_traces_endpoint: setting(
      url("http", "https"),
      "",
      "The whole URL that traces are sent to, where it is another one.",
      { secret: true, alias: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" },
    ),
    otlp_protocol: setting(
      oneOf("http/protobuf", "http/json"),
      "http/protobuf",
      "How they are written: VictoriaMetrics reads protobuf only.",
      { alias: "OTEL_EXPORTER_OTLP_PROTOCOL" },
    ),
    otlp_headers: setting(
      text(4096),
      "",
      "Headers to send them with, such as `authorization=Bearer%20…`; several are separated by commas.",
      { secret: true, alias: "OTEL_EXPORTER_OTLP_HEADERS" },
    ),
    service_name: setting(text(100), "primer", "The name of the service in them.", { alias: "OTEL_SERVICE_NAME" }),
    resource_attributes: setting(
      text(4096),
      "",
      "Further attributes of the service, such as `k8s.cluster.name=eu-1`; several are separated by commas.",
      { alias: "OTEL_RESOURCE_ATTRIBUTES" },
    ),
    export_interval: setting(milliseconds("1s", "10m"), "15s", "How often metrics are sent.", {
      alias: "OTEL_METRIC_EXPORT_INTERVAL",
    }),
    trace_ratio: setting(
      share,
      0.1,
      "The share of requests that are traced, from 0 to 1, by the ids of their traces; those of callers count alike. 0: none at all.",
      { alias: "OTEL_TRACES_SAMPLER_ARG" },
    ),
    metrics_token: setting(
      text(512),
      "",
      "With it /metrics is answered, in Prometheus' form, to whoever sends it as a bearer token: 16 characters or more. Empty: 404.",
      { secret: true },
    ),
    metrics_listen: setting(
      hostPort,
      "",
      "An address such as 127.0.0.1:9464 at which /metrics is answered besides, by the worker too: to everybody who reaches it, where there is no token.",
    ),
  },
  log: {
    level: setting(oneOf(...LOG_LEVELS), "info", "The least serious log lines that are written."),
    folder: setting(
      text(4096),
      "",
      "A folder in which log lines are kept as well, one file for each process. A path in the home, or an absolute one. Empty: none.",
    ),
    max_bytes: setting(integer(65_536, 1_073_741_824), 16_777_216, "A file of the log that is larger is put aside."),
    keep: setting(
      integer(1, 1000),
      10,
      "As many files that were put aside are kept for each process that runs, and for all together that have ended; those of other machines and containers count as ended after a day of silence.",
    ),
  },
  docs: {
    enabled: setting(
      flag,
      { development: true, staging: true, production: false },
      "Serve /docs and /docs/json, the API's documentation.",
    ),
  },
  tokens: {
    issuer: setting(text(255), "", "The `iss` claim. Empty: the public URL."),
    audience: setting(text(255), "primer", "The `aud` claim of access tokens that primer makes for its own logins."),
    algorithm: setting(oneOf(...SIGNATURE_ALGORITHMS), "RS256", "Signature algorithm of keys made from now on."),
    access_ttl: setting(duration("1m", "60m"), "15m", "Lifetime of an access token."),
    refresh_idle: setting(duration("1m", "90d"), "1d", "A session not refreshed for this long is over."),
    refresh_absolute: setting(duration("5m", "365d"), "30d", "A session is over after this long, however active."),
    refresh_grace: setting(
      duration("0s", "60s"),
      "10s",
      "For this long after a refresh, the token just used still gets the session's current tokens. 0s is strict.",
    ),
    clock_skew: setting(duration("0s", "60s"), "30s", "How far apart clocks may be when a token's times are checked."),
    fingerprint: setting(
      flag,
      false,
      "Bind the tokens of a login in cookie mode to a random value in a cookie of the browser: alone they are worth nothing.",
    ),
    legacy_secret: setting(
      text(1024),
      "",
      "Accept the HS256 tokens of an existing service that are signed with this, 32 bytes or more. Empty: none.",
      { secret: true },
    ),
    legacy_issuer: setting(text(255), "", "The `iss` that those tokens must have."),
    legacy_audience: setting(text(255), "", "The `aud` that those tokens must have."),
    legacy_user_claim: setting(
      text(64),
      "sub",
      "The claim of those tokens that names the user: a user name, an e-mail address or an id here.",
    ),
    legacy_until: setting(timestamp, "", "When those tokens are refused for good, such as 2027-01-31T00:00:00Z."),
  },
  keys: {
    bits: setting(integer(3072, 8192), 4096, "Size of RSA signing keys made from now on."),
    publish_ahead: setting(
      duration("15m", "30d"),
      "24h",
      "How long a new signing key is published before it signs its first token.",
    ),
    rotate_every: setting(
      duration("0s", "3650d"),
      "0s",
      "A signing key is replaced by stages once it is this old. 0s: only by `primer rotate-keys`.",
    ),
  },
  sessions: {
    max_per_user: setting(integer(0, 1000), 0, "Sessions that one user may have at the same time. 0: any number."),
    when_full: setting(
      oneOf("end_oldest", "refuse"),
      "end_oldest",
      "What one login too many does: end the oldest session, or be refused.",
    ),
    step_up_age: setting(
      duration("30s", "24h"),
      "5m",
      "For how long after proving who one is the routes that ask for it again do not.",
    ),
  },
  password: {
    min_length: setting(integer(8, 64), 15, "Fewest characters of a password."),
    min_strength: setting(
      integer(0, 4),
      3,
      "Least strength of a password as zxcvbn estimates it: 3 is a hundred million guesses, 4 ten thousand million. 0: any.",
    ),
    require: setting(
      someOf(...CHARACTER_CLASSES),
      [],
      "Kinds of characters that a password must have. Best left empty: such rules make passwords easier to guess.",
    ),
    hibp: setting(
      oneOf("off", "online", "offline"),
      "off",
      "Refuse passwords known from breaches (Have I Been Pwned): ask the service, which learns five digits of a hash and nothing else, or look into the set that `primer hibp import` has read.",
    ),
    hibp_url: setting(
      secureUrl,
      "https://api.pwnedpasswords.com",
      "Where that service is asked: its own address or a mirror's.",
    ),
    algorithm: setting(oneOf("argon2id", "bcrypt"), "argon2id", "How new passwords are hashed."),
    memory_kib: setting(integer(12_288, 262_144), 19_456, "argon2id: memory of one hash, in KiB."),
    iterations: setting(integer(1, 8), 2, "argon2id: passes over that memory."),
    bcrypt_cost: setting(integer(10, 14), 12, "bcrypt: cost; one more doubles the time."),
    hash_slots: setting(integer(0, 256), 0, "Hashes computed at the same time. 0: one per processor core."),
    hash_queue: setting(
      integer(1, 10_000),
      64,
      "Hashes that may wait for a slot; one more is answered 503 with Retry-After.",
    ),
    hash_timeout: setting(
      duration("100ms", "30s"),
      "2s",
      "How long a login may wait for its turn, and then for its hash. More than can have their turn in half of that are answered 503 at once.",
    ),
    failure_floor: setting(
      duration("0s", "5s"),
      "300ms",
      "A refused login is answered no sooner than this after it arrived, so that its time tells nothing.",
    ),
  },
  registration: {
    mode: setting(oneOf("open", "invite", "closed"), "open", "Who may register: anyone, the invited, nobody."),
    verify_email: setting(flag, true, "A new account must prove its e-mail address before it can log in."),
  },
  accounts: {
    delay_after: setting(
      integer(0, 20),
      5,
      "From this many wrong passwords in a row on, each further try has to wait longer, up to 15 minutes. 0: never.",
    ),
    lock_after: setting(
      integer(0, 100),
      100,
      "After this many the password is not accepted any more until it is reset or the account unlocked. 0: never.",
    ),
    geoip_file: setting(
      text(4096),
      "",
      "MaxMind DB file with cities, such as GeoLite2-City.mmdb, to notice sign-ins that are too far apart for the time between them. A path in the home, or an absolute one. Each process holds it in memory and reads it again when it changes. Empty: none.",
    ),
    erase_after: setting(
      duration("0s", "365d"),
      "30d",
      "An account that was given up can be taken back by logging in for this long, and then is erased.",
    ),
  },
  threats: {
    sources: setting(
      threatSources,
      [],
      "Lists of networks that are known for attacks: https URLs, or files in the home of the worker. With sha256+ before it a list must fit the checksum at the same place with the ending .sha256, with minisign+ the signature at .minisig. Empty: none.",
    ),
    public_key: setting(text(64), "", "The minisign key that those signatures are made with, as minisign prints it."),
    action: setting(
      oneOf("score", "refuse"),
      "score",
      "What a listed address means: its sign-ins are unusual, or logins, registrations and mails for a new password are refused.",
    ),
    except: setting(
      networkList,
      [],
      "Networks that are never taken for listed. Private ones and server.trusted_proxies never are.",
    ),
    refresh_every: setting(duration("15m", "2d"), "6h", "How often the lists are read again."),
  },
  cookies: {
    same_site: setting(oneOf("lax", "strict", "none"), "lax", "SameSite attribute of primer's cookies."),
  },
  rate_limits: {
    mode: setting(
      oneOf("enforce", "shadow"),
      "enforce",
      "What happens over a limit: refusal, or only a line in the log. Failures of accounts and clients always count.",
    ),
    login_ip: setting(rate, "5/1m", "Logins from one address (of IPv6, one /64)."),
    login_ip_account: setting(rate, "10/15m", "Logins from one address with the same name."),
    login_service: setting(rate, "3000/1m", "Logins from everywhere together."),
    login_account: setting(rate, "10/15m", "Failed logins on one account."),
    general: setting(rate, "100/1m", "Requests of one user, or of one address where nobody is logged in."),
    routes: setting(
      routeRates,
      [],
      "The same for single routes, in place of `general` and beside what else limits them.",
    ),
    refresh: setting(rate, "10/1h", "Refreshes of one session."),
    register_ip: setting(rate, "5/1h", "Registrations from one address."),
    mail_address: setting(rate, "3/1h", "Reset and verification mails to one address."),
    introspect_failed: setting(
      rate,
      "100/1m",
      "Tokens that one service client introspects or revokes and that are not good; one more, and it has to wait.",
    ),
    client_failed: setting(rate, "20/1m", "Failed authentications of service clients from one address."),
  },
  worker: {
    time_zone: setting(timeZone, "UTC", "Time zone of the times of day at which schedules run."),
  },
  report: {
    enabled: setting(flag, true, "Mail the sign-ins of the day before to everybody with the permission reports:read."),
    time: setting(timeOfDay, "07:00", "When that mail is sent."),
  },
  retention: {
    time: setting(timeOfDay, "03:30", "When what is older than the following is deleted, every day."),
    logins: setting(duration("30d", "3650d"), "365d", "How long attempts to log in are kept."),
    audit: setting(duration("30d", "3650d"), "365d", "How long the audit log is kept."),
    sessions: setting(duration("7d", "3650d"), "30d", "How long sessions are kept after they have ended."),
  },
  backup: {
    key_file: setting(
      text(4096),
      "",
      "File that holds the passphrase of backups, 16 characters or more. A path in the home, or an absolute one.",
    ),
    folder: setting(
      text(4096),
      "",
      "Where a backup is put every day. A path in the home, or an absolute one. Empty: only by `primer backup`.",
    ),
    keep: setting(integer(1, 3650), 7, "How many of those daily backups are kept."),
    verify: setting(flag, true, "Each of them is restored to a scratch place and logged in to there."),
    max_age: setting(
      duration("1h", "365d"),
      "7d",
      "`primer doctor` warns where the last verified backup is older than this.",
    ),
  },
} as const;

type Tables = typeof SETTINGS;
type ValueOf<S> = S extends Setting<infer T> ? T : never;

/** All settings with their values, durations in milliseconds, plus the environment whose defaults apply. */
export type Settings = { readonly environment: Environment } & {
  readonly [T in keyof Tables]: { readonly [K in keyof Tables[T]]: ValueOf<Tables[T][K]> };
};

export interface NamedSetting extends Setting<unknown> {
  readonly key: string;
  readonly table: string;
  readonly name: string;
  readonly variable: string;
}

/** `environment` is read first, since it chooses the defaults of the others. */
export const ENVIRONMENT_SETTING: NamedSetting = {
  key: "environment",
  table: "",
  name: "environment",
  variable: "PRIMER_ENVIRONMENT",
  kind: oneOf(...ENVIRONMENTS),
  default: "development",
  sentence: "Which defaults apply, and how strict the checks at start are.",
};

/** Every setting in the order of the reference, with its dotted key and the name of its variable. */
export const SETTING_LIST: readonly NamedSetting[] = Object.entries(SETTINGS).flatMap(([table, settings]) =>
  Object.entries(settings as Record<string, Setting<unknown>>).map(([name, entry]) => ({
    ...entry,
    key: `${table}.${name}`,
    table,
    name,
    variable: `PRIMER_${table}__${name}`.toUpperCase(),
  })),
);

/** The raw default of a setting in an environment. */
export function defaultOf(entry: Setting<unknown>, environment: Environment): RawValue {
  const fallback = entry.default;
  return typeof fallback === "object" && !Array.isArray(fallback)
    ? (fallback as Record<Environment, RawValue>)[environment]
    : (fallback as RawValue);
}
