import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { parse as parseToml, TomlError } from "smol-toml";
import { EXIT, failed, OperatorError, textOf } from "./errors.ts";
import { matchesNetwork, type ThreatSource } from "./kinds.ts";
import {
  defaultOf,
  ENVIRONMENT_SETTING,
  type Environment,
  type NamedSetting,
  SETTING_LIST,
  type Settings,
} from "./schema.ts";

export const SETTINGS_FILE = "primer.toml";
export const SECRETS_FILE = "secrets.env";

export type Variables = Readonly<Record<string, string | undefined>>;

/** One thing wrong with the configuration: where it came from and what was expected instead. */
export interface Fault {
  readonly key: string;
  readonly origin: string;
  readonly expected: string;
}

export interface ResolvedSetting {
  readonly setting: NamedSetting;
  readonly value: unknown;
  readonly raw: unknown;
  readonly origin: string;
}

export interface LoadedSettings {
  readonly settings: Settings;
  readonly resolved: ReadonlyMap<string, ResolvedSetting>;
  /** The process's variables with those of secrets.env and of …_FILE filled in: where the secrets are read from. */
  readonly variables: Variables;
}

/** Exit 2, with one line per fault. */
export class SettingsError extends OperatorError {
  constructor(readonly faults: readonly Fault[]) {
    const lines = faults.map((fault) => `  ${fault.key} (${fault.origin}): expected ${fault.expected}`);
    super(
      EXIT.usage,
      `The configuration has ${faults.length === 1 ? "a fault" : `${faults.length} faults`}:\n${lines.join("\n")}`,
      "`primer config explain KEY` tells what a setting may be.",
    );
  }
}

const ALL_SETTINGS = [ENVIRONMENT_SETTING, ...SETTING_LIST];
/** The variables that hold the installation's own secrets. */
export const SECRET_VARIABLES = ["PRIMER_MASTER_KEY", "PRIMER_PEPPER"];

/** The setting with this dotted key. */
export const findSetting = (key: string): NamedSetting | undefined => ALL_SETTINGS.find((entry) => entry.key === key);

/** The known key nearest to a mistyped one, where one is near. */
export function nearestKey(key: string): string | undefined {
  const scored = ALL_SETTINGS.map((entry) => ({ key: entry.key, distance: editDistance(entry.key, key) }));
  const best = scored.sort((a, b) => a.distance - b.distance)[0];
  return best && best.distance <= Math.max(2, key.length / 4) ? best.key : undefined;
}

/**
 * Reads every source (flag, environment, secrets.env, primer.toml, default, in that order) and checks everything at once.
 *
 * @param home the folder of primer.toml and secrets.env; neither need exist
 * @param flags raw values from the command line by dotted key
 * @throws SettingsError naming every fault found, with its key and origin
 */
export function loadSettings(
  home: string,
  environment: Variables,
  flags: Readonly<Record<string, unknown>> = {},
): LoadedSettings {
  const faults: Fault[] = [];
  const variables = readVariables(home, environment, faults);
  const file = readSettingsFile(home, faults);
  const sources = { flags, variables, file, environment };

  const profile = pick(ENVIRONMENT_SETTING, sources, "development", faults);
  const resolved = new Map<string, ResolvedSetting>([["environment", profile]]);
  for (const entry of SETTING_LIST) {
    resolved.set(entry.key, pick(entry, sources, (profile.value ?? "development") as Environment, faults));
  }
  checkTogether(resolved, faults);
  if (faults.length > 0) throw new SettingsError(faults);
  return { settings: assemble(resolved), resolved, variables };
}

interface Sources {
  readonly flags: Readonly<Record<string, unknown>>;
  readonly variables: Variables;
  readonly file: ReadonlyMap<string, unknown>;
  readonly environment: Variables;
}

function pick(entry: NamedSetting, sources: Sources, environment: Environment, faults: Fault[]): ResolvedSetting {
  const [raw, origin] = rawValue(entry, sources) ?? [defaultOf(entry, environment), "default"];
  const value = entry.kind.parse(raw);
  if (value === undefined) {
    faults.push({ key: entry.key, origin, expected: entry.kind.expected + shown(entry, raw) });
  }
  return { setting: entry, value, raw, origin };
}

function rawValue(entry: NamedSetting, sources: Sources): [unknown, string] | undefined {
  const flag = sources.flags[entry.key];
  if (flag !== undefined) return [flag, "flag"];
  for (const name of [entry.variable, entry.alias]) {
    const value = name === undefined ? undefined : sources.variables[name];
    if (name === undefined || value === undefined) continue;
    const own = [name, `${name}_FILE`].find((given) => sources.environment[given] !== undefined);
    return [value, own === undefined ? `${SECRETS_FILE} ${name}` : `environment ${own}`];
  }
  return sources.file.has(entry.key) ? [sources.file.get(entry.key), SETTINGS_FILE] : undefined;
}

const shown = (entry: NamedSetting, raw: unknown) => (entry.secret ? "" : `, not ${JSON.stringify(raw)}`);

const KNOWN_VARIABLES = new Set([
  ...ALL_SETTINGS.flatMap((entry) => (entry.alias ? [entry.variable, entry.alias] : [entry.variable])),
  ...SECRET_VARIABLES,
]);

/** The process's variables, with NAME_FILE read into NAME, over those of secrets.env. Mistyped names are faults. */
function readVariables(home: string, environment: Variables, faults: Fault[]): Variables {
  const own: Record<string, string | undefined> = { ...environment };
  for (const [name, path] of Object.entries(environment)) {
    const target = name.endsWith("_FILE") && !KNOWN_VARIABLES.has(name) ? name.slice(0, -5) : "";
    if (!KNOWN_VARIABLES.has(target) || path === undefined) continue;
    if (environment[target] === undefined) own[target] = readVariableFile(target, name, path, faults);
    else faults.push({ key: target, origin: "environment", expected: `either ${target} or ${name}, not both` });
  }
  const merged = { ...readSecretsFile(home), ...own };
  for (const name of Object.keys(merged)) {
    checkVariableName(name, environment[name] === undefined ? SECRETS_FILE : "environment", faults);
  }
  return merged;
}

function readVariableFile(target: string, name: string, path: string, faults: Fault[]): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    faults.push({ key: target, origin: `environment ${name}`, expected: `a readable file (${textOf(error)})` });
    return undefined;
  }
}

/** PRIMER_*__* that is no setting, or a name one or two letters from a known one. Others are somebody else's. */
function checkVariableName(name: string, place: string, faults: Fault[]): void {
  if (!name.startsWith("PRIMER_") || KNOWN_VARIABLES.has(name.replace(/_FILE$/, "")) || KNOWN_VARIABLES.has(name))
    return;
  const origin = `${place} ${name}`;
  if (name.includes("__")) {
    const key = name.slice(7).toLowerCase().replace("__", ".");
    faults.push({ key, origin, expected: `a known setting${suggestion(key)}` });
    return;
  }
  const near = [...KNOWN_VARIABLES].find((known) => !known.includes("__") && editDistance(known, name) <= 2);
  if (near) faults.push({ key: name, origin, expected: `a known variable; did you mean ${near}?` });
}

function suggestion(key: string): string {
  const nearest = nearestKey(key);
  return nearest ? `; did you mean ${nearest}?` : "";
}

/** The variables that secrets.env holds; empty where there is no such file. */
export function readSecretsFile(home: string): Record<string, string> {
  const path = join(home, SECRETS_FILE);
  if (!existsSync(path)) return {};
  try {
    return parseEnv(readFileSync(path, "utf8")) as Record<string, string>;
  } catch (error) {
    throw failed(
      `${path} cannot be read: ${textOf(error)}`,
      "Make it readable to the user that primer runs as.",
      error,
    );
  }
}

function readSettingsFile(home: string, faults: Fault[]): ReadonlyMap<string, unknown> {
  const path = join(home, SETTINGS_FILE);
  const values = new Map<string, unknown>();
  if (!existsSync(path)) return values;
  let document: Record<string, unknown>;
  try {
    document = parseToml(readFileSync(path, "utf8"));
  } catch (error) {
    const where = error instanceof TomlError ? `line ${error.line}, column ${error.column}` : "unreadable";
    const reason = textOf(error).split("\n")[0]?.replace("Invalid TOML document: ", "");
    faults.push({ key: SETTINGS_FILE, origin: `${path}, ${where}`, expected: `a TOML document (${reason})` });
    return values;
  }
  for (const [key, value] of flatten(document)) {
    if (findSetting(key)) values.set(key, value);
    else faults.push({ key, origin: SETTINGS_FILE, expected: `a known setting${suggestion(key)}` });
  }
  return values;
}

function* flatten(document: Record<string, unknown>): Generator<[string, unknown]> {
  for (const [table, content] of Object.entries(document)) {
    const isTable = typeof content === "object" && content !== null && !Array.isArray(content);
    if (!isTable) yield [table, content];
    else for (const [name, value] of Object.entries(content)) yield [`${table}.${name}`, value];
  }
}

function assemble(resolved: ReadonlyMap<string, ResolvedSetting>): Settings {
  const settings: Record<string, unknown> = {};
  for (const { setting, value } of resolved.values()) {
    if (setting.table === "") settings[setting.name] = value;
    else settings[setting.table] = { ...(settings[setting.table] as object), [setting.name]: value };
  }
  const typed = settings as Settings;
  const own = ["0.0.0.0", "::"].includes(typed.server.host) ? "127.0.0.1" : typed.server.host;
  const host = own.includes(":") ? `[${own}]` : own;
  const scheme = typed.server.tls_cert === "" ? "http" : "https";
  const publicUrl = typed.server.public_url || `${scheme}://${host}:${typed.server.port}`;
  return {
    ...typed,
    server: { ...typed.server, public_url: publicUrl },
    tokens: { ...typed.tokens, issuer: typed.tokens.issuer || publicUrl },
  };
}

/** OWASP's equivalent argon2id floors: memory in KiB, then passes. */
const ARGON2_FLOORS = [
  [47_104, 1],
  [19_456, 2],
  [12_288, 3],
] as const;

const isLoopbackAddress = matchesNetwork(["127.0.0.0/8", "::1"]);
/** The host of a URL; of an IPv6 address without brackets. */
export const bareHost = (url: string) => new URL(url).hostname.replace(/^\[|\]$/g, "");
/** Whether only this machine reaches what listens there. */
export const isLoopback = (host: string) => host === "localhost" || isLoopbackAddress(host);

type ValueOf = <T>(key: string) => T;

/** What one value alone cannot show. `complain` answers what was expected of the first key instead. */
interface Contradiction {
  readonly keys: readonly [string, ...string[]];
  complain(of: ValueOf): string | undefined;
}

const CONTRADICTIONS: readonly Contradiction[] = [
  {
    keys: ["server.public_url", "environment"],
    complain(of) {
      const [url, environment] = [of<string>("server.public_url"), of<Environment>("environment")];
      if (environment !== "development" && url === "") {
        return `the address that people reach primer at, which ${environment} needs`;
      }
      const plain = environment === "production" && !url.startsWith("https://");
      return plain ? "an https:// origin: production never runs over plain http" : undefined;
    },
  },
  {
    keys: ["server.host", "server.tls_cert", "server.trusted_proxies", "environment"],
    complain(of) {
      const isOpen = !isLoopback(of<string>("server.host")) && of<string>("server.tls_cert") === "";
      if (of<Environment>("environment") !== "production" || !isOpen) return undefined;
      if (of<readonly string[]>("server.trusted_proxies").length > 0) return undefined;
      return "127.0.0.1 or ::1, or server.tls_cert and server.tls_key, or the proxy that ends TLS in server.trusted_proxies: production never serves plain http to the outside";
    },
  },
  {
    keys: ["server.tls_cert", "server.tls_key"],
    complain(of) {
      const [certificate, key] = [of<string>("server.tls_cert"), of<string>("server.tls_key")];
      if ((certificate === "") === (key === "")) return undefined;
      return certificate === "" ? "the certificate of server.tls_key" : "server.tls_key, its private key, beside it";
    },
  },
  {
    keys: ["server.public_url", "server.tls_cert"],
    complain(of) {
      const contradicts = of<string>("server.tls_cert") !== "" && of<string>("server.public_url").startsWith("http:");
      return contradicts ? "an https:// origin, since server.tls_cert makes primer serve https" : undefined;
    },
  },
  {
    keys: ["database.tls_ca", "database.url"],
    complain(of) {
      const url = of<string>("database.url");
      if (of<string>("database.tls_ca") === "") return undefined;
      if (url === "") return "database.url beside it: the embedded database needs no connection";
      const isPlain = new URL(url).searchParams.get("sslmode") === "disable";
      return isPlain ? "a database.url without sslmode=disable" : undefined;
    },
  },
  {
    keys: ["mail.tls", "mail.smtp_url", "mail.smtp_fallback_urls", "environment"],
    complain(of) {
      if (of<string>("mail.tls") !== "off" || of<Environment>("environment") !== "production") return undefined;
      const servers = [of<string>("mail.smtp_url"), ...of<readonly string[]>("mail.smtp_fallback_urls")];
      const isOpen = servers.some((url) => url.startsWith("smtp:") && !isLoopback(bareHost(url)));
      return isOpen
        ? "another value: in production mails, with links that open accounts, never travel in plain text"
        : undefined;
    },
  },
  {
    keys: ["mail.smtp_fallback_urls", "mail.smtp_url"],
    complain(of) {
      const isAlone = of<string>("mail.smtp_url") === "" && of<readonly string[]>("mail.smtp_fallback_urls").length > 0;
      return isAlone ? "mail.smtp_url beside it, the one that is tried first" : undefined;
    },
  },
  {
    keys: ["password.memory_kib", "password.iterations"],
    complain(of) {
      const [memory, passes] = [of<number>("password.memory_kib"), of<number>("password.iterations")];
      if (ARGON2_FLOORS.some(([kib, count]) => memory >= kib && passes >= count)) return undefined;
      return "at least 19456 with 2 iterations, 47104 with 1 or 12288 with 3 (OWASP's floor)";
    },
  },
  {
    keys: ["tokens.refresh_idle", "tokens.refresh_absolute"],
    complain(of) {
      const longer = of<number>("tokens.refresh_idle") > of<number>("tokens.refresh_absolute");
      return longer ? "no more than tokens.refresh_absolute" : undefined;
    },
  },
  {
    keys: ["keys.rotate_every", "keys.publish_ahead"],
    complain(of) {
      const [every, ahead] = [of<number>("keys.rotate_every"), of<number>("keys.publish_ahead")];
      return every === 0 || every >= 2 * ahead ? undefined : "0s, or at least twice keys.publish_ahead";
    },
  },
  {
    keys: ["telemetry.metrics_token"],
    complain(of) {
      const token = of<string>("telemetry.metrics_token");
      return token === "" || /^[\x21-\x7e]{16,}$/.test(token) ? undefined : "16 characters or more, without spaces";
    },
  },
  {
    keys: ["tokens.legacy_secret", "tokens.legacy_issuer", "tokens.legacy_audience", "tokens.legacy_until"],
    complain(of) {
      const secret = of<string>("tokens.legacy_secret");
      if (secret === "") return undefined;
      if (Buffer.byteLength(secret) < 32) return "at least 32 bytes: HS256 is no stronger than its secret";
      const missing = ["legacy_issuer", "legacy_audience"].filter((name) => of<string>(`tokens.${name}`) === "");
      if (missing.length > 0) return `tokens.${missing.join(" and tokens.")} beside it`;
      return of<number | null>("tokens.legacy_until") === null ? "tokens.legacy_until beside it" : undefined;
    },
  },
  {
    keys: ["threats.public_key", "threats.sources"],
    complain(of) {
      if (!of<readonly ThreatSource[]>("threats.sources").some(({ proof }) => proof === "minisign")) return undefined;
      const key = Buffer.from(of<string>("threats.public_key"), "base64");
      const isKey = key.length === 42 && key.toString("latin1", 0, 2) === "Ed";
      return isKey ? undefined : "the second line of minisign.pub, since a source in threats.sources has minisign+";
    },
  },
  {
    keys: ["cookies.same_site", "server.public_url", "server.tls_cert"],
    complain(of) {
      const url = of<string>("server.public_url");
      const https = url === "" ? of<string>("server.tls_cert") !== "" : url.startsWith("https://");
      if (of<string>("cookies.same_site") !== "none" || https) return undefined;
      return '"lax" or "strict": browsers accept "none" over https only';
    },
  },
];

/** Contradictions between settings; those of a setting that has a fault of its own are left out. */
function checkTogether(resolved: ReadonlyMap<string, ResolvedSetting>, faults: Fault[]): void {
  const of: ValueOf = <T>(key: string) => resolved.get(key)?.value as T;
  for (const { keys, complain } of CONTRADICTIONS) {
    if (keys.some((key) => of(key) === undefined)) continue;
    const expected = complain(of);
    if (expected) faults.push({ key: keys[0], origin: resolved.get(keys[0])?.origin ?? "default", expected });
  }
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, substitution));
    }
    previous = row;
  }
  return previous[b.length] ?? 0;
}
