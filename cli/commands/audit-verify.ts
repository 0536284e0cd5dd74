import { EXIT, misused, OperatorError } from "../../config/errors.ts";
import { type ChainHead, type ChainReport, isOverdue, verifyChain } from "../../server/features/audit/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { SEALING_HINT, withAuditReader } from "../audit-reader.ts";
import type { Implementation } from "../command.ts";
import { untilInterrupted } from "../interrupt.ts";
import { createPace } from "../moving/pace.ts";

/** Holds the audit log against its chain. Exit 1 where a row was changed, removed or put in, with the row; 130 at Ctrl-C. */
export const verifyCommand: Implementation = {
  async run(context) {
    const expected = headFrom(context.options.expect);
    let rows = 0;
    const pace = createPace((seconds) => context.io.note(`${rows} rows, ${Math.round(rows / seconds)} a second\n`));
    const told = (count: number) => {
      rows = count;
      pace();
    };
    const report = await withAuditReader(context, (reader) =>
      untilInterrupted((stop) =>
        verifyChain(reader, told, { signal: stop, expected }).catch((error) => {
          throw stop.aborted ? interrupted() : error;
        }),
      ),
    );
    return { json: report, text: textOf(report), exitCode: report.ok ? EXIT.done : EXIT.failed };
  },
};

/** Not the exit code of a log that was changed: of that nothing was found so far. */
const interrupted = () =>
  new OperatorError(
    EXIT.interrupted,
    "Interrupted; the audit log was not verified to its end.",
    "What was looked at holds. Run the command again for the rest; it begins at the beginning.",
  );

/** What was printed once as the end of the chain. @throws OperatorError exit 2 */
function headFrom(option: unknown): ChainHead | undefined {
  if (option === undefined) return undefined;
  const [, seq, hash = ""] = /^([1-9]\d{0,14}):([0-9a-f]{64})$/.exec(String(option)) ?? [];
  if (seq === undefined) throw misused("--expect: expected NUMBER:HASH, as an earlier verify printed it.");
  return { seq: Number(seq), hash };
}

const counted = (count: number, one: string, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

function unsealedText({ rows, oldest }: ChainReport["unsealed"]): string[] {
  if (rows === 0) return ["Nothing waits to be sealed."];
  const line = `Not sealed yet: ${counted(rows, "row")} since ${oldest}.`;
  if (!isOverdue(oldest === null ? null : new Date(oldest), systemClock.now())) {
    return [`${line} Whatever works in the background does that within 5 s.`];
  }
  return [`${line} That is too long: until they are sealed they can be changed unseen.`, SEALING_HINT];
}

function textOf({ fault, rows, months, erased, dropped, unsealed, head }: ChainReport): string {
  if (fault) {
    const where = fault.event_id === null ? "" : ` (event ${fault.event_id}, ${fault.time})`;
    return `The audit log is not as it was written. ${fault.message}${where}.\nThe ${counted(rows, "row")} before hold. Keep this database as it is, and compare it with a backup from before.\n`;
  }
  const lines = [
    `The audit log holds: ${counted(rows, "row")} of ${counted(months, "month")} are as they were written.`,
  ];
  if (dropped.rows > 0) {
    lines.push(
      `${counted(dropped.rows, "row")} of ${counted(dropped.months, "month")} were dropped by age; the chain goes on over them.`,
    );
  }
  if (erased > 0) lines.push(`Of ${counted(erased, "row")} the address and agent were erased with their user.`);
  lines.push(...unsealedText(unsealed));
  if (head) lines.push(`The chain ends at ${head.seq}:${head.hash}`);
  return `${lines.join("\n")}\n`;
}
