import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OperatorError } from "../../config/errors.ts";
import { type Fault, findSetting, loadSettings, nearestKey, SettingsError, type Variables } from "../../config/load.ts";
import { renderSettingsFile } from "../../config/render.ts";
import { defaultOf, ENVIRONMENTS, SETTING_LIST } from "../../config/schema.ts";

const scratch = mkdtempSync(join(tmpdir(), "primer-settings-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

interface Sources {
  readonly toml?: string;
  readonly secretsEnv?: string;
  readonly variables?: Variables;
  readonly flags?: Record<string, unknown>;
}

let homes = 0;

/** A home with these files in it. */
function homeWith({ toml, secretsEnv }: Pick<Sources, "toml" | "secretsEnv">): string {
  const home = join(scratch, `home-${homes++}`);
  mkdirSync(home);
  if (toml !== undefined) writeFileSync(join(home, "primer.toml"), toml);
  if (secretsEnv !== undefined) writeFileSync(join(home, "secrets.env"), secretsEnv);
  return home;
}

const load = (sources: Sources) => loadSettings(homeWith(sources), sources.variables ?? {}, sources.flags);

/** The faults that loading found; fails where it found none. */
function faultsOf(sources: Sources): readonly Fault[] {
  try {
    load(sources);
  } catch (error) {
    if (error instanceof SettingsError) return error.faults;
    throw error;
  }
  throw new Error("The settings were accepted");
}

/** A file that holds this text, and the path to it. */
function fileWith(content: string): string {
  const path = join(scratch, `value-${homes++}`);
  writeFileSync(path, content);
  return path;
}

describe("where a setting comes from", () => {
  const toml = "[server]\nport = 1001\n";
  const secretsEnv = "PRIMER_SERVER__PORT=1002\n";
  const variables = { PRIMER_SERVER__PORT: "1003" };
  const flags = { "server.port": "1004" };

  test.each([
    ["the default", {}, 8080, "default"],
    ["primer.toml", { toml }, 1001, "primer.toml"],
    ["secrets.env over primer.toml", { toml, secretsEnv }, 1002, "secrets.env"],
    ["the environment over secrets.env", { toml, secretsEnv, variables }, 1003, "environment"],
    ["a flag over everything", { toml, secretsEnv, variables, flags }, 1004, "flag"],
  ] as const)("%s", (_name, sources, port, origin) => {
    const loaded = load(sources);
    expect(loaded.settings.server.port).toBe(port);
    expect(loaded.resolved.get("server.port")?.origin).toStartWith(origin);
  });

  test("a file that a variable names, without the line end that it closes with", () => {
    const path = fileWith("9000\n");
    const loaded = load({ toml, variables: { PRIMER_SERVER__PORT_FILE: path } });
    expect(loaded.settings.server.port).toBe(9000);
    expect(loaded.resolved.get("server.port")?.origin).toStartWith("environment");
    expect(loaded.resolved.get("server.port")?.origin).toContain("PRIMER_SERVER__PORT_FILE");
  });

  // The environment decides over the home's files also where it names a file: secrets of an orchestrator are mounted.
  test("a file that the environment names counts over secrets.env", () => {
    const path = fileWith("postgres://mounted/primer");
    const loaded = load({
      secretsEnv: "DATABASE_URL=postgres://written/primer\n",
      variables: { DATABASE_URL_FILE: path },
    });
    expect(loaded.settings.database.url).toBe("postgres://mounted/primer");
  });

  test.each([
    ["DATABASE_URL", "database.url", "postgres://db/primer"],
    ["REDIS_URL", "redis.url", "rediss://cache:6380"],
    ["SMTP_URL", "mail.smtp_url", "smtps://user:password@mail.example.org"],
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint", "http://collector:4318"],
  ])("%s is known under its usual name", (name, key, value) => {
    expect(load({ variables: { [name]: value } }).resolved.get(key)?.value).toBe(value);
    expect(load({ variables: { [`${name}_FILE`]: fileWith(`${value}\n`) } }).resolved.get(key)?.value).toBe(value);
    expect(load({ secretsEnv: `${name}=${value}\n` }).resolved.get(key)?.value).toBe(value);
  });

  test("a key whose own name ends in _FILE is no file to read the value from", () => {
    const loaded = load({ variables: { PRIMER_BACKUP__KEY_FILE: "/run/secrets/backup" } });
    expect(loaded.settings.backup.key_file).toBe("/run/secrets/backup");
  });

  test("variables that are not primer's are left alone", () => {
    expect(() =>
      load({ variables: { PORT: "x", PRIMER_HOME: "/srv", PRIMERX__Y: "1", HOME_FILE: "/no" } }),
    ).not.toThrow();
  });
});

describe("faults", () => {
  // An operator mends everything at once: each fault is named with its key and where it came from.
  test("every fault is reported at once", () => {
    const faults = faultsOf({
      toml: '[server]\nport = 70000\nhots = "127.0.0.1"\n[rate_limits]\nlogin_ip = "five"\n',
      secretsEnv: "REDIS_URL=http://cache\n",
      variables: { PRIMER_TOKENS__ACCESS_TTL: "2h", PRIMER_TOKEN__TTL: "1m" },
      flags: { "database.url": "mysql://db/primer" },
    });
    const found = Object.fromEntries(faults.map(({ key, origin }) => [key, origin]));
    expect(Object.keys(found).sort()).toEqual([
      "database.url",
      "rate_limits.login_ip",
      "redis.url",
      "server.hots",
      "server.port",
      "token.ttl",
      "tokens.access_ttl",
    ]);
    expect(found["server.port"]).toContain("primer.toml");
    expect(found["redis.url"]).toContain("secrets.env");
    expect(found["tokens.access_ttl"]).toContain("PRIMER_TOKENS__ACCESS_TTL");
    expect(found["token.ttl"]).toContain("PRIMER_TOKEN__TTL");
    expect(found["database.url"]).toBe("flag");
  });

  test("all of them are exit 2, a line each", () => {
    const home = homeWith({ toml: '[server]\nport = "x"\n[log]\nlevel = "loud"\n' });
    try {
      loadSettings(home, {});
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(OperatorError);
      expect((error as OperatorError).exitCode).toBe(2);
      const lines = (error as OperatorError).message.split("\n");
      expect(lines.filter((line) => /^ {2}(server\.port|log\.level) \(primer\.toml\)/.test(line))).toHaveLength(2);
    }
  });

  test.each([
    ["primer.toml", { toml: "[tokens]\nacces_ttl = '5m'\n" }, "tokens.acces_ttl", "tokens.access_ttl"],
    ["environment", { variables: { PRIMER_TOKENS__ACCES_TTL: "5m" } }, "tokens.acces_ttl", "tokens.access_ttl"],
    ["secrets.env", { secretsEnv: "PRIMER_SERVER__PROT=1\n" }, "server.prot", "server.port"],
  ])("an unknown key in %s is refused, with the key that was meant", (source, sources, key, meant) => {
    const faults = faultsOf(sources);
    expect(faults.map((fault) => fault.key)).toEqual([key]);
    expect(faults[0]?.origin).toStartWith(source);
    expect(faults[0]?.expected).toContain(meant);
  });

  test("a key like no other is refused without a guess", () => {
    expect(nearestKey("zzz.qqqqqq")).toBeUndefined();
    expect(faultsOf({ toml: "[zzz]\nqqqqqq = 1\n" })[0]?.expected).not.toContain("did you mean");
  });

  test("a fault in a file that a variable names says which variable", () => {
    const faults = faultsOf({ variables: { PRIMER_SERVER__PORT_FILE: fileWith("many") } });
    expect(faults.map((fault) => fault.key)).toEqual(["server.port"]);
    expect(faults[0]?.origin).toContain("environment");
    expect(faults[0]?.origin).toContain("PRIMER_SERVER__PORT_FILE");
  });

  test("a file that is not there is a fault and not an empty value", () => {
    const faults = faultsOf({ variables: { DATABASE_URL_FILE: join(scratch, "nothing") } });
    expect(faults[0]?.origin).toContain("DATABASE_URL_FILE");
  });

  test("a value and a file for it at once contradict each other", () => {
    const path = fileWith("9000");
    const faults = faultsOf({ variables: { PRIMER_SERVER__PORT: "9001", PRIMER_SERVER__PORT_FILE: path } });
    expect(faults).toHaveLength(1);
  });

  // The environment chooses defaults; where it is wrong, those are not faults as well.
  test("a wrong environment is one fault", () => {
    expect(faultsOf({ variables: { PRIMER_ENVIRONMENT: "prod" } }).map((fault) => fault.key)).toEqual(["environment"]);
  });

  // What is wrong in a secret value is never printed: a password may be in it.
  test.each([
    [{ variables: { DATABASE_URL: "mysql://u:canary-one@db" } }],
    [{ secretsEnv: "SMTP_URL=http://u:canary-one@mail\n" }],
    [{ variables: { REDIS_URL_FILE: fileWith("cache://:canary-one@cache") } }],
    [{ toml: '[database]\nurl = "db:canary-one"\n' }],
  ])("a fault in a secret value does not show it (%#)", (sources) => {
    expect(JSON.stringify(faultsOf(sources))).not.toContain("canary-one");
  });
});

describe("a primer.toml that is no TOML", () => {
  test.each([
    ["an open string", '[server]\nhost = "127\nport = 1\n', 2],
    ["no value", "[server]\nport =\n", 2],
    ["a key twice", "[server]\nport = 1\nport = 2\n", 3],
    ["an open table", "\n\n[server\nport = 1\n", 3],
    ["bytes", "\u0000\u0001", 1],
  ])("%s: one fault, with the line", (_name, toml, line) => {
    const faults = faultsOf({ toml });
    expect(faults).toHaveLength(1);
    expect(faults[0]?.origin).toContain("primer.toml");
    expect(faults[0]?.origin).toMatch(new RegExp(`line ${line}\\b`));
  });

  test.each([
    ["a text for a number", '[server]\nport = "many"\n'],
    ["a number for a text", "[server]\nhost = 1\n"],
    ["a table for a value", "[server.port]\nnumber = 1\n"],
    ["a value for a table", "server = 1\n"],
    ["a list for a value", "[server]\nport = [1]\n"],
    ["a date for a duration", "[tokens]\naccess_ttl = 2026-01-01T00:00:00Z\n"],
    ["a list of tables", "[[server]]\nport = 1\n"],
  ])("%s is a fault", (_name, toml) => {
    expect(faultsOf({ toml })).toHaveLength(1);
  });
});

describe("contradictions", () => {
  const production = { PRIMER_ENVIRONMENT: "production" };
  const https = { PRIMER_SERVER__PUBLIC_URL: "https://login.example.org" };
  const tls = { PRIMER_SERVER__TLS_CERT: "cert.pem", PRIMER_SERVER__TLS_KEY: "key.pem" };
  const argon2 = (memory: number, passes: number) => ({
    PRIMER_PASSWORD__MEMORY_KIB: String(memory),
    PRIMER_PASSWORD__ITERATIONS: String(passes),
  });

  // Settings that together are unsafe or cannot work never start.
  test.each([
    ["production without an address", production, "server.public_url"],
    ["staging without an address", { PRIMER_ENVIRONMENT: "staging" }, "server.public_url"],
    [
      "production over plain http",
      { ...production, PRIMER_SERVER__PUBLIC_URL: "http://login.example.org" },
      "server.public_url",
    ],
    ["argon2id, one pass under 46 MiB", argon2(47_103, 1), "password.memory_kib"],
    ["argon2id, two passes under 19 MiB", argon2(19_455, 2), "password.memory_kib"],
    [
      "an idle limit past the absolute one",
      { PRIMER_TOKENS__REFRESH_IDLE: "2d", PRIMER_TOKENS__REFRESH_ABSOLUTE: "1d" },
      "tokens.refresh_idle",
    ],
    ["SameSite=None over plain http", { PRIMER_COOKIES__SAME_SITE: "none" }, "cookies.same_site"],
    [
      "production that serves plain http to the outside",
      { ...production, ...https, PRIMER_SERVER__HOST: "0.0.0.0" },
      "server.host",
    ],
    [
      "production that serves plain http at an address of its own",
      { ...production, ...https, PRIMER_SERVER__HOST: "192.0.2.7" },
      "server.host",
    ],
    ["a certificate without a key", { PRIMER_SERVER__TLS_CERT: "cert.pem" }, "server.tls_cert"],
    ["a key without a certificate", { PRIMER_SERVER__TLS_KEY: "key.pem" }, "server.tls_cert"],
    ["a certificate, and http outside", { ...tls, PRIMER_SERVER__PUBLIC_URL: "http://x.test" }, "server.public_url"],
    ["a CA for the embedded database", { PRIMER_DATABASE__TLS_CA: "ca.pem" }, "database.tls_ca"],
    [
      "a CA for a connection in plain text",
      { PRIMER_DATABASE__TLS_CA: "ca.pem", DATABASE_URL: "postgres://db/primer?sslmode=disable" },
      "database.tls_ca",
    ],
  ])("%s is refused", (_name, variables, key) => {
    expect(faultsOf({ variables }).map((fault) => fault.key)).toEqual([key]);
  });

  test.each([
    ["production over https", { ...production, ...https }],
    ["staging over plain http", { PRIMER_ENVIRONMENT: "staging", PRIMER_SERVER__PUBLIC_URL: "http://primer.test" }],
    ["argon2id at each of OWASP's floors (1)", argon2(47_104, 1)],
    ["argon2id at each of OWASP's floors (2)", argon2(19_456, 2)],
    ["argon2id at each of OWASP's floors (3)", argon2(12_288, 3)],
    ["limits that are equal", { PRIMER_TOKENS__REFRESH_IDLE: "30d", PRIMER_TOKENS__REFRESH_ABSOLUTE: "30d" }],
    ["SameSite=None over https", { ...https, PRIMER_COOKIES__SAME_SITE: "none" }],
    ["SameSite=None over https of primer's own", { ...tls, PRIMER_COOKIES__SAME_SITE: "none" }],
    ["production at loopback (IPv4)", { ...production, ...https, PRIMER_SERVER__HOST: "127.0.0.53" }],
    ["production at loopback (IPv6)", { ...production, ...https, PRIMER_SERVER__HOST: "::1" }],
    ["production with a certificate", { ...production, ...https, ...tls, PRIMER_SERVER__HOST: "0.0.0.0" }],
    [
      "production behind a proxy",
      { ...production, ...https, PRIMER_SERVER__HOST: "::", PRIMER_SERVER__TRUSTED_PROXIES: "10.0.0.0/8" },
    ],
    [
      "staging that serves plain http to the outside",
      { PRIMER_ENVIRONMENT: "staging", ...https, PRIMER_SERVER__HOST: "0.0.0.0" },
    ],
    ["a CA for PostgreSQL", { PRIMER_DATABASE__TLS_CA: "ca.pem", DATABASE_URL: "postgres://db/primer" }],
  ])("%s is accepted", (_name, variables) => {
    expect(() => load({ variables })).not.toThrow();
  });

  // Below OWASP's least memory no number of passes helps, and RSA keys have a floor.
  test.each([
    ["password.memory_kib", { PRIMER_PASSWORD__MEMORY_KIB: "12287", PRIMER_PASSWORD__ITERATIONS: "8" }],
    ["password.bcrypt_cost", { PRIMER_PASSWORD__BCRYPT_COST: "9" }],
    ["password.min_length", { PRIMER_PASSWORD__MIN_LENGTH: "7" }],
    ["keys.bits", { PRIMER_KEYS__BITS: "2048" }],
    ["keys.publish_ahead", { PRIMER_KEYS__PUBLISH_AHEAD: "14m" }],
    ["server.cors_origins", { PRIMER_SERVER__CORS_ORIGINS: "*" }],
  ])("%s has a floor", (key, variables) => {
    expect(faultsOf({ variables }).map((fault) => fault.key)).toEqual([key]);
  });
});

describe("the settings that clients and operators count on", () => {
  const MINUTE = 60_000;
  const DAY = 86_400_000;
  const per = (limit: number, minutes: number) => ({ limit, windowMs: minutes * MINUTE });

  test.each([
    ["server.host", "127.0.0.1"],
    ["server.port", 8080],
    ["server.public_url", ""],
    ["server.max_body_bytes", 65_536],
    ["server.request_timeout", 10_000],
    ["server.max_connections", 10_000],
    ["server.tls_min_version", "1.3"],
    ["database.url", ""],
    ["redis.url", ""],
    ["mail.smtp_url", ""],
    ["telemetry.otlp_endpoint", ""],
    ["tokens.issuer", ""],
    ["tokens.audience", "primer"],
    ["tokens.algorithm", "RS256"],
    ["tokens.access_ttl", 15 * MINUTE],
    ["tokens.refresh_idle", DAY],
    ["tokens.refresh_absolute", 30 * DAY],
    ["tokens.refresh_grace", 10_000],
    ["rate_limits.login_ip", per(5, 1)],
    ["rate_limits.login_account", per(10, 15)],
    ["rate_limits.general", per(100, 1)],
    ["rate_limits.refresh", per(10, 60)],
    ["rate_limits.register_ip", per(5, 60)],
    ["rate_limits.mail_address", per(3, 60)],
    ["registration.mode", "open"],
    ["registration.verify_email", true],
    ["password.min_length", 15],
    ["password.min_strength", 3],
    ["password.require", []],
    ["password.hibp", "off"],
    ["password.hibp_url", "https://api.pwnedpasswords.com"],
    ["password.algorithm", "argon2id"],
    ["password.memory_kib", 19_456],
    ["password.iterations", 2],
    ["password.bcrypt_cost", 12],
    ["keys.publish_ahead", DAY],
    ["keys.bits", 4096],
    ["cookies.same_site", "lax"],
    ["backup.key_file", ""],
  ] as const)("%s has its documented default", (key, value) => {
    expect(load({}).resolved.get(key)?.value).toEqual(value);
  });

  test.each([
    ["tokens.algorithm", "ES256"],
    ["tokens.algorithm", "EdDSA"],
    ["tokens.algorithm", "PS256"],
    ["password.algorithm", "bcrypt"],
    ["registration.mode", "invite"],
    ["registration.mode", "closed"],
    ["cookies.same_site", "strict"],
  ])("%s may be %s", (key, value) => {
    expect(load({ flags: { [key]: value } }).resolved.get(key)?.value).toBe(value);
  });

  test.each(SETTING_LIST.filter(({ kind }) => kind.name === "rate").map(({ key }) => key))(
    "%s can be switched off",
    (key) => {
      expect(load({ flags: { [key]: "off" } }).resolved.get(key)?.value).toBeNull();
    },
  );

  test.each([
    ["development", true],
    ["staging", true],
    ["production", false],
  ])("docs in %s: %p", (environment, enabled) => {
    const variables = { PRIMER_ENVIRONMENT: environment, PRIMER_SERVER__PUBLIC_URL: "https://login.example.org" };
    expect(load({ variables }).settings.docs.enabled).toBe(enabled);
  });

  test("the issuer is the public address, and that is where primer listens, unless somebody says otherwise", () => {
    expect(load({}).settings.tokens.issuer).toBe("http://127.0.0.1:8080");
    expect(load({ flags: { "server.host": "::1" } }).settings.server.public_url).toBe("http://[::1]:8080");
    const certificate = { "server.tls_cert": "cert.pem", "server.tls_key": "key.pem" };
    expect(load({ flags: certificate }).settings.tokens.issuer).toBe("https://127.0.0.1:8080");
    const variables = { PRIMER_SERVER__PUBLIC_URL: "https://login.example.org" };
    expect(load({ variables }).settings.tokens.issuer).toBe("https://login.example.org");
    expect(load({ variables, flags: { "tokens.issuer": "https://id.example.org" } }).settings.tokens.issuer).toBe(
      "https://id.example.org",
    );
  });

  // A default that its own check refuses would stop everybody's start.
  test.each(
    ENVIRONMENTS.flatMap((environment) => SETTING_LIST.map((entry) => [entry.key, environment, entry] as const)),
  )("%s has a good default in %s, a sentence and a variable", (_key, environment, entry) => {
    expect(entry.kind.parse(defaultOf(entry, environment))).toBeDefined();
    expect(entry.sentence).toMatch(/\.$/);
    expect(entry.variable).toMatch(/^PRIMER_[A-Z0-9_]+__[A-Z0-9_]+$/);
    expect(findSetting(entry.key)).toBe(entry);
  });
});

describe("the primer.toml that is written", () => {
  test("with nothing changed, reads as the defaults", () => {
    const loaded = load({ toml: renderSettingsFile("development", {}) });
    const given = [...loaded.resolved.values()].filter(({ origin }) => origin !== "default");
    expect(given.map(({ setting }) => setting.key)).toEqual(["environment"]);
  });

  test("keeps what was changed, whatever its kind, and has no secret in it", () => {
    const values = {
      "server.port": 9000,
      "server.cors_origins": ["https://app.example.org"],
      "tokens.issuer": 'https://x.example.org/"quoted"\\',
      "registration.verify_email": false,
      "rate_limits.login_ip": "off",
      "database.url": "postgres://u:canary-two@db/primer",
    };
    const toml = renderSettingsFile("staging", { ...values, "server.public_url": "https://login.example.org" });
    const { settings } = load({ toml });
    expect(settings).toMatchObject({
      environment: "staging",
      server: { port: 9000, cors_origins: ["https://app.example.org"] },
      tokens: { issuer: values["tokens.issuer"] },
      registration: { verify_email: false },
      rate_limits: { login_ip: null },
      database: { url: "" },
    });
    expect(toml).not.toContain("canary-two");
  });
});
