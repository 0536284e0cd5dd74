import { misused } from "../../config/errors.ts";
import { findSetting, loadSettings, nearestKey, type ResolvedSetting } from "../../config/load.ts";
import { defaultOf, type Settings } from "../../config/schema.ts";
import { readSecrets } from "../../config/secrets.ts";
import type { CommandContext, Implementation } from "../command.ts";
import { table } from "../io.ts";

const load = (context: CommandContext) => loadSettings(context.home, context.environment);

/** What may be shown of a value: of a secret only whether there is one. */
const shown = ({ setting, raw }: ResolvedSetting) => (setting.secret ? (raw === "" ? "" : "(set)") : raw);

/** Checks every setting and the secrets; exit 2 with a line per fault. */
export const check: Implementation = {
  async run(context) {
    const { settings, resolved, variables } = load(context);
    readSecrets(variables);
    const changed = [...resolved.values()].filter(({ origin }) => origin !== "default").length;
    return {
      json: { ok: true, environment: settings.environment, settings: resolved.size, changed },
      text: `The configuration is good: ${settings.environment}, ${changed} of ${resolved.size} settings differ from the defaults.\n`,
    };
  },
};

/** Every setting with its value and where that came from. */
export const show: Implementation = {
  async run(context) {
    const rows = [...load(context).resolved].map(([key, entry]) => ({
      key,
      value: shown(entry),
      origin: entry.origin,
    }));
    return {
      json: Object.fromEntries(rows.map(({ key, value, origin }) => [key, { value, origin }])),
      text: table(
        ["SETTING", "VALUE", "FROM"],
        rows.map(({ key, value, origin }) => [key, JSON.stringify(value), origin]),
      ),
    };
  },
};

/** All there is to know about one setting. */
export const explain: Implementation = {
  async run(context) {
    const key = context.arguments[0] ?? "";
    const setting = findSetting(key);
    if (!setting) {
      const nearest = nearestKey(key);
      throw misused(
        `There is no setting ${key}.`,
        nearest ? `Did you mean ${nearest}?` : "`primer config show` lists them.",
      );
    }
    const { settings, resolved } = load(context);
    const entry = resolved.get(key);
    const fallback = defaultOf(setting, (settings as Settings).environment);
    const value = entry ? shown(entry) : "";
    const facts = {
      key,
      sentence: setting.sentence,
      expected: setting.kind.expected,
      default: fallback,
      value,
      origin: entry?.origin ?? "default",
      variable: [setting.variable, setting.alias].filter(Boolean).join(" or "),
    };
    const lines = [
      ["expected", facts.expected],
      ["default", JSON.stringify(facts.default)],
      ["value", `${JSON.stringify(facts.value)} (${facts.origin})`],
      ["variable", `${facts.variable}, or the same with _FILE`],
    ].map(([name, text]) => `  ${(name ?? "").padEnd(9)} ${text}`);
    return { json: facts, text: `${key}: ${facts.sentence}\n${lines.join("\n")}\n` };
  },
};
