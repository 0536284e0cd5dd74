import { failed, OperatorError, unreachable } from "../../config/errors.ts";
import {
  beginExport,
  beginImport,
  type Draft,
  type ExportedUser,
  exportPage,
  finishImport,
  type ImportOptions,
  type ImportOutcome,
  type ImportRecord,
  importBatch,
} from "../../server/features/moving/service.ts";
import type { UserDeps } from "../../server/features/users/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import type { CommandContext, Implementation } from "../command.ts";
import { hasSocket, runInHolder } from "../holder.ts";
import { withUserDeps } from "../workspace.ts";

/** The steps of an import or export that need the database. */
export interface Mover {
  beginImport(options: ImportOptions, record: ImportRecord): Promise<void>;
  importBatch(drafts: readonly Draft[], options: ImportOptions): Promise<ImportOutcome[]>;
  finishImport(record: ImportRecord, complete: boolean): Promise<void>;
  beginExport(record: ImportRecord): Promise<number>;
  exportPage(after: string | null): Promise<ExportedUser[]>;
}

/** How long an owner may take that has only begun, or is about to end (milliseconds). */
const MAX_WAIT_MS = 10_000;
const WAIT_STEP_MS = 100;

const BY_OPERATOR = { actor: { kind: "operator" } } as const;

/** Works on a database that this process has. */
export const moverOn = (deps: UserDeps): Mover => ({
  beginImport: (options, record) => beginImport(deps, options, record, BY_OPERATOR),
  importBatch: (drafts, options) => importBatch(deps, drafts, options),
  finishImport: (record, complete) => finishImport(deps, record, complete, BY_OPERATOR),
  beginExport: (record) => beginExport(deps, record, BY_OPERATOR),
  exportPage: (after) => exportPage(deps, after ?? undefined),
});

/**
 * Runs `work` with the database: our own connection, or that of the process that owns it. Files are read and written here
 * all the same, with the rights of whoever runs the command, and the owner is asked for one short step at a time.
 */
export async function withMover<T>(context: CommandContext, work: (mover: Mover) => Promise<T>): Promise<T> {
  const deadline = systemClock.elapsed() + MAX_WAIT_MS;
  for (;;) {
    try {
      return await withUserDeps(context, (deps) => work(moverOn(deps)));
    } catch (error) {
      const isHeld = error instanceof OperatorError && error.reason === "held";
      if (!isHeld) throw error;
      if (hasSocket(context.home)) return work(moverInHolder(context));
      if (systemClock.elapsed() > deadline) throw error;
      await Bun.sleep(WAIT_STEP_MS);
    }
  }
}

/** The command by which the owner of the database is asked for a step; nobody types it. */
export const STEP_COMMAND = "users move-step";

function moverInHolder(context: CommandContext): Mover {
  const ask = async <T>(step: keyof Mover, ...args: readonly unknown[]): Promise<T> => {
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
    const exitCode = await runInHolder(context.home, STEP_COMMAND, invocation, io);
    if (exitCode === undefined) {
      throw unreachable(
        "The running primer has stopped.",
        "Run the same command again: it goes on where this one ended.",
      );
    }
    const document = JSON.parse(answer);
    if (exitCode !== 0)
      throw new OperatorError(exitCode as 1, document.error.message, document.error.hint ?? undefined);
    return document as T;
  };
  return {
    beginImport: (...args) => ask("beginImport", ...args),
    importBatch: (...args) => ask("importBatch", ...args),
    finishImport: (...args) => ask("finishImport", ...args),
    beginExport: (...args) => ask("beginExport", ...args),
    exportPage: (...args) => ask("exportPage", ...args),
  };
}

/** Does a step for another process. */
export const step: Implementation = {
  run: (context) =>
    withUserDeps(context, async (deps) => {
      const { step: name, args } = JSON.parse(await context.io.input()) as { step: string; args: never[] };
      const mover: Readonly<Record<string, (...args: never[]) => Promise<unknown>>> = { ...moverOn(deps) };
      const run = Object.hasOwn(mover, name) ? mover[name] : undefined;
      if (!run) throw failed(`There is no step ${name}.`);
      return { json: (await run(...args)) ?? null, text: "" };
    }),
};
