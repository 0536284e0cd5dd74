/** What this machine can do, and what to set for a wanted rate of logins. */
import { availableParallelism, totalmem } from "node:os";
import { misused } from "../../config/errors.ts";
import type { Settings } from "../../config/schema.ts";
import type { CommandContext, Outcome } from "../command.ts";
import { bold, type Io } from "../io.ts";
import { hashRate, hashTime, openSigner } from "./ceiling.ts";
import { durationFlag, numberFlag } from "./options.ts";
import { machineLine, ms, number } from "./report-text.ts";
import { hashOf, machineOf, settingsOf, signatureOf } from "./surroundings.ts";

type Argon2 = Pick<Settings["password"], "memory_kib" | "iterations">;

/** OWASP's recommended minimum, which is primer's default; nothing weaker is ever recommended. */
export const OWASP_MINIMUM: Argon2 = { memory_kib: 19_456, iterations: 2 };
/**
 * From weak to strong. Memory comes first: it is what a guesser with graphics cards has too little of. The largest is the
 * most that the settings take.
 */
const LADDER: readonly Argon2[] = [
  OWASP_MINIMUM,
  { memory_kib: 32_768, iterations: 2 },
  { memory_kib: 47_104, iterations: 2 },
  { memory_kib: 65_536, iterations: 2 },
  { memory_kib: 65_536, iterations: 3 },
  { memory_kib: 98_304, iterations: 3 },
  { memory_kib: 131_072, iterations: 3 },
  { memory_kib: 196_608, iterations: 3 },
  { memory_kib: 262_144, iterations: 3 },
];

/** A machine that is to answer quickly is not to be driven harder than this share of what it can do. */
export const WORKING_SHARE = 0.7;
/** What all hashes at once may take of the machine's memory. */
const MEMORY_SHARE = 0.25;
const TIMES = 5;
/** How long a login holds a connection of the pool in all: some round trips to a database nearby, and their commits. */
const CONNECTION_SECONDS_PER_LOGIN = 0.02;
const DEFAULT_POOL = 10;

export interface Step extends Argon2 {
  /** On all cores. */
  readonly perSecond: number;
  /** One alone. */
  readonly takesMs: number;
}

/** What was measured: from weak to strong, as far as it was worth measuring. */
export interface Measurements {
  readonly cores: number;
  readonly memoryMiB: number;
  readonly signPerSecond: number;
  readonly steps: readonly [Step, ...Step[]];
}

export interface Recommendation extends Argon2 {
  /** Logins a second of this machine with these parameters at most, and what to plan with. */
  readonly capacity: number;
  readonly planned: number;
  readonly hashSlots: number;
  readonly workers: number;
  readonly poolSize: number;
  /** How many machines such as this one the wanted rate takes; null where none was given. */
  readonly machines: number | null;
}

/** A hash and a signature, each on all cores, one after the other. */
export const capacityOf = (hashesPerSecond: number, signPerSecond: number): number =>
  1 / (1 / hashesPerSecond + 1 / signPerSecond);

/**
 * The strongest parameters with which one hash takes no longer than wanted, the machine's memory is enough and, where a rate
 * of logins is wanted, it is reached at {@link WORKING_SHARE}. Where even the minimum is too much it stays the minimum, and
 * the answer says how many machines it takes.
 */
export function recommend(
  found: Measurements,
  wanted: { hashMs: number; loginsPerSecond: number | null },
): Recommendation {
  const planned = (step: Step) => capacityOf(step.perSecond, found.signPerSecond) * WORKING_SHARE;
  const fits = (step: Step) =>
    step.takesMs <= wanted.hashMs &&
    (step.memory_kib / 1024) * found.cores <= found.memoryMiB * MEMORY_SHARE &&
    planned(step) >= (wanted.loginsPerSecond ?? 0);
  const step = found.steps.findLast(fits) ?? found.steps[0];
  const machines = wanted.loginsPerSecond === null ? null : Math.ceil(wanted.loginsPerSecond / planned(step));
  const share =
    wanted.loginsPerSecond === null || machines === null ? planned(step) : wanted.loginsPerSecond / machines;
  const workers = found.cores;
  return {
    memory_kib: step.memory_kib,
    iterations: step.iterations,
    capacity: capacityOf(step.perSecond, found.signPerSecond),
    planned: planned(step),
    // Each process has slots of its own; all of them together are to be as many as there are cores.
    hashSlots: Math.max(1, Math.floor(found.cores / workers)),
    workers,
    poolSize: Math.max(DEFAULT_POOL, Math.ceil((share * CONNECTION_SECONDS_PER_LOGIN) / workers)),
    machines,
  };
}

interface Measuring {
  /** A step that takes longer is the last one (milliseconds), as is one of which fewer a second can be done. */
  readonly hashMs: number;
  readonly leastPerSecond?: number;
  /** How long each step is measured. */
  readonly durationMs: number;
  told?(step: Step): void;
}

/** Measures steps from weak to strong as far as it is worth it. */
export async function measureSteps(base: Settings["password"], measuring: Measuring): Promise<[Step, ...Step[]]> {
  const { hashMs, leastPerSecond = 0, durationMs, told } = measuring;
  const measure = async (argon2: Argon2): Promise<Step> => {
    const settings = { ...base, algorithm: "argon2id" as const, ...argon2 };
    const takesMs = await hashTime(settings, TIMES);
    const step = { ...argon2, takesMs, perSecond: await hashRate(settings, durationMs) };
    told?.(step);
    return step;
  };
  const steps: [Step, ...Step[]] = [await measure(OWASP_MINIMUM)];
  for (const argon2 of LADDER.slice(1)) {
    const last = steps.at(-1);
    if (last && (last.takesMs > hashMs || last.perSecond < leastPerSecond)) break;
    steps.push(await measure(argon2));
  }
  return steps;
}

/** `primer bench --calibrate`: measures this machine alone, starts no server and changes nothing. */
export async function calibrate({ home, environment, options, io }: CommandContext): Promise<Outcome> {
  const loginsPerSecond = numberFlag(options, "loginsPerSecond", null, 1, 1_000_000);
  const hashMs = durationFlag(options, "hashTime", 250, 20, 5000);
  const durationMs = durationFlag(options, "duration", 1500, 100, 60_000);
  const stray = ["url", "scenario", "rate", "workers", "assert", "compare", "out"].find(
    (name) => options[name] !== undefined,
  );
  if (stray) throw misused(`--${stray} does not go with --calibrate, which runs no load.`);
  const { settings } = settingsOf({ home, environment });
  io.note(`Making a key (${signatureOf(settings)}) and measuring signatures\n`);
  const signPerSecond = await (await openSigner(settings)).rate(durationMs);
  const current = await hashRate(settings.password, durationMs);
  io.note("Measuring password hashes\n");
  const steps = await measureSteps(settings.password, {
    hashMs,
    durationMs,
    told: ({ memory_kib, iterations, takesMs, perSecond }) =>
      io.note(`  ${memory_kib} KiB, ${iterations} passes: ${ms(takesMs)}, ${number(perSecond)}/s\n`),
  });
  const cores = availableParallelism();
  const memoryMiB = Math.round(totalmem() / 1024 / 1024);
  const found = { cores, memoryMiB, signPerSecond, steps };
  const recommended = recommend(found, { hashMs, loginsPerSecond });
  return {
    json: {
      machine: machineOf(),
      current: {
        password_hash: hashOf(settings),
        signature: signatureOf(settings),
        hash_per_second: current,
        sign_per_second: signPerSecond,
        logins_per_second: capacityOf(current, signPerSecond),
      },
      measured: steps.map(({ memory_kib, iterations, takesMs, perSecond }) => ({
        memory_kib,
        iterations,
        one_takes_ms: takesMs,
        per_second: perSecond,
      })),
      recommended: {
        "password.memory_kib": recommended.memory_kib,
        "password.iterations": recommended.iterations,
        "password.hash_slots": recommended.hashSlots,
        "database.pool_size": recommended.poolSize,
        workers: recommended.workers,
        logins_per_second: recommended.capacity,
        planned_logins_per_second: recommended.planned,
        machines: recommended.machines,
      },
    },
    text: advice(io, settings, capacityOf(current, signPerSecond), found, recommended, loginsPerSecond),
  };
}

function advice(
  io: Io,
  settings: Settings,
  now: number,
  found: Measurements,
  { memory_kib, iterations, capacity, planned, hashSlots, workers, poolSize, machines }: Recommendation,
  wanted: number | null,
): string {
  const perWorker = `with \`primer serve --workers ${workers}\` on PostgreSQL also hash_slots = ${hashSlots}`;
  const reach =
    wanted === null || machines === null
      ? ""
      : machines === 1
        ? `${number(wanted)} logins/s were wanted: one such machine does it.\n`
        : `${number(wanted)} logins/s were wanted: it takes ${machines} such machines, even with the weakest hash that may be used.\n`;
  return `${machineLine({ machine: machineOf() })}
Now: ${hashOf(settings)} and ${signatureOf(settings)}: at most ${number(now)} logins/s, ${number(found.signPerSecond)} refreshes/s
${reach}
${bold(io, "Recommended")}, in primer.toml:

[password]
memory_kib = ${memory_kib}
iterations = ${iterations}
# ${perWorker}

[database]
pool_size = ${poolSize}

With it this machine does at most ${number(capacity)} logins/s; plan with ${number(planned)} (${WORKING_SHARE * 100} %), so that peaks find room.
Hashes of before stay good: each is made anew at its owner's next login.
`;
}
