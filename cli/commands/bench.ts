import type { CommandContext, Outcome } from "../command.ts";

/** Measures a server, or with --calibrate what this machine's cores can do. */
export async function run(context: CommandContext): Promise<Outcome> {
  if (context.options.calibrate) return (await import("../bench/calibrate.ts")).calibrate(context);
  return (await import("../bench/bench.ts")).bench(context);
}
