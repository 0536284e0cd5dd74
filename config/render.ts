import { misused } from "./errors.ts";
import { defaultOf, ENVIRONMENT_SETTING, type Environment, type NamedSetting, SETTING_LIST } from "./schema.ts";

type RawValues = Readonly<Record<string, unknown>>;

const toml = (value: unknown) => JSON.stringify(value);

/**
 * The text of primer.toml: every setting with its sentence, commented out at its default, active where `values` (raw, by
 * dotted key) say otherwise. Secret settings are not in it.
 */
export function renderSettingsFile(environment: Environment, values: RawValues): string {
  const tables = [...new Set(SETTING_LIST.map((entry) => entry.table))];
  const parts = tables.map((table) => {
    const entries = SETTING_LIST.filter((entry) => entry.table === table && !entry.secret);
    return entries.length === 0
      ? ""
      : `\n[${table}]\n${entries.map((entry) => line(entry, environment, values)).join("\n")}\n`;
  });
  return `# Settings of primer. A line without "#" differs from the default.
# \`primer config explain KEY\` says more about one; \`primer config check\` checks this file.
# Secrets (and URLs that carry passwords) belong into secrets.env, not here.

# ${ENVIRONMENT_SETTING.sentence}
environment = ${toml(environment)}
${parts.join("")}`;
}

function line(entry: NamedSetting, environment: Environment, values: RawValues): string {
  const fallback = defaultOf(entry, environment);
  const value = values[entry.key] ?? fallback;
  const active = JSON.stringify(value) !== JSON.stringify(fallback);
  return `# ${entry.sentence}\n${active ? "" : "# "}${entry.name} = ${toml(value)}`;
}

/** The text of secrets.env: one variable a line. */
export function renderSecretsFile(variables: Readonly<Record<string, string>>): string {
  const lines = Object.entries(variables).map(quoted);
  return `# Secrets of primer. Keep a copy apart from the database's backups, and show it to nobody:
# without the master key the keys in the database cannot be opened, by anybody.
${lines.join("\n")}
`;
}

/** In the quotes that the value lacks. @throws OperatorError (exit 2) where no quotes can hold it */
function quoted([name, value]: [string, string]): string {
  if (/^[\w.,:/@%+-]*$/.test(value)) return `${name}=${value}`;
  const quote = ["'", "`"].find((mark) => !value.includes(mark));
  if (quote === undefined || /[\r\n]/.test(value)) {
    throw misused(`${name} cannot be written to secrets.env.`, "Percent-encode the quotes in it: ' is %27.");
  }
  return `${name}=${quote}${value}${quote}`;
}
