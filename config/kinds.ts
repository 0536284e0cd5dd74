import { BlockList, isIP } from "node:net";

/**
 * What a setting's value may be. `parse` takes the raw value (a TOML value, or a string from the environment or a flag)
 * and answers the value the program works with, or undefined where it does not fit `expected`.
 */
export interface Kind<T> {
  readonly name: string;
  readonly expected: string;
  parse(raw: unknown): T | undefined;
}

const UNIT_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** "15m" → 900000. Undefined where the text is no duration. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,9})\s*(ms|s|m|h|d)$/.exec(text.trim());
  return match ? Number(match[1]) * (UNIT_MS[match[2] ?? ""] ?? Number.NaN) : undefined;
}

export interface Rate {
  readonly limit: number;
  readonly windowMs: number;
}

/** A time span in milliseconds, written "500ms", "10s", "15m", "24h" or "30d". */
export const duration = (min: string, max: string): Kind<number> => ({
  name: "duration",
  expected: `a duration from ${min} to ${max}, such as ${min}`,
  parse(raw) {
    const ms = typeof raw === "string" ? parseDuration(raw) : undefined;
    const [low, high] = [parseDuration(min) ?? 0, parseDuration(max) ?? 0];
    return ms !== undefined && ms >= low && ms <= high ? ms : undefined;
  },
});

/** The same, where a bare number is taken too, for milliseconds: OpenTelemetry's variables are written so. */
export const milliseconds = (min: string, max: string): Kind<number> => {
  const kind = duration(min, max);
  return { ...kind, parse: (raw) => kind.parse(/^\d+$/.test(String(raw)) ? `${raw}ms` : raw) };
};

/** A share from 0 to 1. */
export const share: Kind<number> = {
  name: "share",
  expected: "a number from 0 to 1, such as 0.1",
  parse(raw) {
    const value = typeof raw === "string" && /^\d(\.\d{1,9})?$/.test(raw.trim()) ? Number(raw) : raw;
    return typeof value === "number" && value >= 0 && value <= 1 ? value : undefined;
  },
};

/** An address to listen on with its port, "HOST:PORT", an IPv6 address in brackets; or the empty text for none. */
export const hostPort: Kind<string> = {
  name: "address and port",
  expected: "an address and a port such as 127.0.0.1:9464",
  parse(raw) {
    if (typeof raw !== "string" || raw === "") return raw === "" ? "" : undefined;
    const [, host, port] = /^(\[[0-9a-f:.]+\]|[^:\s[\]]+):(\d{1,5})$/i.exec(raw.trim()) ?? [];
    return host !== undefined && Number(port) >= 1 && Number(port) <= 65_535 ? raw.trim() : undefined;
  },
};

/** A limit such as "5/1m" (five in a minute), or null for "off". */
export const rate: Kind<Rate | null> = {
  name: "rate",
  expected: 'a rate such as "5/1m" (count/duration), or "off"',
  parse(raw) {
    if (raw === "off") return null;
    const match = typeof raw === "string" ? /^(\d{1,7})\/(\d{0,6})(ms|s|m|h|d)$/.exec(raw.trim()) : null;
    const limit = Number(match?.[1]);
    const windowMs = parseDuration(`${match?.[2] || 1}${match?.[3]}`) ?? 0;
    return match && limit > 0 && windowMs > 0 ? { limit, windowMs } : undefined;
  },
};

/** A rate as {@link rate} reads it. */
export function writeRate(written: Rate | null): string {
  if (written === null) return "off";
  const [unit, ms] = Object.entries(UNIT_MS).findLast(([, size]) => written.windowMs % size === 0) ?? ["ms", 1];
  return `${written.limit}/${written.windowMs / ms}${unit}`;
}

/** Rates of single routes, each written "POST /api/v1/clients 10/1m"; by the route, null for "off". */
export const routeRates: Kind<ReadonlyMap<string, Rate | null>> = {
  name: "list of routes' rates",
  expected: 'a list of routes with a rate each such as ["POST /api/v1/clients 10/1m"], "off" for none',
  parse(raw) {
    const items = typeof raw === "string" ? raw.split(",").map((item) => item.trim()) : raw;
    if (!Array.isArray(items)) return undefined;
    const rates = new Map<string, Rate | null>();
    for (const item of items.filter((given) => given !== "")) {
      const [, route, written] = /^((?:GET|POST|PUT|PATCH|DELETE) \/\S*) +(\S+)$/.exec(String(item)) ?? [];
      const parsed = rate.parse(written);
      if (route === undefined || parsed === undefined) return undefined;
      rates.set(route, parsed);
    }
    return rates;
  },
};

export const integer = (min: number, max: number): Kind<number> => ({
  name: "integer",
  expected: `a whole number from ${min} to ${max}`,
  parse(raw) {
    const value = typeof raw === "string" && /^\d{1,15}$/.test(raw.trim()) ? Number(raw) : raw;
    return typeof value === "number" && Number.isInteger(value) && value >= min && value <= max ? value : undefined;
  },
});

export const flag: Kind<boolean> = {
  name: "boolean",
  expected: "true or false",
  parse: (raw) => (typeof raw === "boolean" ? raw : raw === "true" ? true : raw === "false" ? false : undefined),
};

export const oneOf = <const T extends string>(...values: readonly T[]): Kind<T> => ({
  name: "choice",
  expected: values.map((value) => `"${value}"`).join(" or "),
  parse: (raw) => values.find((value) => value === raw),
});

export const text = (maxLength: number): Kind<string> => ({
  name: "text",
  expected: `text of up to ${maxLength} characters`,
  parse: (raw) => (typeof raw === "string" && raw.length <= maxLength ? raw.trim() : undefined),
});

/** A point in time with its zone (RFC 3339), in milliseconds since 1970; null where none is given. */
export const timestamp: Kind<number | null> = {
  name: "timestamp",
  expected: 'a time with its zone such as "2027-01-31T00:00:00Z", or empty',
  parse(raw) {
    if (raw === "") return null;
    const written = raw instanceof Date ? raw.toISOString() : raw;
    const form = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/;
    const time = typeof written === "string" && form.test(written) ? Date.parse(written) : Number.NaN;
    return Number.isNaN(time) ? undefined : time;
  },
};

/** A URL with one of the schemes, or the empty text where the thing is not used. */
export const url = (...schemes: readonly string[]): Kind<string> => ({
  name: "URL",
  expected: `a URL starting with ${schemes.map((scheme) => `${scheme}://`).join(" or ")}`,
  parse(raw) {
    if (typeof raw !== "string") return undefined;
    if (raw === "") return "";
    const parsed = URL.canParse(raw) ? new URL(raw) : undefined;
    return parsed && schemes.includes(parsed.protocol.slice(0, -1)) && parsed.hostname !== "" ? raw : undefined;
  },
});

const LOOPBACK = /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])$/;

/** The address of a service that must not be listened to on the way: https, or http on this machine itself. */
export const secureUrl: Kind<string> = {
  name: "URL",
  expected: "an https URL (http only to this machine) without user name, query or fragment",
  parse(raw) {
    const parsed = typeof raw === "string" && URL.canParse(raw) ? new URL(raw) : undefined;
    if (parsed?.username !== "" || parsed.password !== "" || /[?#]/.test(parsed.href)) return undefined;
    const isSafe = parsed.protocol === "https:" || (parsed.protocol === "http:" && LOOPBACK.test(parsed.hostname));
    return isSafe ? parsed.href.replace(/\/+$/, "") : undefined;
  },
};

/** Where a list of bad networks comes from. */
export interface ThreatSource {
  /** As it is set. */
  readonly written: string;
  /** An https URL (http only to this machine), or a path. */
  readonly location: string;
  /** What lies beside the list and proves it: `.sha256` or `.minisig`. */
  readonly proof: "none" | "sha256" | "minisign";
}

/** Lists of networks, each a URL or a path, with "sha256+" or "minisign+" before it where something proves it. */
export const threatSources: Kind<readonly ThreatSource[]> = {
  name: "list of sources",
  expected:
    'a list of up to 32 https URLs (http only to this machine) or files such as ["sha256+https://lists.example.org/bad.txt"]',
  parse(raw) {
    const items = typeof raw === "string" ? raw.split(",").map((item) => item.trim()) : raw;
    if (!Array.isArray(items) || items.length > 32) return undefined;
    const given = items.filter((item) => item !== "").map(threatSource);
    return given.every((source) => source !== undefined) ? given : undefined;
  },
};

function threatSource(written: unknown): ThreatSource | undefined {
  if (typeof written !== "string" || written.length > 2048) return undefined;
  const [, proof = "none", location = ""] = /^(?:(sha256|minisign)\+)?(.*)$/.exec(written) ?? [];
  const source = { written, location, proof: proof as ThreatSource["proof"] };
  if (!/^[a-z0-9.+-]+:\/\//i.test(location)) return location === "" ? undefined : source;
  const url = URL.canParse(location) ? new URL(location) : undefined;
  if (url?.username !== "" || url.password !== "" || url.hash !== "") return undefined;
  return url.protocol === "https:" || (url.protocol === "http:" && LOOPBACK.test(url.hostname)) ? source : undefined;
}

/** The address of a page that people are sent to: https, or http on this machine itself. Empty: none. */
export const pageUrl: Kind<string> = {
  name: "URL",
  expected: "an https URL (http only to this machine) without user name or fragment, or empty",
  parse(raw) {
    if (raw === "") return "";
    const parsed = typeof raw === "string" && URL.canParse(raw) ? new URL(raw) : undefined;
    if (parsed?.username !== "" || parsed.password !== "" || parsed.href.includes("#")) return undefined;
    const isSafe = parsed.protocol === "https:" || (parsed.protocol === "http:" && LOOPBACK.test(parsed.hostname));
    return isSafe ? parsed.href : undefined;
  },
};

/** Where mail comes from or is answered to. */
export interface Mailbox {
  /** Empty where only an address was given. */
  readonly name: string;
  readonly address: string;
}

const MAILBOX =
  /^(?:([^<>"\p{Cc}]{0,100}?)\s*<([^\s<>"@]{1,64}@[^\s<>"@]{1,189})>|([^\s<>"@]{1,64}@[^\s<>"@]{1,189}))$/u;

/** A mail address, with or without a name: "Example <login@example.org>". Null where it is empty. */
export const mailbox: Kind<Mailbox | null> = {
  name: "mail address",
  expected: 'a mail address such as "login@example.org" or "Example <login@example.org>", or empty',
  parse(raw) {
    if (raw === "") return null;
    const match = typeof raw === "string" ? MAILBOX.exec(raw.trim()) : null;
    return match ? { name: match[1] ?? "", address: match[2] ?? match[3] ?? "" } : undefined;
  },
};

/** A language tag (BCP 47) such as "en" or "pt-BR". */
export const locale: Kind<string> = {
  name: "locale",
  expected: 'a language tag such as "en" or "pt-BR"',
  parse: (raw) => (typeof raw === "string" ? attempt(() => Intl.getCanonicalLocales(raw)[0]) : undefined),
};

/** A time zone of the IANA database. */
export const timeZone: Kind<string> = {
  name: "time zone",
  expected: 'a time zone such as "UTC" or "Europe/Vienna"',
  parse: (raw) =>
    typeof raw === "string" && attempt(() => new Intl.DateTimeFormat("en", { timeZone: raw })) ? raw : undefined,
};

/** A time of day in 24 hours: "07:00". */
export const timeOfDay: Kind<string> = {
  name: "time of day",
  expected: 'a time of day such as "07:00"',
  parse: (raw) => (typeof raw === "string" && /^([01]\d|2[0-3]):[0-5]\d$/.test(raw) ? raw : undefined),
};

function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}

/** A colour as "#rrggbb". */
export const color: Kind<string> = {
  name: "colour",
  expected: 'a colour such as "#1f5f8b"',
  parse: (raw) => (typeof raw === "string" && /^#[0-9a-f]{6}$/i.test(raw) ? raw.toLowerCase() : undefined),
};

/** A web origin and nothing more: "https://login.example.org", no path, no trailing slash. */
const isOrigin = (value: string) =>
  URL.canParse(value) && /^https?:\/\/[^*]+$/.test(value) && new URL(value).origin === value;

export const origin: Kind<string> = {
  name: "origin",
  expected: 'an http or https origin without path or trailing slash, such as "https://login.example.org", or empty',
  parse: (raw) => (typeof raw === "string" && (raw === "" || isOrigin(raw)) ? raw : undefined),
};

const listOf = (name: string, expected: string, fits: (item: string) => boolean): Kind<readonly string[]> => ({
  name: `list of ${name}`,
  expected,
  parse(raw) {
    const items = typeof raw === "string" ? raw.split(",").map((item) => item.trim()) : raw;
    if (!Array.isArray(items)) return undefined;
    const given = items.filter((item) => item !== "");
    return given.every((item) => typeof item === "string" && fits(item)) ? given : undefined;
  },
});

/** Several of what {@link url} takes, separated by commas where they come as one text. */
export const urlList = (...schemes: readonly string[]): Kind<readonly string[]> => {
  const one = url(...schemes);
  return listOf("URLs", `a list, each ${one.expected}`, (item) => one.parse(item) !== undefined);
};

export const originList = listOf(
  "origins",
  'a list of origins such as ["https://app.example.org"]; "*" is never accepted',
  isOrigin,
);

export const hostList = listOf("hosts", 'a list of hosts and ports such as ["10.0.0.7:26379"]', (item) =>
  /^(\[[0-9a-f:]+\]|[a-z0-9.-]+):\d{1,5}$/i.test(item),
);

/** Any of the values, each at most once. */
export const someOf = <const T extends string>(...values: readonly T[]): Kind<readonly T[]> => ({
  name: "list of choices",
  expected: `a list of any of ${values.map((value) => `"${value}"`).join(", ")}`,
  parse(raw) {
    const items = typeof raw === "string" ? raw.split(",").map((item) => item.trim()) : raw;
    if (!Array.isArray(items)) return undefined;
    const given = items.filter((item) => item !== "");
    const known = values.filter((value) => given.includes(value));
    return known.length === given.length ? known : undefined;
  },
});

/** Networks as "10.0.0.0/8", "::1" or "192.0.2.7"; see {@link matchesNetwork}. */
export const networkList = listOf("networks", 'a list of addresses or networks such as ["10.0.0.0/8"]', (item) => {
  const [address = "", prefix, ...more] = item.split("/");
  const bits = isIP(address) === 6 ? 128 : 32;
  return (
    isIP(address) !== 0 &&
    more.length === 0 &&
    (prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits))
  );
});

/** A test for "is this address in one of these networks". IPv4 addresses written as IPv6 (::ffff:) count as IPv4. */
export function matchesNetwork(networks: readonly string[]): (address: string) => boolean {
  const list = new BlockList();
  for (const network of networks) {
    const [address = "", prefix] = network.split("/");
    const family = isIP(address) === 6 ? "ipv6" : "ipv4";
    list.addSubnet(address, prefix === undefined ? (family === "ipv6" ? 128 : 32) : Number(prefix), family);
  }
  return (address) => {
    const plain = address.replace(/^::ffff:(?=\d+\.)/i, "");
    const family = isIP(plain);
    return family !== 0 && list.check(plain, family === 6 ? "ipv6" : "ipv4");
  };
}
