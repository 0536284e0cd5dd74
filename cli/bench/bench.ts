import { cpus, release, totalmem } from "node:os";
import { EXIT, failed } from "../../config/errors.ts";
import { loadSettings, type Variables } from "../../config/load.ts";
import type { Settings } from "../../config/schema.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { systemRandom } from "../../server/ports/random.ts";
import type { CommandContext, Outcome } from "../command.ts";
import { untilInterrupted } from "../interrupt.ts";
import { assertScenariosRun, judge } from "./assertions.ts";
import { hashRate, openSigner } from "./ceiling.ts";
import { type ChildProcess, startChild } from "./child.ts";
import { assertComparable, compareReports, readReport } from "./compare.ts";
import type { CleanedUp } from "./load.ts";
import type { Opening } from "./load-child.ts";
import { type Measured, measureRound, type Yardstick } from "./measure.ts";
import { type BenchOptions, readOptions } from "./options.ts";
import { type BenchReport, FORMAT } from "./report.ts";
import { textReport } from "./report-text.ts";
import { targetOf } from "./requests.ts";
import type { Scenario } from "./scenarios.ts";
import { ceilingReport, summarise } from "./summarise.ts";
import { type BenchTarget, kindsOf, openUrl, scenariosFor, startOwn } from "./target.ts";
import { type BenchWatcher, watcherOn } from "./watcher.ts";
import { writeReports } from "./write-reports.ts";

/** Measures a server. @throws OperatorError; an outcome with exit 4 where an assertion or a comparison did not hold */
export async function bench(context: CommandContext): Promise<Outcome> {
  const options = await readOptions(context);
  const scenarios = scenariosFor(options);
  assertScenariosRun(options.assertions, scenarios);
  const before = options.compare === null ? null : readReport(options.compare);
  if (before) assertComparable(before, { ...options, scenarios });
  const { settings, carried } = settingsOf(context);
  const plain = plainEnvironment(context.environment);
  const watcher = watcherOn(context.io);
  const report = await untilInterrupted((stop) =>
    withEverything(stop, async (open) => {
      const place = await openPlace(open, options, carried, plain, watcher);
      const yardstick = place.target.isHere ? await openYardstick(open, settings, plain, watcher) : null;
      return measure(options, scenarios, place, yardstick, settings, watcher);
    }),
  );
  watcher.done();
  const comparisons = before ? compareReports(before, report) : [];
  const judged = judge(options.assertions, report);
  writeReports(options.out, report, comparisons, judged);
  const isRefused = judged.some(({ held }) => !held) || comparisons.some(({ verdict }) => verdict === "slower");
  return {
    json: { ...report, comparisons, assertions: judged },
    text: textReport(context.io, report, comparisons, judged),
    ...(isRefused ? { exitCode: EXIT.finding } : {}),
  };
}

/** What of the home's settings decides how much work a request is: a scratch server is made to have the same. */
const CARRIED = [
  "password.algorithm",
  "password.memory_kib",
  "password.iterations",
  "password.bcrypt_cost",
  "password.hash_slots",
  "password.hash_queue",
  "tokens.algorithm",
  "keys.bits",
];

export function settingsOf({ home, environment }: Pick<CommandContext, "home" | "environment">) {
  const { settings, resolved } = loadSettings(home, environment);
  const stated = CARRIED.flatMap((key) => resolved.get(key) ?? []).filter(({ origin }) => origin !== "default");
  const carried = Object.fromEntries(stated.map(({ setting, raw }) => [setting.variable, String(raw)]));
  return { settings, carried };
}

/** What a shell has. Addresses of databases and servers that stand in it are not ours to touch. */
export function plainEnvironment(environment: Variables): Record<string, string> {
  const foreign = /^(PRIMER_|OTEL_|(DATABASE|DATABASE_ADMIN|REDIS|SMTP)_URL)/;
  return Object.fromEntries(
    Object.entries(environment).flatMap(([name, value]) =>
      value === undefined || foreign.test(name) ? [] : [[name, value]],
    ),
  );
}

/** Everything that was opened, and has to be closed in the reverse order whatever happens. */
interface Opened {
  /** Rejects when the bench is interrupted, whatever is under way. */
  unlessStopped<T>(work: Promise<T>): Promise<T>;
  child(child: ChildProcess): ChildProcess;
  atEnd(close: () => Promise<unknown>): void;
}

async function withEverything<T>(stop: AbortSignal, work: (open: Opened) => Promise<T>): Promise<T> {
  const closing: (() => Promise<unknown>)[] = [];
  const stopped = new Promise<never>((_, reject) => {
    stop.addEventListener("abort", () => reject(failed("Interrupted; what the bench had made was put away.")));
  });
  stopped.catch(() => {});
  const open: Opened = {
    unlessStopped: (promise) => Promise.race([promise, stopped]),
    child(child) {
      closing.push(child.close);
      return { ...child, ask: (...words) => Promise.race([child.ask(...words), stopped]) as never };
    },
    atEnd: (close) => void closing.push(close),
  };
  try {
    return await work(open);
  } finally {
    for (let close = closing.pop(); close; close = closing.pop()) await close();
  }
}

interface Place {
  readonly target: BenchTarget;
  readonly generator: ChildProcess;
  /** What is left behind and what could not be measured; whole once {@link Opened} was closed. */
  readonly notes: string[];
}

async function openPlace(
  open: Opened,
  { target: wanted, connections }: BenchOptions,
  carried: Readonly<Record<string, string>>,
  environment: Record<string, string>,
  watcher: BenchWatcher,
): Promise<Place> {
  const target = await openTarget();
  const generator = startChild("load", environment);
  const asked = open.child(generator);
  await asked.ask("open", { to: target.destination, takesBack: wanted.kind === "url" } satisfies Opening);
  const notes: string[] = [];
  if (wanted.kind === "url") {
    open.atEnd(async () => {
      watcher.doing("logging out what the bench has logged in");
      notes.push(...leftBehind(await generator.ask<CleanedUp>("cleanUp")));
    });
  }
  if (kindsOf(wanted).includes("login")) {
    watcher.doing(`logging in ${connections} sessions`);
    const fault = await asked.ask<string | null>("logIn", { connections });
    if (fault !== null) throw loginRefused(fault);
  }
  return { target, generator: asked, notes };

  async function openTarget(): Promise<BenchTarget> {
    if (wanted.kind === "url") {
      const prefix = `bench-${Buffer.from(systemRandom.bytes(4)).toString("hex")}`;
      return open.unlessStopped(openUrl(wanted, prefix));
    }
    const { keeper, begin } = startOwn(wanted, carried, environment);
    open.child(keeper);
    return open.unlessStopped(begin((doing) => watcher.doing(doing)));
  }
}

const loginRefused = (fault: string) =>
  failed(
    `The server refused a login of the bench: ${fault}.`,
    /429/.test(fault)
      ? "Its limits count here as for everybody. Lift rate_limits.login_ip, .refresh and .general there for the time of the bench, or use fewer --connections."
      : "See that the accounts exist there, are active and have this password.",
  );

function leftBehind({ sessionsLeft, accountsDeactivated, accountsLeft }: CleanedUp): string[] {
  const sessions = `${sessionsLeft} sessions could not be logged out; they end by themselves.`;
  const gone = `${accountsDeactivated} accounts that were registered are deactivated, and are erased after accounts.erase_after.`;
  const pending = `${accountsLeft} accounts that were registered (bench-…@bench.invalid) could not be logged in to; where addresses are verified they are erased by themselves after a day.`;
  return [
    sessionsLeft > 0 ? sessions : "",
    accountsDeactivated > 0 ? gone : "",
    accountsLeft > 0 ? pending : "",
  ].filter((note) => note !== "");
}

async function openYardstick(
  open: Opened,
  settings: Settings,
  environment: Record<string, string>,
  watcher: BenchWatcher,
): Promise<Yardstick> {
  watcher.doing(`making a key (${signatureOf(settings)}) to measure signatures with`);
  const signer = await open.unlessStopped(openSigner(settings));
  const port = await open.child(startChild("bare", environment)).ask<number>("port");
  const bare = open.child(startChild("load", environment));
  const authority = `127.0.0.1:${port}`;
  const to = { target: targetOf(`http://${authority}`), authority, accounts: [], client: null, prefix: "" };
  await bare.ask("open", { to, takesBack: false } satisfies Opening);
  return {
    hashRate: (durationMs) => open.unlessStopped(hashRate(settings.password, durationMs)),
    signRate: (durationMs) => open.unlessStopped(signer.rate(durationMs)),
    bare,
    bareAuthority: authority,
  };
}

async function measure(
  options: BenchOptions,
  scenarios: readonly Scenario[],
  { target, generator, notes }: Place,
  yardstick: Yardstick | null,
  settings: Settings,
  watcher: BenchWatcher,
): Promise<BenchReport> {
  const startedAt = systemClock.now().toISOString();
  const measured: Measured[] = [];
  for (let round = 1; round <= options.rounds; round++) {
    if (options.rounds > 1) watcher.round(round, options.rounds);
    measured.push(...(await measureRound(options, scenarios, target, generator, yardstick, watcher)));
  }
  return reportOf(startedAt, options, target, measured, settings, notes);
}

function reportOf(
  startedAt: string,
  options: BenchOptions,
  target: BenchTarget,
  measured: readonly Measured[],
  settings: Settings,
  notes: string[],
): BenchReport {
  const names = [...new Set(measured.map(({ scenario }) => scenario))];
  const rounds = names.map((name) => measured.filter(({ scenario }) => scenario === name));
  const isOwn = target.pid !== null;
  notes.push(...unmeasured(target, measured));
  return {
    format: FORMAT,
    primer: target.about.version ?? "",
    started_at: startedAt,
    machine: machineOf(),
    target: {
      kind: options.target.kind,
      url: target.url,
      ...target.about,
      processes: measured.findLast(({ processes }) => processes !== null)?.processes ?? null,
      password_hash: isOwn ? hashOf(settings) : null,
      signature: isOwn ? signatureOf(settings) : null,
    },
    load: {
      connections: options.connections,
      rate: options.rate,
      duration_s: options.durationMs / 1000,
      warm_up_s: options.warmUpMs / 1000,
      rounds: options.rounds,
    },
    ceiling: ceilingReport(measured.flatMap(({ ceilings }) => ceilings ?? [])),
    scenarios: rounds.flatMap(([first, ...rest]) => (first ? [summarise([first, ...rest])] : [])),
    notes,
  };
}

function unmeasured(target: BenchTarget, measured: readonly Measured[]): string[] {
  const withoutMetrics = measured.every(({ metrics }) => metrics === null);
  const withoutCeiling = measured.every(({ ceilings }) => ceilings === null);
  const how = target.pid === null ? "; --metrics-token-file shows it whom it may tell" : "";
  return [
    withoutMetrics ? `The server tells nothing at /metrics, so its stages are not known${how}.` : "",
    withoutCeiling ? "The server is on another machine, so the ceiling, which is of a machine, is not known." : "",
  ].filter((note) => note !== "");
}

export function machineOf(): BenchReport["machine"] {
  const [first] = cpus();
  return {
    cpu: first?.model.trim() ?? "unknown processor",
    cores: cpus().length,
    memory_mib: Math.round(totalmem() / 1024 / 1024),
    system: `${process.platform} ${release()} ${process.arch}`,
    runtime: `Bun ${Bun.version}`,
  };
}

export const hashOf = ({ password }: Pick<Settings, "password">): string =>
  password.algorithm === "bcrypt"
    ? `bcrypt cost ${password.bcrypt_cost}`
    : `argon2id m=${password.memory_kib} t=${password.iterations}`;

export const signatureOf = ({ tokens, keys }: Pick<Settings, "tokens" | "keys">): string =>
  /^[RP]S/.test(tokens.algorithm) ? `${tokens.algorithm} ${keys.bits} bits` : tokens.algorithm;
