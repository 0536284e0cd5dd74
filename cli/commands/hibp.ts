import { join, resolve } from "node:path";
import { failed, misused } from "../../config/errors.ts";
import { BREACH_FILTER_FILE, PREFIXES } from "../../server/features/passwords/breach-filter.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { createFilterSink, type FilterSink, type FilterSummary, replaceFilter } from "../breach-filter-file.ts";
import type { CommandContext, Implementation, Outcome } from "../command.ts";
import { readHashes } from "../hibp-source.ts";
import { untilInterrupted } from "../interrupt.ts";
import { type Io, yellow } from "../io.ts";

/** What lasts longer says how far it is: the first time after this, then each time after {@link NEXT_NOTE_MS}. */
const FIRST_NOTE_MS = 1000;
const NEXT_NOTE_MS = 5000;

/** Makes the set that `password.hibp = "offline"` looks passwords up in. Servers that run take it at their next look. */
export const importCommand: Implementation = {
  async run(context): Promise<Outcome> {
    const source = resolve(context.arguments[0] ?? "");
    const minCount = minCountFrom(context.options.minCount);
    const path = join(context.home, BREACH_FILTER_FILE);
    const dryRun = Boolean(context.options.dryRun);
    const counts = { skipped: 0 };
    const fill = (sink: FilterSink) =>
      untilInterrupted((stop) => readInto(sink, source, { minCount, counts, stop, io: context.io }));
    const summary = dryRun
      ? await fill(createFilterSink(minCount, () => {}))
      : await replaceFilter(path, minCount, fill);
    return outcomeOf(summary, { path, dryRun, minCount, skipped: counts.skipped });
  },
};

function minCountFrom(value: CommandContext["options"][string]): number {
  if (value === undefined) return 1;
  const count = typeof value === "string" && /^\d{1,9}$/.test(value) ? Number(value) : 0;
  if (count >= 1) return count;
  throw misused(`--min-count: expected a whole number from 1 on, not ${value}.`);
}

interface Reading {
  readonly minCount: number;
  readonly counts: { skipped: number };
  readonly stop: AbortSignal;
  readonly io: Io;
}

async function readInto(
  sink: FilterSink,
  source: string,
  { minCount, counts, stop, io }: Reading,
): Promise<FilterSummary> {
  const started = systemClock.elapsed();
  let nextNote = started + FIRST_NOTE_MS;
  const { missing } = await readHashes(source, {
    hash(prefix, rest, count) {
      if (count < minCount) counts.skipped++;
      else sink.add(prefix, rest);
    },
    progress(share) {
      if (stop.aborted) throw failed("Interrupted; what was there before is there still.");
      if (systemClock.elapsed() < nextNote) return;
      nextNote = systemClock.elapsed() + NEXT_NOTE_MS;
      io.note(`Reading ${source}: ${(share * 100).toFixed(0)} %\n`);
    },
  });
  if (missing > 0) {
    io.note(`${yellow(io, "!!")} ${missing} of the ${PREFIXES} prefixes have no file: is the download complete?\n`);
  }
  const summary = sink.finish();
  if (summary.hashes === 0) throw failed(`${source} has no password with a count of ${minCount} or more.`);
  return summary;
}

interface Imported {
  readonly path: string;
  readonly dryRun: boolean;
  readonly minCount: number;
  readonly skipped: number;
}

function outcomeOf(summary: FilterSummary, { path, dryRun, minCount, skipped }: Imported): Outcome {
  const { hashes, prefixes, bytes, falsePositiveRate } = summary;
  const oneIn = Math.floor(1 / falsePositiveRate);
  const size = bytes < 10_000_000 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.round(bytes / 1e6)} MB`;
  return {
    json: {
      path,
      dry_run: dryRun,
      passwords: hashes,
      skipped,
      min_count: minCount,
      prefixes,
      bytes,
      false_positive_rate: falsePositiveRate,
    },
    text: `${dryRun ? "Would write" : "Wrote"} ${path}: ${hashes} passwords (${skipped} skipped), ${size}.\nA password that is not among them is taken for one of them once in ${oneIn} times.\n`,
  };
}
