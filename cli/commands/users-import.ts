import { resolve } from "node:path";
import { EXIT, failed, misused } from "../../config/errors.ts";
import { type ImportOptions, NAMING_RULE } from "../../server/features/moving/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import type { CommandContext, Implementation, Options, Outcome } from "../command.ts";
import { untilInterrupted } from "../interrupt.ts";
import { readHashConfig } from "../moving/hash-config.ts";
import { importAll } from "../moving/import.ts";
import { findInput, type Input } from "../moving/input.ts";
import { type Mover, withMover } from "../moving/mover.ts";
import { createPace } from "../moving/pace.ts";
import { openRejects, type RejectsFile } from "../moving/rejects.ts";
import type { Source, SourceOptions } from "../moving/source.ts";
import { SOURCES } from "../moving/sources/index.ts";
import { newTally, recordOf, type Tally, textOf } from "../moving/tally.ts";

interface Plan {
  readonly format: string;
  readonly input: Input;
  readonly source: Source;
  readonly sourceOptions: SourceOptions;
  readonly options: ImportOptions;
  readonly rejectsPath: string;
}

/** Imports the users of another product, or of another primer, with the hashes of their passwords. */
export const importCommand: Implementation = {
  async run(context): Promise<Outcome> {
    const plan = planFrom(context);
    const started = systemClock.elapsed();
    const tally = newTally();
    const rejects = openRejects(plan.rejectsPath);
    try {
      await withMover(context, (mover) => carryOut(context, plan, { mover, rejects, tally }));
    } finally {
      rejects.close();
    }
    if (tally.read === 0) {
      throw failed(
        `${plan.input.name} has no users in it.`,
        `Is it an export of ${plan.format}? --format says of what.`,
      );
    }
    const rejectsFile = tally.rejected > 0 ? rejects.path : null;
    const { dryRun } = plan.options;
    const seconds = Math.round((systemClock.elapsed() - started) / 100) / 10;
    return {
      json: { format: plan.format, dry_run: dryRun, ...tally, rejects_file: rejectsFile, seconds },
      text: textOf(tally, { dryRun, rejectsFile, rule: NAMING_RULE }),
      exitCode: tally.rejected > 0 ? EXIT.failed : EXIT.done,
    };
  },
};

function planFrom({ arguments: [path = ""], options }: CommandContext): Plan {
  const format = String(options.format ?? "");
  const source = Object.hasOwn(SOURCES, format) ? SOURCES[format] : undefined;
  if (!source) {
    throw misused(`--format: expected one of ${Object.keys(SOURCES).join(", ")}, not ${format || "nothing"}.`);
  }
  const withoutPassword = Boolean(options.withoutPassword);
  const hashConfig = typeof options.hashConfig === "string" ? readHashConfig(options.hashConfig) : undefined;
  if (format === "firebase" && !hashConfig && !withoutPassword) {
    throw misused(
      "The hashes of Firebase need the project's parameters.",
      "Put them into a file (Firebase console: Authentication, Users, Password hash parameters) and add --hash-config FILE; or leave the hashes out with --without-password.",
    );
  }
  const roleMap = roleMapFrom(options.roleMap, source);
  const input = findInput(path);
  const rejects =
    options.rejects ?? (path === "-" ? "import.rejects.ndjson" : `${path.replace(/\/+$/, "")}.rejects.ndjson`);
  const rejectsPath = resolve(String(rejects));
  if (rejectsPath === resolve(path)) throw misused("--rejects: expected another file than the one that is imported.");
  return {
    format,
    input,
    source,
    sourceOptions: hashConfig ? { firebase: hashConfig } : {},
    options: {
      product: format,
      ...(roleMap ? { roleMap } : {}),
      rename: Boolean(options.rename),
      withoutPassword,
      dryRun: Boolean(options.dryRun),
    },
    rejectsPath,
  };
}

/** "editors=editor,admins=admin". Without it primer's own names stay, and those of others are ignored. */
function roleMapFrom(value: Options[string], source: Source): Record<string, string> | undefined {
  if (typeof value !== "string") return source.ownRoles ? undefined : {};
  const pairs = value.split(",").map((pair) => {
    const equals = pair.lastIndexOf("=");
    const [there, here] = [pair.slice(0, equals).trim(), pair.slice(equals + 1).trim()];
    if (equals < 1 || there === "" || here === "") {
      throw misused(`--role-map: expected THERE=HERE,…, not ${pair}.`, "Such as --role-map editors=editor,staff=user");
    }
    return [there, here] as const;
  });
  return Object.fromEntries(pairs);
}

interface Means {
  readonly mover: Mover;
  readonly rejects: RejectsFile;
  readonly tally: Tally;
}

/** Every import is on record when it begins and when it ends, however it ends. */
async function carryOut(context: CommandContext, plan: Plan, { mover, rejects, tally }: Means): Promise<void> {
  const { options, format, input } = plan;
  const origin = { format, source: input.name };
  await mover.beginImport(options, origin);
  const finish = (complete: boolean) =>
    options.dryRun ? Promise.resolve() : mover.finishImport({ ...origin, ...recordOf(tally) }, complete);
  try {
    await untilInterrupted((stop) =>
      importAll({ ...plan, mover, rejects, tally, stop, progress: progressOf(context, plan, tally, stop) }),
    );
  } catch (error) {
    // Where the database is the reason, this fails too: what went wrong first is what is told.
    await finish(false).catch(() => {});
    throw error;
  }
  await finish(true);
}

function progressOf({ io }: CommandContext, { input, options }: Plan, tally: Tally, stop: AbortSignal) {
  let read = 0;
  const pace = createPace((seconds) => {
    const share = input.bytes > 0 ? `${Math.floor((read / input.bytes) * 100)} %, ` : "";
    const rate = Math.round(tally.read / seconds);
    io.note(
      `${share}${tally.read} read, ${tally.imported} imported, ${tally.existing} here already, ${tally.rejected} rejected, ${rate} a second\n`,
    );
  });
  return (bytes: number) => {
    if (stop.aborted) {
      const done = options.dryRun ? "Nothing was written." : `${tally.imported} users came in.`;
      throw failed(`Interrupted. ${done}`, "The same command goes on: users who are in are left alone.");
    }
    read = bytes;
    pace();
  };
}
