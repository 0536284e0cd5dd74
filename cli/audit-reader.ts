import {
  type ChainReader,
  chainReaderOn,
  type EventPage,
  type EventQuery,
  listEventPage,
  recordExport,
} from "../server/features/audit/service.ts";
import type { UserDeps } from "../server/features/users/service.ts";
import type { CommandContext } from "./command.ts";
import { type StepCommand, stepOf, withSteps } from "./steps.ts";

/** Events that are read at a time. */
const AT_ONCE = 500;
/** A page may be all that fits of a large log (milliseconds). */
const STATEMENT_MS = 60_000;

/** What to do where nothing is sealed. */
export const SEALING_HINT =
  "Run `primer worker`, or `primer serve --with-worker`; if one runs, see its log (audit.not_sealed) and start it again.";

/** What verifying and exporting read of the audit log. */
export interface AuditReader extends ChainReader {
  /** Before the first page: that somebody exports is on record. @throws AppError VALIDATION_FAILED */
  beginExport(query: EventQuery, format: string): Promise<void>;
  events(query: EventQuery, cursor: string | null): Promise<EventPage>;
}

const readerOn = (deps: UserDeps): AuditReader => ({
  ...chainReaderOn(deps.db),
  beginExport: (query, format) => recordExport(deps, query, { actor: { kind: "operator" }, format }),
  events: (query, cursor) => listEventPage(deps, { ...query, limit: AT_ONCE, cursor: cursor ?? undefined }),
});

const COMMAND: StepCommand<AuditReader> = {
  name: "audit read-step",
  steps: ["head", "links", "anchor", "vouched", "log", "beginExport", "events"],
  statementMs: STATEMENT_MS,
  on: readerOn,
};

export const withAuditReader = <T>(context: CommandContext, work: (reader: AuditReader) => Promise<T>): Promise<T> =>
  withSteps(context, COMMAND, work);

export const step = stepOf(COMMAND);
