import { EXIT } from "../../config/errors.ts";
import type { Settings } from "../../config/schema.ts";
import { systemClock } from "../../server/ports/clock.ts";
import type { CommandContext, Outcome } from "../command.ts";
import { untilInterrupted } from "../interrupt.ts";
import { assertScenariosRun, judge } from "./assertions.ts";
import { assertComparable, compareReports, readReport } from "./compare.ts";
import { type Measured, measureRound, type Yardstick } from "./measure.ts";
import { type BenchOptions, readOptions } from "./options.ts";
import { openPlace, openYardstick, type Place, withEverything } from "./place.ts";
import { type BenchReport, FORMAT } from "./report.ts";
import { textReport } from "./report-text.ts";
import type { Scenario } from "./scenarios.ts";
import { ceilingReport, summarise } from "./summarise.ts";
import { hashOf, machineOf, plainEnvironment, settingsOf, signatureOf } from "./surroundings.ts";
import { type BenchTarget, scenariosFor } from "./target.ts";
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
