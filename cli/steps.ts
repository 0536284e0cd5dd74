import { failed, OperatorError, unreachable } from "../config/errors.ts";
import type { UserDeps } from "../server/features/users/service.ts";
import { systemClock } from "../server/ports/clock.ts";
import type { CommandContext, Implementation } from "./command.ts";
import { hasSocket, runInHolder } from "./holder.ts";
import { withUserDeps } from "./workspace.ts";

/** How long an owner may take that has only begun, or is about to end (milliseconds). */
const MAX_WAIT_MS = 10_000;
const WAIT_STEP_MS = 100;

/** What long work needs of the database, step by step: each is short, and takes and answers what JSON can carry. */
export interface StepCommand<S extends object> {
  /** The command by which the owner of the database is asked for a step; nobody types it. */
  readonly name: string;
  readonly steps: readonly (keyof S & string)[];
  /** How long a statement may take where that is more than `database.statement_timeout` (milliseconds). */
  readonly statementMs?: number;
  on(deps: UserDeps): S;
}

/**
 * Runs `work` with the database: our own connection, or that of the process that owns it. Files are read and written here
 * all the same, with the rights of whoever runs the command, and the owner is asked for one short step at a time.
 */
export async function withSteps<S extends object, T>(
  context: CommandContext,
  command: StepCommand<S>,
  work: (steps: S) => Promise<T>,
): Promise<T> {
  const deadline = systemClock.elapsed() + MAX_WAIT_MS;
  for (;;) {
    try {
      return await withUserDeps(context, (deps) => work(command.on(deps)), command.statementMs);
    } catch (error) {
      const isHeld = error instanceof OperatorError && error.reason === "held";
      if (!isHeld) throw error;
      if (hasSocket(context.home)) return work(stepsInHolder(context, command));
      if (systemClock.elapsed() > deadline) throw error;
      await Bun.sleep(WAIT_STEP_MS);
    }
  }
}

function stepsInHolder<S extends object>(context: CommandContext, { name, steps }: StepCommand<S>): S {
  const ask = async (step: string, args: readonly unknown[]): Promise<unknown> => {
    let answer = "";
    const io = {
      ...context.io,
      out: (text: string) => {
        answer += text;
      },
      note: () => {},
      input: async () => JSON.stringify({ step, args }),
    };
    const invocation = { arguments: [], options: { json: true, stepStdin: true } };
    const exitCode = await runInHolder(context.home, name, invocation, io);
    if (exitCode === undefined) {
      throw unreachable(
        "The running primer has stopped.",
        "Run the same command again: it goes on where this one ended.",
      );
    }
    const document = JSON.parse(answer);
    if (exitCode !== 0)
      throw new OperatorError(exitCode as 1, document.error.message, document.error.hint ?? undefined);
    return document;
  };
  return Object.fromEntries(steps.map((step) => [step, (...args: unknown[]) => ask(step, args)])) as S;
}

/** Does a step for another process. */
export const stepOf = <S extends object>(command: StepCommand<S>): Implementation => ({
  run: (context) =>
    withUserDeps(context, async (deps) => {
      const { step, args } = JSON.parse(await context.io.input()) as { step: string; args: never[] };
      if (!command.steps.includes(step as keyof S & string)) throw failed(`There is no step ${step}.`);
      const steps = command.on(deps) as Readonly<Record<string, (...args: never[]) => Promise<unknown>>>;
      return { json: (await steps[step]?.(...args)) ?? null, text: "" };
    }),
});
