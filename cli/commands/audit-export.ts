import { failed, misused } from "../../config/errors.ts";
import type { AuditView, EventPage, EventQuery } from "../../server/features/audit/service.ts";
import { type AuditReader, withAuditReader } from "../audit-reader.ts";
import type { CommandContext, Implementation, Options } from "../command.ts";
import { csvLine } from "../csv.ts";
import { untilInterrupted } from "../interrupt.ts";
import { createPace } from "../moving/pace.ts";
import { type ExportFormat, type Sink, writeExport } from "../sink.ts";

const COLUMNS: readonly (readonly [name: string, text: (event: AuditView) => string | null])[] = [
  ["id", ({ id }) => id],
  ["time", ({ time }) => time],
  ["action", ({ action }) => action],
  ["outcome", ({ outcome }) => outcome],
  ["actor_kind", ({ actor }) => actor.kind],
  ["actor_id", ({ actor }) => actor.id],
  ["subject_kind", ({ subject }) => subject?.kind ?? null],
  ["subject_id", ({ subject }) => subject?.id ?? null],
  ["ip", ({ ip }) => ip],
  ["user_agent", ({ user_agent }) => user_agent],
  ["request_id", ({ request_id }) => request_id],
  ["details", ({ details }) => JSON.stringify(details)],
];

const FORMATS: Readonly<Record<string, ExportFormat<AuditView>>> = {
  ndjson: { head: "", line: (event) => `${JSON.stringify(event)}\n` },
  csv: {
    head: `${csvLine(COLUMNS.map(([name]) => name))}\r\n`,
    line: (event) => `${csvLine(COLUMNS.map(([, text]) => text(event) ?? ""))}\r\n`,
  },
};

/** Exports the events asked for: to a file that only its owner can read, or standard output. */
export const exportCommand: Implementation = {
  async run(context) {
    const query = queryFrom(context.options);
    const { path, written: events } = await writeExport(context, "primer audit export", FORMATS, (sink, format, name) =>
      withAuditReader(context, async (reader) => {
        await reader.beginExport(query, name);
        return untilInterrupted((stop) => writeEvents({ reader, query, sink, format, stop, context }));
      }),
    );
    const text = `Exported to ${path}: ${events} event${events === 1 ? "" : "s"}.\n`;
    return { json: { path, events }, text: path === "-" ? "" : text };
  },
};

function queryFrom({ outcome, ...options }: Options): EventQuery {
  if (outcome !== undefined && outcome !== "success" && outcome !== "failure") {
    throw misused(`--outcome: expected success or failure, not ${outcome}.`);
  }
  const names = ["action", "actor", "subject", "from", "to"] as const;
  const given = names.flatMap((name) => (typeof options[name] === "string" ? [[name, options[name]]] : []));
  return { ...Object.fromEntries(given), ...(outcome === undefined ? {} : { outcome }) };
}

interface Export {
  readonly reader: AuditReader;
  readonly query: EventQuery;
  readonly sink: Sink;
  readonly format: ExportFormat<AuditView>;
  readonly stop: AbortSignal;
  readonly context: CommandContext;
}

async function writeEvents({ reader, query, sink, format, stop, context }: Export): Promise<number> {
  let events = 0;
  const pace = createPace(() => context.io.note(`${events} events\n`));
  await sink.write(format.head);
  for (let cursor: string | null = null; ; ) {
    const page: EventPage = await reader.events(query, cursor);
    await sink.write(page.data.map(format.line).join(""));
    events += page.data.length;
    if (stop.aborted) throw failed("Interrupted; the export is not complete.");
    pace();
    cursor = page.next_cursor;
    if (cursor === null) return events;
  }
}
