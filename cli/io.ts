import { misused } from "../config/errors.ts";
import { DEFAULT_LIMIT, MAX_LIMIT } from "../server/page.ts";

/** Where a command reads and writes: the terminal of this process, or of another one that it runs for. */
export interface Io {
  /** The result, and nothing else. */
  out(text: string): void;
  /** Progress, notes and errors. */
  note(text: string): void;
  /** All of standard input; at most 1 MiB. */
  input(): Promise<string>;
  /** Whether a person sits there who can be asked. */
  readonly interactive: boolean;
  readonly color: boolean;
  readonly columns: number;
}

const MAX_INPUT_BYTES = 1024 * 1024;

/** Reads standard input to its end. Throws RangeError past 1 MiB. */
async function readStandardInput(): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of Bun.stdin.stream()) {
    size += chunk.byteLength;
    if (size > MAX_INPUT_BYTES) throw new RangeError("Standard input is longer than 1 MiB");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** The terminal of this process. */
export function terminalIo(options: { color: boolean }): Io {
  let input: Promise<string> | undefined;
  return {
    out: (text) => void process.stdout.write(text),
    note: (text) => void process.stderr.write(text),
    input: () => {
      input ??= readStandardInput();
      return input;
    },
    interactive: Boolean(process.stdin.isTTY),
    color: options.color && Boolean(process.stderr.isTTY),
    columns: process.stdout.columns ?? 100,
  };
}

const paint = (code: number) => (io: Pick<Io, "color">, text: string) =>
  io.color ? `\u001b[${code}m${text}\u001b[0m` : text;

export const bold = paint(1);
export const dim = paint(2);
export const red = paint(31);
export const green = paint(32);
export const yellow = paint(33);

/** Rows under a heading, columns as wide as their widest cell. Control characters from data never reach the terminal. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const clean = rows.map((row) => row.map(printable));
  const widths = head.map((title, column) => Math.max(title.length, ...clean.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return `${[head, ...clean].map(line).join("\n")}\n`;
}

/** How many rows of a list are asked for with --limit. @throws OperatorError exit 2 */
export function limitFrom(value: unknown): number {
  if (value === undefined) return DEFAULT_LIMIT;
  const limit = Number(value);
  if (Number.isInteger(limit) && limit >= 1 && limit <= MAX_LIMIT) return limit;
  throw misused(`--limit: expected a whole number from 1 to ${MAX_LIMIT}, not ${value}.`);
}

/** Text with its control characters replaced. */
export const printable = (text: string): string => text.replace(/\p{Cc}/gu, "\ufffd");

/** What --json prints of a command that failed. */
export const errorDocument = (exitCode: number, message: string, hint: string | undefined): string =>
  `${JSON.stringify({ error: { exit_code: exitCode, message, hint: hint ?? null } }, null, 2)}\n`;
