/** The parts of README.md that are made from the program itself. `bun run generate` writes them, CI compares. */
import { defaultOf, ENVIRONMENT_SETTING, ENVIRONMENTS, type NamedSetting, SETTING_LIST } from "../../config/schema.ts";
import { anchorOf } from "../../grafana/build/alert-files.ts";
import { ALERT_LIST } from "../../grafana/build/alerts.ts";
import { argumentForm } from "../command.ts";
import { COMMANDS } from "../commands.ts";

const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("\n", " ");
const code = (text: string) => `\`${cell(text)}\``;
const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;

function commandTable(): string {
  const rows = COMMANDS.map(({ name, summary, arguments: parameters = [], options = [] }) => {
    const words = [`primer ${name}`, ...parameters.map(argumentForm)].join(" ");
    const flags = options.map(({ flags }) => code(flags)).join(" ");
    return row([code(words), cell(summary), flags]);
  });
  return [row(["command", "what it does", "options"]), row(["---", "---", "---"]), ...rows].join("\n");
}

function defaultText(entry: NamedSetting): string {
  const values = ENVIRONMENTS.map((environment) => JSON.stringify(defaultOf(entry, environment)));
  if (new Set(values).size === 1) return code(values[0] ?? "");
  return ENVIRONMENTS.map((environment, index) => `${code(values[index] ?? "")} in ${environment}`).join(", ");
}

function settingsTable(): string {
  const rows = [ENVIRONMENT_SETTING, ...SETTING_LIST].map((entry) => {
    const names = [entry.variable, entry.alias].filter((name) => name !== undefined).map(code);
    return row([code(entry.key), defaultText(entry), cell(entry.sentence), cell(entry.kind.expected), names.join(" ")]);
  });
  const head = row(["setting", "default", "what it does", "may be", "variable"]);
  return [head, row(["---", "---", "---", "---", "---"]), ...rows].join("\n");
}

function runbookTable(): string {
  const rows = ALERT_LIST.map(([name, { severity, runbook }]) =>
    row([
      `<a id="${anchorOf(name)}"></a>${code(name)}<br>${severity}`,
      ...[runbook.means, runbook.look, runbook.act].map(cell),
    ]),
  );
  return [
    row(["alert", "what it means", "what to look at", "what to do"]),
    row(["---", "---", "---", "---"]),
    ...rows,
  ].join("\n");
}

const PARTS: Readonly<Record<string, () => string>> = {
  commands: commandTable,
  settings: settingsTable,
  runbook: runbookTable,
};

/** The README with its generated parts made anew. Throws where a part has no place in it. */
export function withReference(readme: string): string {
  let text = readme;
  for (const [name, make] of Object.entries(PARTS)) {
    const [start, end] = [`<!-- generated: ${name} -->`, `<!-- end: ${name} -->`];
    const [from, to] = [text.indexOf(start), text.indexOf(end)];
    if (from < 0 || to < from) throw new Error(`README.md has no place for "${name}"`);
    text = `${text.slice(0, from)}${start}\n${make()}\n${text.slice(to)}`;
  }
  return text;
}
