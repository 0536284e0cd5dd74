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
import type { CommandContext } from "../command.ts";
import { type StepCommand, stepOf, withSteps } from "../steps.ts";

/** The steps of an import or export that need the database. */
export interface Mover {
  beginImport(options: ImportOptions, record: ImportRecord): Promise<void>;
  importBatch(drafts: readonly Draft[], options: ImportOptions): Promise<ImportOutcome[]>;
  finishImport(record: ImportRecord, complete: boolean): Promise<void>;
  beginExport(record: ImportRecord): Promise<number>;
  exportPage(after: string | null): Promise<ExportedUser[]>;
}

const BY_OPERATOR = { actor: { kind: "operator" } } as const;

/** Works on a database that this process has. */
export const moverOn = (deps: UserDeps): Mover => ({
  beginImport: (options, record) => beginImport(deps, options, record, BY_OPERATOR),
  importBatch: (drafts, options) => importBatch(deps, drafts, options),
  finishImport: (record, complete) => finishImport(deps, record, complete, BY_OPERATOR),
  beginExport: (record) => beginExport(deps, record, BY_OPERATOR),
  exportPage: (after) => exportPage(deps, after ?? undefined),
});

const COMMAND: StepCommand<Mover> = {
  name: "users move-step",
  steps: ["beginImport", "importBatch", "finishImport", "beginExport", "exportPage"],
  on: moverOn,
};

export const withMover = <T>(context: CommandContext, work: (mover: Mover) => Promise<T>): Promise<T> =>
  withSteps(context, COMMAND, work);

export const step = stepOf(COMMAND);
