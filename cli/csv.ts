import { FORMULA } from "./moving/sources/own.ts";

/**
 * A line of CSV without its end (RFC 4180). What a spreadsheet would take for a formula gets an apostrophe before it (OWASP,
 * "CSV Injection").
 */
export const csvLine = (cells: readonly string[]): string => cells.map(cellOf).join(",");

function cellOf(text: string): string {
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
