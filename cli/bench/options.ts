import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { misused, textOf } from "../../config/errors.ts";
import { integer, parseDuration, url as urlKind } from "../../config/kinds.ts";
import type { CommandContext, Options } from "../command.ts";
import { workersAsked } from "../serve-together.ts";
import { type Assertion, parseAssertion } from "./assertions.ts";
import type { Account } from "./requests.ts";
import { SCENARIOS, type Scenario } from "./scenarios.ts";

/** Whom a bench measures. */
export type TargetWanted =
  | {
      readonly kind: "own";
      readonly databaseUrl: string | null;
      readonly redisUrl: string | null;
      readonly users: number;
      /** How many processes serve. */
      readonly workers: number;
    }
  | {
      readonly kind: "url";
      readonly url: string;
      readonly ca: string | null;
      readonly accounts: readonly Account[];
      readonly client: { readonly id: string; readonly secret: string } | null;
      readonly metricsToken: string | null;
    };

export interface BenchOptions {
  readonly target: TargetWanted;
  /** Null: all that can be sent there. */
  readonly scenarios: readonly Scenario[] | null;
  readonly durationMs: number;
  readonly warmUpMs: number;
  readonly timeoutMs: number;
  readonly connections: number;
  readonly rate: number | null;
  readonly rounds: number;
  readonly assertions: readonly Assertion[];
  readonly compare: string | null;
  readonly out: readonly string[];
}

const DEFAULT_ROUNDS_TO_COMPARE = 5;
/** What belongs to the server that the bench starts, and what to one that is there already. */
const OF_OWN = ["users", "workers", "databaseUrl", "redisUrl"] as const;
const OF_URL = [
  "username",
  "passwordStdin",
  "accounts",
  "client",
  "clientSecretFile",
  "metricsTokenFile",
  "ca",
] as const;
const OUT_FORMATS = /\.(json|html|md)$/;

const flagOf = (name: string) => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Reads the flags of `primer bench`. @throws OperatorError exit 2 naming the flag and what it takes */
export async function readOptions({ options, io }: Pick<CommandContext, "options" | "io">): Promise<BenchOptions> {
  const durationMs = durationFlag(options, "duration", 10_000, 200, 3_600_000);
  const target = options.url === undefined ? ownTarget(options) : await urlTarget(options, () => io.input());
  return {
    target,
    scenarios: scenariosFrom(options.scenario),
    durationMs,
    warmUpMs: durationFlag(options, "warmUp", Math.min(2000, durationMs / 5), 0, 600_000),
    timeoutMs: durationFlag(options, "timeout", 10_000, 100, 300_000),
    connections: numberFlag(options, "connections", 32, 1, 20_000) ?? 32,
    rate: numberFlag(options, "rate", null, 1, 1_000_000),
    rounds: numberFlag(options, "rounds", options.compare === undefined ? 1 : DEFAULT_ROUNDS_TO_COMPARE, 1, 100) ?? 1,
    assertions: listFlag(options.assert).map(parseAssertion),
    compare: typeof options.compare === "string" ? options.compare : null,
    out: listFlag(options.out).map(outFile),
  };
}

function refuse(options: Options, names: readonly string[], why: string): void {
  const given = names.find((name) => options[name] !== undefined);
  if (given) throw misused(`${flagOf(given)} ${why}`);
}

function ownTarget(options: Options): TargetWanted {
  refuse(options, OF_URL, "goes with --url: the bench's own server has accounts of its own.");
  const databaseUrl = urlFlag(options, "databaseUrl", "postgres", "postgresql");
  return {
    kind: "own",
    databaseUrl,
    redisUrl: urlFlag(options, "redisUrl", "redis", "rediss"),
    users: numberFlag(options, "users", 1000, 1, 10_000_000) ?? 1000,
    workers: workersFlag(options, databaseUrl),
  };
}

function workersFlag(options: Options, databaseUrl: string | null): number {
  const asked = workersAsked(options, databaseUrl === null, "give a PostgreSQL with --database-url");
  if (typeof asked === "number") return asked;
  throw misused(`--workers: expected auto or a whole number, not ${options.workers}.`);
}

async function urlTarget(options: Options, input: () => Promise<string>): Promise<TargetWanted> {
  refuse(options, OF_OWN, "goes with the server that the bench starts itself, and not with --url.");
  const given = urlFlag(options, "url", "http", "https") ?? "";
  const ca = stringFlag(options, "ca");
  const token = stringFlag(options, "metricsTokenFile");
  return {
    kind: "url",
    url: new URL(given).origin,
    ca: ca === null ? null : fileText("ca", ca),
    accounts: await accountsFrom(options, input),
    client: clientFrom(options),
    metricsToken: token === null ? null : fileText("metricsTokenFile", token).trim(),
  };
}

async function accountsFrom(options: Options, input: () => Promise<string>): Promise<Account[]> {
  const [username, file] = [stringFlag(options, "username"), stringFlag(options, "accounts")];
  if (username !== null && file !== null) throw misused("--username and --accounts do not go together.");
  if (file !== null) return fileText("accounts", file).split("\n").flatMap(accountIn);
  if (username === null) {
    refuse(options, ["passwordStdin"], "needs --username.");
    return [];
  }
  if (!options.passwordStdin) throw misused("--username needs --password-stdin, with the password on standard input.");
  return [{ username, password: (await input()).replace(/\r?\n$/, "") }];
}

/** A line "name:password". */
function accountIn(line: string, index: number): Account[] {
  const text = line.replace(/\r$/, "");
  if (text.trim() === "") return [];
  const colon = text.indexOf(":");
  if (colon < 1) throw misused(`--accounts: line ${index + 1} is not of the form NAME:PASSWORD.`);
  return [{ username: text.slice(0, colon), password: text.slice(colon + 1) }];
}

function clientFrom(options: Options): { id: string; secret: string } | null {
  const [id, file] = [stringFlag(options, "client"), stringFlag(options, "clientSecretFile")];
  if ((id === null) !== (file === null)) throw misused("--client and --client-secret-file go together.");
  return id === null || file === null ? null : { id, secret: fileText("clientSecretFile", file).trim() };
}

function scenariosFrom(value: Options[string]): Scenario[] | null {
  if (typeof value !== "string") return null;
  const names = [...new Set(value.split(",").map((name) => name.trim()))];
  const wrong = names.find((name) => !SCENARIOS.some((scenario) => scenario === name));
  if (wrong !== undefined) throw misused(`--scenario: expected any of ${SCENARIOS.join(", ")}, not ${wrong}.`);
  return names as Scenario[];
}

function outFile(path: string): string {
  if (OUT_FORMATS.test(path)) return resolve(path);
  throw misused(`--out: ${path} does not say what to write.`, "Name a file that ends with .json, .html or .md.");
}

const listFlag = (value: Options[string]): readonly string[] => (Array.isArray(value) ? value : []);

const stringFlag = (options: Options, name: string): string | null => {
  const value = options[name];
  return typeof value === "string" ? value : null;
};

export function numberFlag(
  options: Options,
  name: string,
  fallback: number | null,
  min: number,
  max: number,
): number | null {
  const kind = integer(min, max);
  if (options[name] === undefined) return fallback;
  const value = kind.parse(options[name]);
  if (value === undefined) throw misused(`${flagOf(name)}: expected ${kind.expected}, not ${options[name]}.`);
  return value;
}

export function durationFlag(options: Options, name: string, fallback: number, min: number, max: number): number {
  const text = stringFlag(options, name);
  if (text === null) return fallback;
  const value = parseDuration(text);
  if (value !== undefined && value >= min && value <= max) return value;
  throw misused(`${flagOf(name)}: expected a duration from ${min} ms to ${max / 1000} s, such as 10s, not ${text}.`);
}

function urlFlag(options: Options, name: string, ...protocols: [string, ...string[]]): string | null {
  const text = stringFlag(options, name);
  if (text === null) return null;
  const kind = urlKind(...protocols);
  const value = kind.parse(text);
  if (!value) throw misused(`${flagOf(name)}: expected ${kind.expected}.`);
  return value;
}

function fileText(flag: string, path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw misused(`${flagOf(flag)}: ${path} cannot be read: ${textOf(error)}`);
  }
}
