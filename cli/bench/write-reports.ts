import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, extname } from "node:path";
import { failed, textOf } from "../../config/errors.ts";
import type { Judged } from "./assertions.ts";
import type { Comparison } from "./compare.ts";
import type { BenchReport } from "./report.ts";
import { htmlReport } from "./report-html.ts";
import { markdownReport } from "./report-markdown.ts";

type Write = (report: BenchReport, comparisons: readonly Comparison[], judged: readonly Judged[]) => string;

const FORMATS: Readonly<Record<string, Write>> = {
  ".json": (report, comparisons, assertions) => `${JSON.stringify({ ...report, comparisons, assertions }, null, 2)}\n`,
  ".html": htmlReport,
  ".md": (report) => markdownReport(report),
};

/** Writes a report to each file, in the form that its name ends with. @throws OperatorError exit 1 */
export function writeReports(paths: readonly string[], ...content: Parameters<Write>): void {
  for (const path of paths) {
    try {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, FORMATS[extname(path)]?.(...content) ?? "");
    } catch (error) {
      throw failed(`${path} cannot be written: ${textOf(error)}`, undefined, error);
    }
  }
}
