/** The server that is measured: one of the bench's own, or one that is there. */
import { misused, textOf, unreachable } from "../../config/errors.ts";
import { bareHost, isLoopback } from "../../config/load.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { type ChildProcess, startChild } from "./child.ts";
import type { BenchOptions, TargetWanted } from "./options.ts";
import { readSamples, type Sample } from "./prometheus.ts";
import type { BenchReport } from "./report.ts";
import { type Destination, targetOf } from "./requests.ts";
import { KINDS, type Kind, SCENARIOS, type Scenario } from "./scenarios.ts";
import type { ScratchServer, ScratchWanted } from "./scratch-server.ts";

export interface BenchTarget {
  readonly url: string;
  /** Of a server whose cost can be seen in this system; else null. */
  readonly pid: number | null;
  readonly destination: Destination;
  /** Whether it runs on this machine, so that what the machine can do is its ceiling. */
  readonly isHere: boolean;
  readonly about: Pick<BenchReport["target"], "version" | "database" | "redis" | "users" | "workers">;
  /** What it counts; null where it does not tell us. */
  readMetrics(): Promise<Sample[] | null>;
  close(): Promise<void>;
}

const ANSWER_WITHIN_MS = 10_000;

/** Without limits that would end a load of one address and few accounts after seconds. */
const NO_LIMITS: Readonly<Record<string, string>> = {
  PRIMER_ACCOUNTS__DELAY_AFTER: "0",
  PRIMER_ACCOUNTS__LOCK_AFTER: "0",
  ...Object.fromEntries(
    [
      "LOGIN_IP",
      "LOGIN_IP_ACCOUNT",
      "LOGIN_SERVICE",
      "LOGIN_ACCOUNT",
      "GENERAL",
      "REFRESH",
      "REGISTER_IP",
      "MAIL_ADDRESS",
    ].map((name) => [`PRIMER_RATE_LIMITS__${name}`, "off"]),
  ),
};

/**
 * Starts a server on a scratch home. The keeper of that home outlives this process where it must, see scratch-server.ts.
 *
 * @param settings what it is to have of the settings of the home that the bench stands in, as variables
 */
export function startOwn(
  wanted: Extract<TargetWanted, { kind: "own" }>,
  settings: Readonly<Record<string, string>>,
  environment: Readonly<Record<string, string>>,
): { keeper: ChildProcess; begin(tell: (doing: string) => void): Promise<BenchTarget> } {
  const keeper = startChild("server", environment);
  const redis = wanted.redisUrl === null ? {} : { REDIS_URL: wanted.redisUrl };
  const { databaseUrl, users, workers } = wanted;
  const token = systemRandom.token();
  const own = { ...settings, ...NO_LIMITS, ...redis, PRIMER_TELEMETRY__METRICS_TOKEN: token };
  const scratch: ScratchWanted = { settings: own, databaseUrl, users, workers };
  return {
    keeper,
    async begin(tell) {
      const server = await keeper.ask<ScratchServer>("begin", scratch, tell);
      const { url, pid, password, client } = server;
      const { host } = new URL(url);
      return {
        url,
        pid,
        isHere: true,
        destination: {
          target: targetOf(url),
          authority: host,
          accounts: { seeded: users, password },
          client,
          prefix: "bench-new",
        },
        about: {
          version: (await health(url)) ?? null,
          database: databaseUrl === null ? "embedded" : "postgresql",
          redis: wanted.redisUrl !== null,
          users,
          workers,
        },
        readMetrics: () => metricsOf(url, token),
        close: () => keeper.close(),
      };
    },
  };
}

/** A server that is there. @throws OperatorError exit 3 where it does not answer, exit 2 where it is no primer */
export async function openUrl(wanted: Extract<TargetWanted, { kind: "url" }>, prefix: string): Promise<BenchTarget> {
  const { url, ca, accounts, client, metricsToken } = wanted;
  const version = await health(url, ca);
  return {
    url,
    pid: null,
    isHere: isLoopback(bareHost(url)),
    destination: {
      target: targetOf(url, ca ?? undefined),
      authority: new URL(url).host,
      accounts,
      client,
      prefix,
    },
    about: { version, database: null, redis: null, users: null, workers: null },
    readMetrics: async () => (metricsToken === null ? null : metricsOf(url, metricsToken, ca)),
    close: async () => {},
  };
}

const tlsOptions = (ca?: string | null) => (ca === null || ca === undefined ? {} : { tls: { ca } });

/** The version that primer tells of itself. */
async function health(url: string, ca?: string | null): Promise<string> {
  const at = `${url}/api/v1/health`;
  const response = await fetch(at, {
    redirect: "manual",
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    ...tlsOptions(ca),
  }).catch((error) => {
    throw unreachable(
      `${url} does not answer: ${textOf(error)}`,
      "Is primer running there, and are host and port right? For a certificate of an own CA add --ca.",
      error,
    );
  });
  const elsewhere = response.headers.get("location");
  if (elsewhere !== null)
    throw misused(`${at} sends on to ${elsewhere}.`, "Give --url the address that is meant: no other one is touched.");
  const body = (await response.json().catch(() => ({}))) as { status?: unknown; version?: unknown };
  if (body.status === "healthy" && typeof body.version === "string") return body.version;
  throw misused(`${at} answered ${response.status}, and not as primer does.`, "--url takes the address of a primer.");
}

async function metricsOf(url: string, token: string, ca?: string | null): Promise<Sample[] | null> {
  const headers = { authorization: `Bearer ${token}` };
  const options = {
    headers,
    redirect: "manual" as const,
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    ...tlsOptions(ca),
  };
  const response = await fetch(`${url}/metrics`, options).catch(() => undefined);
  return response?.status === 200 ? readSamples(await response.text()) : null;
}

/** What can be sent there, by what there is to send it with. */
export function kindsOf(target: TargetWanted): readonly Kind[] {
  if (target.kind === "own") return KINDS;
  const hasAccount = target.accounts.length > 0;
  return KINDS.filter(
    (kind) => kind === "register" || (hasAccount && (kind !== "introspect" || target.client !== null)),
  );
}

const NEEDS =
  "With --url it takes an account: --username with --password-stdin, or --accounts FILE; introspect also --client with --client-secret-file.";

/**
 * The scenarios to run: those asked for, else all that can be. Registering makes accounts on a server that is not ours, so
 * there it is done only where it is asked for.
 *
 * @throws OperatorError exit 2 where one cannot be sent, naming the flags that it needs
 */
export function scenariosFor({ scenarios, target }: Pick<BenchOptions, "scenarios" | "target">): readonly Scenario[] {
  const kinds = kindsOf(target);
  const possible = SCENARIOS.filter((name) => kinds.includes(name === "mixed" ? "verify" : name));
  const wanted = scenarios ?? possible.filter((name) => target.kind === "own" || name !== "register");
  const missing = wanted.find((name) => !possible.includes(name));
  if (missing !== undefined) throw misused(`${missing} cannot be measured without a login.`, NEEDS);
  if (wanted.length === 0) throw misused("There is nothing to measure without a login.", NEEDS);
  return wanted;
}
