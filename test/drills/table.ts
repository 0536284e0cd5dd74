import { appendFileSync } from "node:fs";

/**
 * One row of the table that `bun run test:drills` ends with: what was promised, and what was seen when that was tried.
 *
 * @param drill what happens, after the number that the drill goes by where it has one
 */
export function tableRow(drill: string, promise: string, seen: string): void {
  const row = `| ${[drill, promise, seen].map((cell) => cell.replaceAll("|", "/")).join(" | ")} |\n`;
  process.stderr.write(row);
  // Set by test/support/run.ts, which prints all rows together when the drills are over.
  if (process.env.TEST_DRILL_TABLE) appendFileSync(process.env.TEST_DRILL_TABLE, row);
}
